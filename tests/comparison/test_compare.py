"""Comparisons of reports: what was planted is found, where it was planted and by how much."""

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import headprobe
from headprobe.comparison import compare_reports
from headprobe.errors import UsageError
from headprobe.report import Report
from tests.comparison.made import drawn, report


@pytest.fixture(scope="session")
def scanned() -> Report:
    """A real scan."""
    return headprobe.scan("sample_inputs/tiny-bert", limit=20)


def test_a_model_is_no_different_from_itself(scanned: Report) -> None:
    comparison = compare_reports(scanned, scanned)
    heads = comparison.heads
    metrics = [name for name in scanned.sequences if name not in ("sequence", "site", "head")]
    assert len(heads) == len(scanned.heads) * len(metrics)
    assert set(heads["q"]) == set(heads["p"]) == {1.0}
    for name in ("change", "mean_change", "median_change", "effect", "dz", "ci_low", "ci_high"):
        assert (heads[name] == 0).all(), name
    assert set(heads["sequences"]) == {20}
    assert comparison.layers["rcos_base"].tolist() == pytest.approx(scanned.heads.groupby("site")["rcos"].mean())
    assert (comparison.layers["effective_heads_change"] == 0).all()
    assert comparison.drift.empty
    assert comparison.notes == ()


def test_rounding_is_no_change() -> None:
    values = drawn()
    noise = values + np.random.default_rng(1).normal(0, 1e-7, values.shape)
    large = 1e5 * values
    comparison = compare_reports(
        report({"rcos": values, "aat_fro": large}), report({"rcos": noise, "aat_fro": large * (1 + 1e-7)})
    )
    assert set(comparison.heads["q"]) == {1.0}
    assert (comparison.heads["change"] == 0).all()


def test_planted_changes_are_found_with_their_sign() -> None:
    before = {"rcos": drawn(0), "entropy": drawn(1)}
    after = {name: values.copy() for name, values in before.items()}
    noise = np.random.default_rng(2).normal(0, 0.01, (2, 20))
    after["rcos"][3] += 0.1 + noise[0]
    after["entropy"][6] -= 0.2 + noise[1]
    heads = compare_reports(report(before, layers=2), report(after, layers=2)).heads
    found = heads[heads["q"] < 0.05]
    assert [tuple(row) for row in found[["layer", "head", "metric"]].to_numpy()] == [(0, 3, "rcos"), (1, 2, "entropy")]
    up, down = found.to_dict("records")
    assert (up["effect"], down["effect"]) == (1.0, -1.0)
    assert up["change"] == pytest.approx(0.1 + noise[0].mean())
    assert up["change"] == pytest.approx(up["tuned"] - up["base"])
    assert up["mean_change"] == pytest.approx(up["change"])
    assert up["median_change"] == pytest.approx(np.median(0.1 + noise[0]))
    assert up["dz"] == pytest.approx(up["mean_change"] / (0.1 + noise[0]).std(ddof=1))
    assert up["ci_low"] < up["change"] < up["ci_high"]
    assert up["p"] == 2 / 2**20
    assert up["q"] == pytest.approx(8 * up["p"])  # one metric and all eight heads of the model are a family


def test_values_are_those_of_the_scans_and_not_of_the_sequences() -> None:
    base = report({"rcos": drawn()})
    weighted = replace(base, heads=base.heads.assign(rcos=0.5))
    heads = compare_reports(weighted, weighted).heads
    assert set(heads["base"]) == {0.5}


def test_the_order_of_rows_does_not_matter() -> None:
    base, tuned = report({"rcos": drawn(0)}, layers=2), report({"rcos": drawn(1)}, layers=2)
    shuffled = [
        replace(
            each, **{name: getattr(each, name).sample(frac=1, random_state=7) for name in ("sequences", "heads",
            "layers", "inputs")}
        )
        for each in (base, tuned)
    ]  # fmt: skip
    one, other = compare_reports(base, tuned), compare_reports(shuffled[0], shuffled[1])
    pd.testing.assert_frame_equal(one.heads, other.heads)
    pd.testing.assert_frame_equal(one.layers, other.layers)


def test_sites_are_matched_by_their_place_and_not_by_number_or_path() -> None:
    values = drawn()
    base = report({"rcos": values}, layers=2)
    tuned = report({"rcos": values[::-1].copy()}, layers=2, prefix="bert.")
    swap = {0: 1, 1: 0}
    changed = {
        name: getattr(tuned, name).assign(site=lambda table: table["site"].map(swap))
        for name in ("heads", "layers", "sequences")
    }
    moved = replace(tuned, **changed)
    pd.testing.assert_frame_equal(compare_reports(base, tuned).heads, compare_reports(base, moved).heads)


def test_a_layer_that_runs_twice_is_matched_call_by_call() -> None:
    reports = [report({"rcos": drawn(seed)}, layers=2) for seed in (0, 1)]
    shared = [replace(each, heads=each.heads.assign(layer=0), layers=each.layers.assign(layer=0)) for each in reports]
    one, other = (compare_reports(pair[0], pair[1]).heads for pair in (reports, shared))
    pd.testing.assert_series_equal(one["p"], other["p"])


