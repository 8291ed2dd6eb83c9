"""The statistics of comparisons: published and hand-made values, slow independent versions, scipy's, error rates."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headprobe.comparison.statistics import discoveries, least_sequences, mean_interval, signed_rank


def slow_signed_rank(changes: list[float]) -> tuple[float, float]:
    """Rank-biserial correlation and two-sided p, by giving the changes every combination of signs."""
    sizes = [abs(change) for change in changes]
    ranks = [sum(other < size for other in sizes) + (sum(other == size for other in sizes) + 1) / 2 for size in sizes]
    kept = [(rank, change > 0) for rank, change in zip(ranks, changes, strict=True) if change]
    observed = sum(rank for rank, rises in kept if rises) - sum(rank for rank, rises in kept if not rises)
    signs = list(itertools.product((-1, 1), repeat=len(kept)))
    extreme = sum(
        abs(sum(sign * rank for sign, (rank, _) in zip(each, kept, strict=True))) >= abs(observed) - 1e-9
        for each in signs
    )
    number = len(changes)
    return observed / (number * (number + 1) / 2), extreme / len(signs)


def slow_discoveries(p: list[float]) -> list[float]:
    """The smallest level at which each hypothesis is rejected by the step-up procedure."""
    number = len(p)
    ordered = sorted(p)
    adjusted = []
    for each in p:
        first = ordered.index(each)
        adjusted.append(min([1.0, *(ordered[i] * number / (i + 1) for i in range(first, number))]))
    return adjusted


def test_eight_rising_sequences_have_the_smallest_p_of_eight() -> None:
    effect, p = signed_rank(np.arange(1.0, 9.0)[None])
    assert p.tolist() == [2 / 256]
    assert effect.tolist() == [1.0]


@given(st.lists(st.sampled_from([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0]), min_size=1, max_size=9))
@settings(max_examples=150, deadline=None)
def test_p_is_the_share_of_sign_flips_that_are_as_extreme(changes: list[float]) -> None:
    effect, p = signed_rank(np.array([changes]))
    assert (effect[0], p[0]) == pytest.approx(slow_signed_rank(changes))


@pytest.mark.parametrize("number", [5, 20, 50])
def test_p_is_scipys_exact_p(number: int) -> None:
    from scipy.stats import wilcoxon

    changes = np.random.default_rng(number).normal(0.3, 1, (12, number))
    _, p = signed_rank(changes)
    np.testing.assert_allclose(p, wilcoxon(changes, axis=1, method="exact").pvalue, rtol=1e-9)


def test_beyond_the_exact_p_it_is_scipys_normal_one() -> None:
    from scipy.stats import wilcoxon

    changes = np.random.default_rng(0).normal(0.1, 1, (12, 300)).round(1)
    changes[0] = 0.0
    _, p = signed_rank(changes)
    assert p[0] == 1.0
    expected = wilcoxon(changes[1:], axis=1, method="asymptotic", zero_method="pratt").pvalue
    np.testing.assert_allclose(p[1:], expected, rtol=1e-9)


def test_exact_and_normal_p_meet() -> None:
    from scipy.special import ndtr

    changes = np.random.default_rng(0).normal(0.1, 1, (50, 128))
    effect, exact = signed_rank(changes)
    sizes = np.arange(1.0, 129.0)
    normal = 2 * ndtr(-np.abs(effect) * sizes.sum() / np.sqrt((sizes**2).sum()))
    np.testing.assert_allclose(exact, normal, rtol=0.15)
    assert (exact[exact < 0.05] <= normal[exact < 0.05] * 1.01).all()  # the normal p never promises more


def test_no_change_at_all_is_no_evidence_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        effect, p = signed_rank(np.zeros((3, 20)))
        low, high = mean_interval(np.zeros((3, 20)), seed=0, confidence=0.95)
    assert effect.tolist() == [0.0] * 3
    assert p.tolist() == [1.0] * 3
    assert low.tolist() == high.tolist() == [0.0] * 3


def test_where_the_line_of_rounding_is_drawn_moves_no_other_rank() -> None:
    changes = np.array([[0.001, -0.002, 0.3, 0.4, 0.5, 0.6]])
    settled = np.where(np.abs(changes) < 0.01, 0.0, changes)
    (one,), _ = signed_rank(changes)
    (other,), _ = signed_rank(settled)
    assert abs(one - other) <= 3 / 21


def test_golden_discoveries() -> None:
    np.testing.assert_allclose(discoveries(np.array([0.01, 0.02, 0.03, 0.04, 0.5])), [0.05, 0.05, 0.05, 0.05, 0.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_discoveries_are_those_of_the_step_up_procedure(p: list[float]) -> None:
    np.testing.assert_allclose(discoveries(np.array(p)), slow_discoveries(p), atol=1e-12)


def test_the_missing_are_no_part_of_the_family() -> None:
    q = discoveries(np.array([0.01, np.nan, 0.02]))
    np.testing.assert_allclose(q, [0.02, np.nan, 0.02])
    assert np.isnan(discoveries(np.array([np.nan]))).all()


def test_golden_interval() -> None:
    low, high = mean_interval(np.arange(1.0, 21.0)[None], seed=0, confidence=0.95)
    np.testing.assert_allclose([low[0], high[0]], [7.95, 12.95])


def test_intervals_are_scipys() -> None:
    from scipy.stats import bootstrap

    changes = np.random.default_rng(1).exponential(1, (6, 25)) - 0.5
    low, high = mean_interval(changes, seed=3, confidence=0.9)
    for row, ends in zip(changes, zip(low, high, strict=True), strict=True):
        generator = np.random.default_rng(3)
        slow = bootstrap((row,), np.mean, method="BCa", confidence_level=0.9, random_state=generator)
        np.testing.assert_allclose(ends, slow.confidence_interval, rtol=1e-9)


def test_an_interval_depends_on_its_own_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = np.random.default_rng(2).normal(size=(7, 30))
    together = mean_interval(changes, seed=0, confidence=0.95)
    monkeypatch.setattr("headprobe.comparison.statistics.BLOCK", 2)
    monkeypatch.setattr("headprobe.comparison.statistics.DRAWN", 1000)
    np.testing.assert_allclose(mean_interval(changes[::-1], seed=0, confidence=0.95), np.array(together)[:, ::-1])


@pytest.mark.parametrize(("heads", "needed"), [(144, 13), (1024, 16), (1, 6)])
def test_how_many_sequences_one_discovery_takes(heads: int, needed: int) -> None:
    assert least_sequences(heads) == needed
    for number, possible in ((needed, True), (needed - 1, False)):
        p: NDArray[np.float64] = np.ones(heads)
        p[0] = 2 / 2**number
        assert bool(discoveries(p)[0] <= 0.05) == possible


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    changes = np.random.default_rng(5).normal(0.2, 1, (600, 40))
    low, high = mean_interval(changes, seed=0, confidence=0.95)
    covered = ((low <= 0.2) & (high >= 0.2)).mean()
    assert 0.91 <= covered <= 0.98
