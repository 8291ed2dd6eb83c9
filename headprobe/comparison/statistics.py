"""Paired changes by sequence: a test, an effect size, an interval, and the correction for many heads.

The unit is the sequence: tokens of one text depend on each other, and so do heads and layers. Rows are heads, columns
are sequences. Everything is computed for all rows at once; scipy's own `wilcoxon` and `bootstrap`, which give the same
numbers, are exact for no row as soon as one row has ties, and take ten times as long.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

RESAMPLES = 9999
EXACT = 128  # up to so many sequences the test's distribution is counted, beyond it is as good as normal
BLOCK = 512  # rows whose resampled means are held at once: 41 MB
DRAWN = 2**22  # draws held at once


def signed_rank(changes: Numbers) -> tuple[Numbers, Numbers]:
    """Rank-biserial correlation in [-1, 1] and two-sided p of the Wilcoxon signed-rank test, by row.

    Zeros are ranked with the rest and then left out of the sums (Pratt): a sequence that doesn't change has the lowest
    rank wherever the line between change and rounding is drawn, so that the line moves nobody else's rank. In the
    correlation they count for neither side: it is ±1 only if every sequence changes in one direction. Up to 128
    sequences p is exact, given ties and zeros: all signs are equally likely. A row of zeros has p = 1.
    `changes` is rows × sequences, without missing values.
    """
    from scipy.special import ndtr
    from scipy.stats import rankdata

    rows, number = changes.shape
    if not changes.size:
        return np.full(rows, np.nan), np.full(rows, np.nan)
    ranks = np.where(changes == 0, 0.0, rankdata(np.abs(changes), axis=1))
    rising = np.where(changes > 0, ranks, 0.0).sum(axis=1)
    total = ranks.sum(axis=1)
    effect = (2 * rising - total) / (number * (number + 1) / 2)
    least = np.minimum(rising, total - rising)
    if number <= EXACT:
        doubled = np.sort(np.rint(2 * ranks).astype(np.int64), axis=1)  # ranks of ties are halves
        lower = np.array([_lower_tails(row.tobytes())[round(2 * low)] for row, low in zip(doubled, least, strict=True)])
    else:
        deviation = np.sqrt((ranks**2).sum(axis=1)) / 2
        lower = ndtr(np.divide(least - total / 2, deviation, out=np.zeros(rows), where=deviation > 0))
    return effect, np.minimum(1.0, 2 * lower)


@lru_cache(maxsize=64)
def _lower_tails(ranks: bytes) -> Numbers:
    """P(sum ≤ s) for s = 0, 1, …, where each of some whole `ranks` (int64) is in the sum with probability one half."""
    weights = [int(rank) for rank in np.frombuffer(ranks, dtype=np.int64) if rank]
    chances = np.zeros(sum(weights) + 1)
    chances[0] = 1.0
    reached = 0
    for weight in weights:
        reached += weight
        chances[weight : reached + 1] += chances[: reached + 1 - weight].copy()
        chances[: reached + 1] /= 2
    return np.cumsum(chances)


def mean_interval(changes: Numbers, *, seed: int, confidence: float) -> tuple[Numbers, Numbers]:
    """The ends of each row's interval of the mean: bootstrap over columns, bias-corrected and accelerated (Efron 1987).

    All rows are resampled alike, from a generator of their own, so that a row's interval doesn't depend on the other
    rows. The same as `scipy.stats.bootstrap(method="BCa", n_resamples=9999, rng=seed)` for each row. A row of equal
    values has an interval of no width; a single column has none (NaN).
    """
    rows, number = changes.shape
    low, high = np.full(rows, np.nan), np.full(rows, np.nan)
    if number < 2:
        return low, high
    for start in range(0, rows, BLOCK):
        block = slice(start, start + BLOCK)
        low[block], high[block] = _bca(changes[block], _resampled(changes[block], seed), confidence)
    return low, high


def _resampled(changes: Numbers, seed: int) -> Numbers:
    """Means of the rows over resampled columns, rows × resamples: a product with how often each column was drawn."""
    number = changes.shape[1]
    generator = np.random.default_rng(seed)
    step = max(1, DRAWN // number)
    parts = []
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        drawn = generator.integers(0, number, (size, number)) + number * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * number).reshape(size, number)
        parts.append(changes @ times.T.astype(np.float64))
    means: Numbers = np.concatenate(parts, axis=1) / number
    return means


def _bca(changes: Numbers, means: Numbers, confidence: float) -> tuple[Numbers, Numbers]:
    from scipy.special import ndtr, ndtri

    number = changes.shape[1]
    mean = changes.mean(axis=1, keepdims=True)
    near = 1e-12 * np.abs(changes).max(axis=1, keepdims=True)  # the same mean but for the order of summing
    below, equal = (means < mean - near).mean(axis=1), (np.abs(means - mean) <= near).mean(axis=1)
    bias = ndtri(np.clip(below + equal / 2, 0.5 / RESAMPLES, 1 - 0.5 / RESAMPLES))
    jackknife = (changes - mean) / (number - 1)  # mean of the jackknife's means less each of them
    squares = (jackknife**2).sum(axis=1)
    skew = np.divide((jackknife**3).sum(axis=1), 6 * squares**1.5, out=np.zeros(len(bias)), where=squares > 0)
    means.sort(axis=1)
    ends = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + ndtri(tail)
        ends.append(_quantiles(means, ndtr(bias + z / np.maximum(1 - skew * z, 1e-9))))
    same = (changes == changes[:, :1]).all(axis=1)
    return np.where(same, changes[:, 0], ends[0]), np.where(same, changes[:, 0], ends[1])


def _quantiles(ordered: Numbers, shares: Numbers) -> Numbers:
    """A quantile of each row, of rows in order, between neighbours linearly."""
    place = shares * (ordered.shape[1] - 1)
    left = np.minimum(place.astype(np.int64), ordered.shape[1] - 2)
    row = np.arange(len(ordered))
    values: Numbers = ordered[row, left] + (place - left) * (ordered[row, left + 1] - ordered[row, left])
    return values


def discoveries(p: Numbers) -> Numbers:
    """`p` adjusted for their number (Benjamini and Hochberg 1995); missing ones are no part of the family."""
    from scipy.stats import false_discovery_control

    q: Any = np.full_like(p, np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known])
    return np.asarray(q, dtype=np.float64)


def least_sequences(heads: int, level: float = 0.05) -> int:
    """How many sequences it takes until a single head of `heads` can be significant after the correction.

    The smallest p of n sequences is 2/2ⁿ, and the correction asks a single head for level/heads.
    """
    return int(np.ceil(np.log2(2 * max(1, heads) / level)))
