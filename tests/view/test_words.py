"""What a scan's summary says, and scales that make no picture of noise."""

from dataclasses import replace

import numpy as np
import pytest

from headprobe.comparison import compare_reports
from headprobe.report import Report
from headprobe.view.document import Document, Heads, Measure, Summary
from headprobe.view.saved import page_of
from headprobe.view.tables import cell
from tests.comparison.made import drawn, report
from tests.view.made import made


def summary(found: Report) -> Summary:
    return next(block for block in page_of(found) if isinstance(block, Summary))


def measures(page: Document) -> dict[str, Measure]:
    heads = next(block for block in page if isinstance(block, Heads))
    return {measure.name: measure for measure in heads.measures}


def test_one_head_is_like_no_other() -> None:
    found = summary(made(1, 1, pairs="layer"))
    assert ("1", "head") in found.figures
    assert ("1", "layer of attention") in found.figures
    assert not any("different" in words for words in (*found.sentences, *(what for _, what in found.figures)))


def test_one_layer_is_not_the_fewest_of_any() -> None:
    said = " ".join(summary(made(1, 6, pairs="layer")).sentences)
    assert "6 heads of layer 0 act like" in said
    assert "of any layer" not in said
    assert "the fewest of any layer" in " ".join(summary(made(2, 6, pairs="layer")).sentences)


@pytest.mark.parametrize(
    ("self_mass", "first_mass", "said"),
    [
        (0.03, 0.30, "30 % of a head's attention goes to the first token"),
        (0.26, 0.30, "26 % of a head's attention goes to the token itself"),
        (0.011, 0.28, "no fixed place gets much more of a head's attention"),
    ],
)
def test_what_is_more_than_chance_is_said(self_mass: float, first_mass: float, said: str) -> None:
    """Of uniform attention a quarter goes to the first token, and a hundredth to the token itself."""
    found = made(2, 4)
    heads = found.heads.assign(self_mass=self_mass, first_mass=first_mass).drop(columns=["prev_mass", "next_mass"])
    baselines = found.baselines.assign(self_mass=0.01, first_mass=0.27)
    assert said in " ".join(summary(replace(found, heads=heads, baselines=baselines)).sentences)


def test_small_changes_make_no_picture() -> None:
    base = {"rcos": drawn(0), "mean_distance": 50 * drawn(1)}
    moved = np.random.default_rng(3).normal(0, 1e-4, drawn(0).shape)
    tuned = {name: values + moved for name, values in base.items()}
    found = measures(page_of(compare_reports(report(base), report(tuned, model="child"))))
    assert found["Δ rcos"].high == pytest.approx(0.05)
    largest = compare_reports(report(base), report(base)).heads
    largest = largest[largest["metric"] == "mean_distance"]["base"].max()
    assert found["Δ mean_distance"].high == pytest.approx(0.05 * largest, rel=1e-3)


def test_heads_that_hardly_differ_have_one_colour() -> None:
    found = made(2, 4)
    close = found.heads.assign(aat_fro=[7.99, 8.0] * 4, nearest_js=[0.001, 0.002] * 4, entropy=[4.0, 4.001] * 4)
    types = close[["site", "path", "kind", "layer", "head"]].assign(type="", value=np.nan, local=[0.001, -0.001] * 4)
    shown = measures(page_of(replace(found, heads=close, types=types)))
    for name in ("aat_fro", "nearest_js", "entropy", "local (type)"):
        scale, values = shown[name].high - shown[name].low, [value for value in shown[name].values if value is not None]
        assert max(values) - min(values) < 0.06 * scale, name


def test_no_zero_is_below_zero() -> None:
    assert [cell(-1e-9, 3), cell(-0.0006, 3), cell(None, 3)] == ["0.000", "-0.001", ""]
