"""How often comparisons find what is not there, and what is."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from headprobe.comparison.statistics import discoveries, signed_rank

HEADS, SEQUENCES, REPETITIONS = 32, 24, 200


def experiments(effect: float, changed: int, seed: int, repetitions: int = REPETITIONS) -> NDArray[np.bool_]:
    """Which heads are found in each of many comparisons of two models, repetitions × heads.

    Both models' values of a sequence share how hard it is and, heads being alike, some of their deviation from that.
    In the tuned model the first `changed` heads are shifted by `effect` standard deviations of the change.
    """
    generator = np.random.default_rng(seed)

    def values() -> NDArray[np.float64]:
        common = generator.normal(size=(repetitions, 1, SEQUENCES))
        drawn: NDArray[np.float64] = np.sqrt(0.4) * common + np.sqrt(0.6) * generator.normal(
            size=(repetitions, HEADS, SEQUENCES)
        )
        return drawn

    hard = generator.exponential(2.0, size=(repetitions, 1, SEQUENCES))
    before, after = hard + values(), hard + values()
    after[:, :changed] += effect * np.sqrt(2.0)
    _, p = signed_rank((after - before).reshape(-1, SEQUENCES))
    return np.array([discoveries(each) < 0.05 for each in p.reshape(repetitions, HEADS)])


def test_where_nothing_changed_something_is_found_no_more_often_than_promised() -> None:
    found = experiments(0.0, 0, seed=0).any(axis=1).sum()
    assert found <= binom.ppf(0.999, REPETITIONS, 0.05), found


def test_an_effect_of_one_deviation_is_found_in_most_heads() -> None:
    found = experiments(1.0, 8, seed=1)
    assert found[:, :8].mean() >= 0.85
    false = found[:, 8:].sum(axis=1) / np.maximum(1, found.sum(axis=1))
    assert false.mean() <= 0.05 + 3 * false.std() / np.sqrt(REPETITIONS)
