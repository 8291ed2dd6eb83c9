"""Whether a batch's sequences are run together, one by one or in rows is nobody's business but the cache's."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import headprobe
from headprobe import budget
from headprobe.report import TABLES, Report

SAMPLES = Path(__file__).parent.parent / "sample_inputs"
TEXTS = ["one two three four five six", "a, b. c!", "to be or not to be, that is", "x", "seven eight nine ten"]
ROWS = ("validity", "entropy", "position", "regions", "js", "kl")


def same(one: Report, other: Report, skip: tuple[str, ...] = ()) -> None:
    for name in (name for name in TABLES if name not in skip):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name), rtol=1e-4, atol=2e-6)


def small(monkeypatch: pytest.MonkeyPatch, bytes_: int = 1) -> None:
    monkeypatch.setattr(budget, "CACHED", bytes_)


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-llama", "tiny-bart", "tiny-vit"])
@pytest.mark.parametrize("given", [{}, {"pairs": "model"}, {"metrics": ROWS}], ids=["all", "across", "rows"])
def test_a_scan_is_the_same(name: str, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"limit": 6, "batch_size": 3} | given
    whole = headprobe.scan(SAMPLES / name, **options)
    small(monkeypatch)
    same(whole, headprobe.scan(SAMPLES / name, **options), skip=("groups",) if name == "tiny-vit" else ())


@pytest.mark.slow
@pytest.mark.parametrize("special", ["keep", "drop-keys", "drop-queries"])
def test_what_is_known_of_tokens_stays_with_them(special: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"texts": TEXTS, "special": special, "probe": True, "batch_size": 5}
    whole = headprobe.scan(SAMPLES / "tiny-bert", **options)
    if special == "keep":
        assert whole.heads[["special_mass", "delimiter_mass", "duplicate_mass"]].notna().all(axis=None)
    small(monkeypatch)
    same(whole, headprobe.scan(SAMPLES / "tiny-bert", **options))


def test_outputs_of_heads_stay_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"texts": TEXTS, "metrics": ("js", "cka", "ocos", "norms"), "batch_size": 5}
    whole = headprobe.scan(SAMPLES / "tiny-bert", **options)
    small(monkeypatch)
    same(whole, headprobe.scan(SAMPLES / "tiny-bert", **options))


@pytest.mark.parametrize("match", [False, True])
def test_models_are_compared_part_by_part(match: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    models = SAMPLES / "tiny-bert", SAMPLES / "tiny-bert-finetuned"
    options: dict[str, Any] = {"limit": 6, "batch_size": 3, "match": match}
    whole = headprobe.compare(*models, **options)
    small(monkeypatch)
    parted = headprobe.compare(*models, **options)
    for name in ("heads", "layers"):
        pd.testing.assert_frame_equal(getattr(whole, name), getattr(parted, name), rtol=1e-3, atol=2e-6)
