"""What several metrics need of a tile, each computed once and only if asked for: `tile.once(valid_rows)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Values
from headprobe.metrics.totals import PairSums, PerSequence

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile

TINY = 1e-38  # added before a logarithm: below any probability that matters, above float32's zero


@dataclass(frozen=True, eq=False)
class Rows:
    """The tile's valid query rows, the heads of one query side by side.

    `probs` [row, head, key]; `support` [row, key] bool; `size` [row], the number of visible keys; `position` [row],
    the query's position; `owner` [row], the index of its sequence in the batch of `batch` sequences `numbers`.
    """

    probs: Tensor
    support: Tensor
    size: Tensor
    position: Tensor
    owner: Tensor
    numbers: tuple[int, ...]

    @property
    def comparable(self) -> Tensor:
        """[row] bool: queries that see at least two keys. With one, every head has the same forced row."""
        return self.size >= 2

    def by_sequence(self, values: Tensor) -> Tensor:
        """Sums [sequence, ...] of `values` [row, ...] over the rows of each sequence, in float64."""
        import torch

        sums = torch.zeros(len(self.numbers), *values.shape[1:], dtype=torch.float64, device=values.device)
        return sums.index_add_(0, self.owner, values.double())

    def means(self, columns: list[tuple[Tensor, Tensor]]) -> PerSequence:
        """A total of per-query columns: each a value [row, head] and the rows [row] bool that it is defined for."""
        import torch

        sums = torch.stack([value * where[:, None] for value, where in columns], -1)
        counts = torch.stack([where for _, where in columns], -1)
        return PerSequence.of(self.numbers, self.by_sequence(sums), self.by_sequence(counts)[:, None, :])

    def pairs(self, columns: list[Tensor]) -> PairSums:
        """A total of sums over comparable queries [sequence, head, head]; the first also by sequence and head."""
        import torch

        sums = torch.stack(columns, 1)
        heads = sums.shape[-1]
        count = self.by_sequence(self.comparable)
        others = sums[:, 0].sum(-1) - sums[:, 0].diagonal(dim1=-2, dim2=-1)
        counts = (count * float(heads > 1))[:, None, None]
        return PairSums(
            sums.sum(0), count.sum(), PerSequence.of(self.numbers, others[..., None] / max(heads - 1, 1), counts)
        )


def valid_rows(tile: AttentionTile) -> Rows:
    """The rows that count, copied into the order in which heads are compared."""
    import torch

    batch, queries = tile.query_mask.shape
    owner = torch.arange(batch, device=tile.probs.device)[:, None].expand(batch, queries)
    mask = tile.query_mask
    padded = not bool(mask.all())

    def valid(values: Tensor) -> Tensor:
        return values[mask] if padded else values.flatten(0, 1)  # which is four times as fast

    return Rows(
        probs=valid(tile.probs.transpose(1, 2)),
        support=valid(tile.support),
        size=valid(tile.support_size),
        position=valid(tile.query_positions),
        owner=valid(owner),
        numbers=tile.sequences,
    )


def floored(tile: AttentionTile) -> Tensor:
    """[row, head, key]: the probabilities, never quite zero, to take logarithms of."""
    return tile.once(valid_rows).probs + TINY


def row_entropy(tile: AttentionTile) -> Tensor:
    """[row, head]: H = -sum of p ln p, in nats, with 0 ln 0 = 0."""
    probs = tile.once(floored)
    return -probs.log().mul_(probs).sum(-1)


def nonzeros(tile: AttentionTile) -> Tensor:
    """[row, head]: how many keys of a row have any mass."""
    return tile.once(valid_rows).probs.sign().sum(-1)


def head_gram(tile: AttentionTile) -> Tensor:
    """[row, head, head]: dot products of the heads' rows of the same query."""
    probs = tile.once(valid_rows).probs
    return probs @ probs.mT


def head_values(columns: tuple[Column, ...], total: PerSequence) -> Values:
    """The values of a metric whose total has its head columns in their order."""
    mean, means = total.mean(), total.means()
    return Values(
        heads={column.name: mean[:, i] for i, column in enumerate(columns)},
        sequences={column.name: means[..., i] for i, column in enumerate(columns) if column.paired},
        numbers=total.numbers,
    )


def mean_of_pairs(matrix: Tensor) -> Tensor:
    """Mean of a [head, head] matrix off its diagonal; NaN for a single head."""
    heads = matrix.shape[0]
    return (matrix.sum() - matrix.diagonal().sum()) / (heads * (heads - 1) if heads > 1 else float("nan"))
