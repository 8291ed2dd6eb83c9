"""Metrics are chosen by name or column, and packages can bring their own."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import headprobe.metrics
from headprobe.errors import EnvironmentFailure, UsageError
from headprobe.metrics import METRICS, Column, Values, installed, select
from headprobe.metrics.shared import valid_rows
from headprobe.metrics.totals import PerSequence
from headprobe.testing import check_metric
from headprobe.tile import AttentionTile
from tests.conftest import Run


class Largest:
    """The mean of a row's largest weight, again."""

    name = "plug-in"
    shape = "rows"
    pairwise = False
    columns: tuple[Column, ...] = (Column("my_largest", "head", "the largest weight", "mass", high=1.0),)
    formula = "mean of max p"
    baseline = "1/s"
    source = "a test"

    def observe(self, tile: AttentionTile) -> PerSequence:
        rows = tile.once(valid_rows)
        return rows.means([(rows.probs.amax(-1), rows.size >= 1)])

    def compute(self, total: PerSequence) -> Values:
        return Values(heads={"my_largest": total.mean()[:, 0]})


class Clashing(Largest):
    name = "clashing"
    columns = (Column("rcos", "head", "taken already"),)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    installed.cache_clear()
    yield
    installed.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    point = EntryPoint("mine", f"{__name__}:{name}", "headprobe.metrics")
    monkeypatch.setattr(headprobe.metrics, "entry_points", lambda group: [point])


def test_a_plug_in_is_a_metric_like_any_other(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    install(monkeypatch, "Largest")
    check_metric(installed()["plug-in"])
    assert "my_largest" in run("metrics").out
    found = run("scan", "sample_inputs/tiny-vit", "-n", "3", "-f", "csv", "--metrics", "my_largest,confidence")
    header, first, *_ = (line.split(",") for line in found.out.splitlines())
    row = dict(zip(header, first, strict=True))
    assert row["my_largest"] == row["confidence"] != ""


@pytest.mark.parametrize("name", ["Clashing", "Missing"])
def test_a_plug_in_that_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    install(monkeypatch, name)
    with pytest.raises(EnvironmentFailure, match=f"mine .*:{name}"):
        installed()


def test_words_choose_metrics_and_columns() -> None:
    metrics, columns = select(["rcos", "entropy"])
    assert [metric.name for metric in metrics] == ["validity", "redundancy", "entropy"]
    assert columns == {"row_error", "leak", "zero_frac", "rcos", "entropy", "entropy_norm", "eff_keys", "confidence"}
    everything, _ = select([])
    assert everything == list(METRICS.values())
    with pytest.raises(UsageError, match=r"Did you mean rcos"):
        select(["rcoss"])


def test_names_and_columns_are_unique() -> None:
    owners: dict[Any, list[str]] = {}
    for name, metric in METRICS.items():
        assert metric.name == name
        for column in metric.columns:
            owners.setdefault((column.level, column.name), []).append(name)
    assert [key for key, names in owners.items() if len(names) > 1] == []
