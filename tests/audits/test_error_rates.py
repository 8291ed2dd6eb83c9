"""What the gate claims of itself: how often it cries wolf, and how surely it finds what was planted.

Under the null the two reports are two halves of one corpus, read by the same model and paired at random.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

import headprobe
from headprobe.audits.audit import audit_report
from headprobe.audits.policy import default_policy
from headprobe.audits.rule import Facts
from headprobe.comparison import compare_reports
from headprobe.report import Report
from tests.conftest import SAMPLES

pytestmark = pytest.mark.slow

REPETITIONS = 200
METRICS = ["rcos", "js_mean"]
ALPHA = 0.05


@pytest.fixture(scope="module")
def whole() -> Report:
    return headprobe.scan(SAMPLES / "tiny-bert")


def half(report: Report, numbers: Any, plant: Callable[[pd.DataFrame], pd.DataFrame] | None = None) -> Report:
    """The report of some of its sequences, renumbered in the order given."""
    new = {int(number): i for i, number in enumerate(numbers)}
    sequences = report.sequences[report.sequences["sequence"].isin(new)]
    sequences = sequences.assign(sequence=sequences["sequence"].map(new))[["sequence", "site", "head", *METRICS]]
    sequences = sequences if plant is None else plant(sequences)
    means = sequences.groupby(["site", "head"])[METRICS].mean()
    heads = report.heads.drop(columns=METRICS).join(means, on=["site", "head"])
    inputs = pd.DataFrame({"sequence": range(len(new)), "length": 8, "cut": False, "sha256": "same"})
    return replace(report, sequences=sequences, heads=heads, inputs=inputs)


def halves(
    report: Report, seed: int, plant: Callable[[pd.DataFrame], pd.DataFrame] | None = None
) -> tuple[Report, Report]:
    order = np.random.default_rng(seed).permutation(128)
    return half(report, order[:64]), half(report, order[64:], plant)


def audited(base: Report, tuned: Report) -> tuple[set[str], pd.DataFrame]:
    """The codes of change that the default policy finds, and the comparison's heads."""
    comparison = compare_reports(base, tuned)
    result = audit_report(Facts(tuned, base, comparison), default_policy())
    return {finding.code for finding in result.findings if finding.code.startswith("HP2")}, comparison.heads


def test_false_alarms_are_as_rare_as_the_policy_says(whole: Report) -> None:
    alarms, discoveries = 0, dict.fromkeys(METRICS, 0)
    for seed in range(REPETITIONS):
        codes, heads = audited(*halves(whole, seed))
        alarms += bool(codes)
        for metric in METRICS:
            discoveries[metric] += bool((heads.loc[heads["metric"] == metric, "q"] < ALPHA).any())
    most = binom.ppf(0.999, REPETITIONS, ALPHA)
    assert all(count <= most for count in discoveries.values()), discoveries
    assert any(discoveries.values())  # a test that never rejects controls nothing
    assert alarms == 0  # the gate asks for a large change besides


def test_what_is_planted_is_found(whole: Report) -> None:
    """rcos of one head raised by 0.45, beyond HP201's limit of 0.35: found every time, and only there."""

    def plant(sequences: pd.DataFrame) -> pd.DataFrame:
        at = (sequences["site"] == 2) & (sequences["head"] == 4)
        return sequences.assign(rcos=sequences["rcos"] + 0.45 * at)

    for seed in range(20):
        codes, heads = audited(*halves(whole, seed, plant))
        assert codes == {"HP201"}
        found = heads[(heads["metric"] == "rcos") & (heads["q"] < ALPHA) & (heads["median_change"] > 0.35)]
        assert found[["site", "head"]].to_numpy().tolist() == [[2, 4]]


def test_a_small_change_is_significant_and_no_finding(whole: Report) -> None:
    def plant(sequences: pd.DataFrame) -> pd.DataFrame:
        return sequences.assign(rcos=sequences["rcos"] + 0.1)

    codes, heads = audited(*halves(whole, 0, plant))
    assert (heads.loc[heads["metric"] == "rcos", "q"] < ALPHA).mean() > 0.5
    assert codes == set()