def test_the_undefined_stays_missing_and_out_of_the_family() -> None:
    before, after = drawn(0), drawn(0)
    before[:4] = after[:4] = np.nan
    after[5] += 0.1
    comparison = compare_reports(report({"prev_mass": before}, layers=2), report({"prev_mass": after}, layers=2))
    heads = comparison.heads
    numbers = ["base", "change", "mean_change", "median_change", "effect", "dz", "ci_low", "ci_high", "p", "q"]
    assert heads.loc[:3, numbers].isna().all(axis=None)
    assert heads.loc[:3, "sequences"].tolist() == [0] * 4
    assert heads["p"].tolist()[5] == 2 / 2**20
    assert heads["q"].tolist()[5] == 4 * 2 / 2**20
    assert comparison.notes == ()


def test_what_one_model_alone_has_is_left_out_and_told() -> None:
    before, after = drawn(0), drawn(0) + 0.1
    after[2, :3] = np.nan
    comparison = compare_reports(report({"rcos": before}), report({"rcos": after}))
    assert comparison.heads["sequences"].tolist() == [20, 20, 17, *[20] * 5]
    assert comparison.heads.loc[2, "p"] == 2 / 2**17
    assert comparison.notes == ("3 values are defined in one of the two models only and are left out (rcos)",)


def test_drift_is_named_and_averaged_by_layer() -> None:
    base = report({"rcos": drawn()}, layers=2)
    drift = pd.DataFrame(
        [(site, head, 0.1 * head, 0.01 * site) for site in (1, 0, 2) for head in range(4)],
        columns=["site", "head", "js", "tv"],
    )  # fmt: skip
    comparison = compare_reports(base, base, drift)
    assert comparison.drift["js"].tolist() == pytest.approx([0, 0.1, 0.2, 0.3] * 2)
    assert comparison.drift["layer"].tolist() == [0] * 4 + [1] * 4
    assert comparison.layers["drift_js"].tolist() == pytest.approx([0.15, 0.15])
    assert comparison.layers["drift_tv"].tolist() == pytest.approx([0.0, 0.01])
    with pytest.raises(ValueError, match="twice"):
        compare_reports(base, base, pd.concat([drift, drift]))


def test_too_few_sequences_are_told_with_how_many_it_takes() -> None:
    base, tuned = (report({"rcos": drawn(seed, 144, 12)}, layers=12) for seed in (0, 1))
    (note,) = compare_reports(base, tuned).notes
    assert "12 sequences" in note
    assert "144" in note
    assert "at least 13" in note
    base, tuned = (report({"rcos": drawn(seed, 144, 13)}, layers=12) for seed in (0, 1))
    assert compare_reports(base, tuned).notes == ()


def test_one_sequence_is_compared_as_far_as_it_goes() -> None:
    comparison = compare_reports(report({"rcos": drawn(0, 8, 1)}), report({"rcos": drawn(1, 8, 1)}))
    assert set(comparison.heads["p"]) == {1.0}
    assert comparison.heads[["ci_low", "ci_high", "dz"]].isna().all(axis=None)


def test_other_software_is_told() -> None:
    base = report({"rcos": drawn()}, dtype="bfloat16")
    tuned = report({"rcos": drawn()}, dtype="bfloat16", device="cuda:0", versions={"torch": "3.0"})
    notes = compare_reports(base, tuned).notes
    assert [note.split(",")[0] for note in notes] == [
        "measured with torch 2.9 and 3.0",
        "measured on cpu and cuda:0",
        "in bfloat16 a model differs from itself by up to a thousandth when it is run in other batches; float32 tells"
        " smaller changes",
    ]


def test_the_seed_moves_intervals_and_nothing_else() -> None:
    base, tuned = report({"rcos": drawn(0)}), report({"rcos": drawn(1)})
    one, other = (compare_reports(base, tuned, seed=seed).heads for seed in (0, 1))
    moved = ["ci_low", "ci_high"]
    pd.testing.assert_frame_equal(one.drop(columns=moved), other.drop(columns=moved))
    assert (one[moved] != other[moved]).any(axis=None)
    assert np.allclose(one[moved], other[moved], atol=0.02)
    narrow = compare_reports(base, tuned, confidence=0.5).heads
    assert (narrow["ci_high"] - narrow["ci_low"] < one["ci_high"] - one["ci_low"]).all()
    with pytest.raises(UsageError, match="confidence"):
        compare_reports(base, tuned, confidence=95)


def test_a_large_comparison_takes_seconds() -> None:
    names = [f"metric_{i}" for i in range(11)]
    base, tuned = (
        report({name: drawn(seed + i, 144, 128) for i, name in enumerate(names)}, layers=12) for seed in (0, 50)
    )
    start = time.process_time()
    comparison = compare_reports(base, tuned)
    assert len(comparison.heads) == 144 * 11
    assert time.process_time() - start < 20


def test_importing_it_is_cheap() -> None:
    code = "import sys, headprobe.comparison; sys.exit(bool({'scipy', 'torch', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
