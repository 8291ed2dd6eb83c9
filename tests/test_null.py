"""Null models: the same scan on fresh weights, or on inputs that say nothing."""

from pathlib import Path

import pandas as pd
import pytest
import torch

import headprobe
from headprobe.errors import InputError, UsageError
from headprobe.feed.nulls import without_meaning
from headprobe.load.checkpoint import load_checkpoint
from headprobe.load.collate import Batch
from headprobe.report import Report
from headprobe.settings import ScanOptions

SAMPLES = Path(__file__).parents[1] / "sample_inputs"
BERT = SAMPLES / "tiny-bert"


@pytest.fixture(scope="module")
def fresh() -> Report:
    return headprobe.scan(BERT, limit=4, null="random-init", null_runs=2)


def test_a_null_model_is_measured_beside_the_model(fresh: Report) -> None:
    plain = headprobe.scan(BERT, limit=4)
    pd.testing.assert_frame_equal(fresh.heads, plain.heads)
    assert len(fresh.null_heads) == 2 * len(plain.heads)
    assert fresh.null_layers["run"].tolist() == [0] * 4 + [1] * 4
    rcos = fresh.null_heads.groupby("run")["rcos"].mean()
    assert rcos.min() > 0.99  # at initialisation all of BERT's attention is nearly uniform
    assert rcos[0] != rcos[1]


def test_the_excess_is_over_the_mean_of_the_draws(fresh: Report) -> None:
    excess = fresh.excess()
    mean = fresh.null_heads.groupby(["site", "head"])["entropy"].mean()
    wanted = fresh.heads["entropy"].to_numpy() - mean.to_numpy()
    assert excess["entropy"].to_numpy() == pytest.approx(wanted)
    assert fresh.excess("layers")["effective_heads"].min() > 0
    with pytest.raises(UsageError, match="no null model"):
        headprobe.scan(BERT, limit=1).excess()


def test_it_comes_back_as_it_was_saved(fresh: Report, tmp_path: Path) -> None:
    fresh.save(tmp_path / "report.json")
    loaded = Report.load(tmp_path / "report.json")
    pd.testing.assert_frame_equal(loaded.null_heads, fresh.null_heads)
    assert loaded.results_sha256 == fresh.results_sha256


def test_a_report_that_was_changed_by_hand_is_refused(fresh: Report, tmp_path: Path) -> None:
    fresh.save(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    first = repr(float(fresh.heads["rcos"].iloc[0]))
    assert first in text
    (tmp_path / "report.json").write_text(text.replace(first, "0.125", 1))
    with pytest.raises(InputError, match="was changed after it was saved"):
        Report.load(tmp_path / "report.json")


@pytest.mark.parametrize("null", ["random-tokens", "shuffled"])
def test_only_words_change(null: str) -> None:
    model = load_checkpoint(str(BERT), ScanOptions.of()).model
    ids = torch.tensor([[1, 50, 51, 52, 53, 2, 0, 0], [1, 60, 61, 62, 63, 64, 65, 2]])
    mask = torch.tensor([[1] * 6 + [0] * 2, [1] * 8])
    special = (ids < 3) & mask.bool()
    batch = Batch({"input_ids": ids, "attention_mask": mask}, (0, 1), {"encoder": special, "decoder": special})
    (changed,) = without_meaning([batch], model, null, seed=3)
    now = changed.inputs["input_ids"]
    kept = special | ~mask.bool()
    assert torch.equal(now[kept], ids[kept])
    assert not torch.equal(now, ids)
    assert not set(now[~kept].tolist()) & set(ids[special].tolist())
    if null == "shuffled":
        assert [sorted(row) for row in now.tolist()] == [sorted(row) for row in ids.tolist()]
    (again,) = without_meaning([batch], model, null, seed=3)
    (other,) = without_meaning([batch], model, null, seed=4)
    assert torch.equal(again.inputs["input_ids"], now)
    assert not torch.equal(other.inputs["input_ids"], now)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-bart", "tiny-vit"])
def test_every_kind_of_model_has_a_random_one(name: str) -> None:
    report = headprobe.scan(SAMPLES / name, limit=2, null="random-init", null_runs=1)
    assert len(report.null_heads) == len(report.heads)


def test_what_is_no_text_has_no_random_tokens() -> None:
    with pytest.raises(UsageError, match="is for texts"):
        headprobe.scan(SAMPLES / "tiny-vit", limit=2, null="shuffled")


def test_unknown_nulls_are_refused() -> None:
    with pytest.raises(UsageError, match='"random" is not known'):
        headprobe.scan(BERT, null="random")
    with pytest.raises(UsageError, match="too small"):
        headprobe.scan(BERT, null="shuffled", null_runs=0)
