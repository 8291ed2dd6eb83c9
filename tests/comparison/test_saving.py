"""Comparisons as files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from headprobe.comparison import Comparison, compare_reports
from headprobe.errors import EnvironmentFailure, InputError, UsageError
from tests.comparison.made import drawn, report


@pytest.fixture
def comparison() -> Comparison:
    base = report({"rcos": drawn(0), "entropy": np.where(np.arange(8)[:, None] < 4, np.nan, drawn(1))}, layers=2,
                  model="a|b")  # fmt: skip
    tuned = replace(base, sequences=base.sequences.assign(rcos=base.sequences["rcos"] + 0.1))
    drift = pd.DataFrame({"site": [0], "head": [1], "js": [0.1], "tv": [0.2]})
    return replace(compare_reports(base, tuned, drift), notes=("a note",))


def equal(one: Comparison, other: Comparison) -> None:
    for name in ("base", "tuned", "notes", "options"):
        assert getattr(one, name) == getattr(other, name)
    for name, table in one.tables.items():
        pd.testing.assert_frame_equal(table, other.tables[name])


@pytest.mark.parametrize("name", ["out.json", "folder"])
def test_what_is_saved_is_read_again(comparison: Comparison, tmp_path: Path, name: str) -> None:
    written = comparison.save(tmp_path / name)
    equal(comparison, Comparison.load(tmp_path / name))
    assert written[-1].name == ("out.json" if name == "out.json" else "comparison.json")
    assert all(path.is_file() for path in written)


def test_without_drift_too(comparison: Comparison, tmp_path: Path) -> None:
    plain = replace(comparison, drift=comparison.drift.head(0), notes=())
    plain.save(tmp_path / "out.json")
    equal(plain, Comparison.load(tmp_path / "out.json"))


def test_a_table_is_the_heads(comparison: Comparison, tmp_path: Path) -> None:
    comparison.save(tmp_path / "heads.csv")
    read = pd.read_csv(tmp_path / "heads.csv")
    assert list(read) == list(comparison.heads)
    np.testing.assert_allclose(read["change"], comparison.heads["change"])


def test_the_document_is_standard_json(comparison: Comparison) -> None:
    document = comparison.document()
    assert document["schema"] == "headprobe.comparison"
    json.dumps(document, allow_nan=False)


def test_what_cannot_be_written_leaves_nothing(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        comparison.save(tmp_path / "out.xls")
    with pytest.raises(EnvironmentFailure):
        comparison.save(tmp_path / "nowhere" / "out.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": "headprobe.report"}, "no headprobe comparison"),
        ({"schema_version": "2.0"}, "schema version 2.0"),
        ({"tables": {}}, "damaged"),
        ({"base": None}, "damaged"),
        ({"base": {"model": "x"}}, "damaged"),
        ({"notes": 3}, "damaged"),
        ({"options": None}, "damaged"),
        ({"options": {"confidence": "high"}}, "damaged"),
        ({"tuned": {"model": "x", "model_class": "X", "files": []}}, "damaged"),
    ],
)
def test_what_is_no_comparison_is_refused(
    comparison: Comparison, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    path = tmp_path / "out.json"
    path.write_text(json.dumps({**comparison.document(), **changes}))
    with pytest.raises(InputError, match=words):
        Comparison.load(path)


def test_a_layer_without_heads_is_refused(comparison: Comparison, tmp_path: Path) -> None:
    document = comparison.document()
    document["tables"]["layers"]["site"][0] = 99
    path = tmp_path / "out.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="damaged: ValueError\\('layers has other rows than the heads'\\)"):
        Comparison.load(path)


@pytest.mark.parametrize(
    "change", ["no sites", "words for numbers", "lists of unequal length", "a gap", "a head twice"]
)
def test_a_damaged_table_is_refused(comparison: Comparison, tmp_path: Path, change: str) -> None:
    document = comparison.document()
    heads = document["tables"]["heads"]
    if change == "no sites":
        del heads["site"]
    elif change == "words for numbers":
        heads["p"] = ["small"] * len(heads["p"])
    elif change == "a gap":
        heads["layer"][2] = None
    elif change == "a head twice":
        heads["head"][2] = heads["head"][1]
    else:
        heads["p"] = heads["p"][:-1]
    path = tmp_path / "out.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match="damaged"):
        Comparison.load(path)
