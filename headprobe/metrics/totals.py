"""Totals that add: whatever a metric keeps, cutting, batching and merging can't change it.

All sums are float64 and stay on the device of the tiles they came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PerSequence:
    """Sums over queries, by sequence: `sums` [sequence, head, column], `counts` [sequence, 1 or head, column].

    `numbers` [sequence] are the sequences' numbers, ascending. A sequence that comes in several tiles is one row.
    """

    numbers: Tensor
    sums: Tensor
    counts: Tensor

    def __add__(self, other: PerSequence) -> PerSequence:
        import torch

        if torch.equal(self.numbers, other.numbers):  # the next tile of the same batch
            return PerSequence(self.numbers, self.sums + other.sums, self.counts + other.counts)
        numbers, where = torch.cat([self.numbers, other.numbers]).unique(return_inverse=True)
        sums, counts = (
            torch.zeros(len(numbers), *mine.shape[1:], dtype=mine.dtype, device=mine.device).index_add_(
                0, where, torch.cat([mine, theirs])
            )
            for mine, theirs in ((self.sums, other.sums), (self.counts, other.counts))
        )
        return PerSequence(numbers, sums, counts)

    def mean(self) -> Tensor:
        """[head, column]: over all queries of all sequences, NaN where there was none."""
        return _ratio(self.sums.sum(0), self.counts.sum(0))

    def means(self) -> Tensor:
        """[sequence, head, column]: over the queries of each sequence, NaN where it has none."""
        return _ratio(self.sums, self.counts)


def _ratio(sums: Tensor, counts: Tensor) -> Tensor:
    counts = counts.expand_as(sums)
    return (sums / counts.clamp(min=1)).masked_fill(counts == 0, float("nan"))


@dataclass(frozen=True)
class PairSums:
    """Sums over queries for each pair of heads: `sums` [column, head, head] and the number of queries `count`.

    `rows` keeps the mean over the other heads, for each sequence and head.
    """

    sums: Tensor
    count: Tensor
    rows: PerSequence

    def __add__(self, other: PairSums) -> PairSums:
        return PairSums(self.sums + other.sums, self.count + other.count, self.rows + other.rows)

    def mean(self) -> Tensor:
        """[column, head, head]: over all queries that count, NaN where there was none."""
        return _ratio(self.sums, self.count)


@dataclass(frozen=True)
class Worst:
    """The largest value seen, for each head and column: `values` [head, column]."""

    values: Tensor

    def __add__(self, other: Worst) -> Worst:
        import torch

        return Worst(torch.maximum(self.values, other.values))  # a NaN stays: maximum propagates it
