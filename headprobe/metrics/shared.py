"""What several metrics need of a tile, each computed once and only if asked for: `tile.once(valid_rows)`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from headprobe import devices
from headprobe.metrics.contract import Column, Values
from headprobe.metrics.fused import loops
from headprobe.metrics.totals import MOST, PairSums, PerSequence

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile

TINY = 1e-37  # added before a logarithm: below any probability that matters, above float32's denormals


@dataclass(frozen=True, eq=False)
class Rows:
    """The tile's valid query rows.

    `at` [row, 2] is where a row stands: sequence of the batch, row of the tile. `size` [row] is the number of visible
    keys; `position` [row] the query's position; `numbers` are those of the batch's sequences. `probs` [row, head, key],
    the heads of one query side by side, and `support` [row, key] are copies, made when they are first asked for.

    On an accelerator, where to pick rows is to wait, all of the tile's rows are here: those of padding have the size
    -1, so that no condition on sizes holds for them, zeros for probabilities, and no part in sums.
    """

    tile: AttentionTile
    at: Tensor
    size: Tensor
    position: Tensor
    numbers: tuple[int, ...]
    picked: bool = True

    @property
    def owner(self) -> Tensor:
        """[row]: the index of its sequence in the batch."""
        return self.at[:, 0]

    @cached_property
    def probs(self) -> Tensor:
        """[row, head, key], contiguous."""
        return self._valid((self.tile.probs if self.picked else self.tile.rows).transpose(1, 2))

    @cached_property
    def support(self) -> Tensor:
        """[row, key] bool: the keys that a row may see."""
        return self._valid(self.tile.support)

    def _valid(self, values: Tensor) -> Tensor:
        if len(self.at) == values.shape[0] * values.shape[1]:
            return values.flatten(0, 1)  # which is four times as fast
        return values[self.at[:, 0], self.at[:, 1]]

    def values(self, values: Tensor) -> Tensor:
        """[row, ...] of what the tile has as [batch, query, ...]: zeros for rows of padding that were not left out."""
        return self.kept(self._valid(values))

    def weighted(self, weights: Tensor) -> Tensor:
        """[row, head]: Σ over keys of the probabilities times `weights` [row, key]."""
        weights = weights.to(self.probs.dtype)[..., None]
        return self.probs.matmul(weights).squeeze(-1)

    @property
    def comparable(self) -> Tensor:
        """[row] bool: queries that see at least two keys. With one, every head has the same forced row."""
        return self.size >= 2

    def kept(self, values: Tensor) -> Tensor:
        """`values` [row, ...] with zeros, and nothing that is no number, for rows of padding."""
        if self.picked or self.tile.known.full:
            return values
        return values.masked_fill((self.size < 0).view(-1, *[1] * (values.dim() - 1)), 0)

    def by_sequence(self, values: Tensor) -> Tensor:
        """Sums [sequence, ...] of `values` [row, ...] over the rows of each sequence, in float64."""
        import torch

        if not self.picked:
            shape = len(self.numbers), self.tile.probs.shape[2]
            by_row: Tensor = self.kept(values).unflatten(0, shape)
            return by_row.sum(1, dtype=torch.float64)
        sums = torch.zeros(len(self.numbers), *values.shape[1:], dtype=torch.float64, device=values.device)
        return sums.index_add_(0, self.owner, values.double())

    def means(self, columns: list[tuple[Tensor, Tensor]]) -> PerSequence:
        """A total of per-query columns: each a value [row, head] and the rows [row] bool that it is defined for."""
        import torch

        if self.picked:
            sums = torch.stack([value * where[:, None] for value, where in columns], -1)
        else:
            zero = columns[0][0].new_zeros(())
            sums = torch.stack([torch.where(where[:, None], value, zero) for value, where in columns], -1)
        counts = torch.stack([where for _, where in columns], -1)
        return PerSequence.of(self.numbers, self.by_sequence(sums), self.by_sequence(counts)[:, None, :])

    def pairs(self, columns: list[Tensor], *, keep: bool = False) -> PairSums:
        """A total of sums over comparable queries [sequence, head, head]; the first also by sequence and head.

        With `keep` the first is kept by sequence and pair too.
        """
        import torch

        sums = torch.stack(columns, 1)
        heads = sums.shape[-1]
        count = self.by_sequence(self.comparable)
        others = sums[:, 0].sum(-1) - sums[:, 0].diagonal(dim1=-2, dim2=-1)
        counts = (count * float(heads > 1))[:, None, None]
        means = PerSequence.of(self.numbers, others[..., None] / max(heads - 1, 1), counts)
        kept = PerSequence.of(self.numbers, sums[:, 0], count[:, None, None]).within(MOST) if keep else None
        return PairSums(sums.sum(0), count.sum(), means, kept)


def valid_rows(tile: AttentionTile) -> Rows:
    """The rows that count."""
    tile = replace(tile)  # a twin, which does not hold these rows: no cycle keeps the probabilities alive
    if not devices.at_hand(tile.probs):
        return _all_rows(tile)
    at = tile.query_mask.nonzero()
    index = at.unbind(-1)
    return Rows(tile, at, tile.support_size[index], tile.query_positions[index], tile.sequences)


def _all_rows(tile: AttentionTile) -> Rows:
    import torch

    batch, _, queries, _ = tile.probs.shape
    at = torch.arange(batch * queries, device=tile.probs.device)
    at = torch.stack([at // max(1, queries), at % max(1, queries)], -1)
    size = tile.support_size.masked_fill(~tile.query_mask, -1)
    return Rows(tile, at, size.flatten(), tile.query_positions.flatten(), tile.sequences, picked=False)


@dataclass(frozen=True, eq=False)
class RowStats:
    """Of each row and head, [row, head]: what its keys say one by one.

    `entropy` H = -Σ p ln p in nats, with 0 ln 0 = 0; `peak` the largest weight; `total` the sum; `leak` the mass on
    keys outside the support; `nonzero` how many keys of the support have any mass.
    """

    entropy: Tensor
    peak: Tensor
    total: Tensor
    leak: Tensor
    nonzero: Tensor


def row_stats(tile: AttentionTile) -> RowStats:
    """The statistics of a tile's rows."""
    compiled = tile.once(loops)
    if compiled is not None:
        return RowStats(*compiled.stats.unbind(-1))
    rows = tile.once(valid_rows)
    probs, leak = rows.probs, _leak(rows)
    nonzero = ((probs > 0) & rows.support[:, None]).sum(-1)
    floor = tile.once(floored)
    return RowStats(-floor.log().mul_(floor).sum(-1), probs.amax(-1), probs.sum(-1), leak, nonzero)


def _leak(rows: Rows) -> Tensor:
    """[row, head]: mass on keys that a row may not see."""
    tile, hidden = rows.tile, ~rows.support
    none = bool(hidden.any()) is False if rows.picked else tile.known.full and tile.structure is None
    return rows.probs.new_zeros(rows.probs.shape[:2]) if none else rows.weighted(hidden)


def floored(tile: AttentionTile) -> Tensor:
    """[row, head, key]: the probabilities, never quite zero, to take logarithms of."""
    return tile.once(valid_rows).probs + TINY


def head_overlaps(tile: AttentionTile) -> tuple[Tensor, Tensor, Tensor]:
    """From G [row, head, head], the dot products of the heads' rows of a query.

    Sums over comparable rows of the cosines and of their squares, [sequence, head, head] each, and the distance
    [row, head] from orthonormal rows: Σ over heads of (G - I)².
    """
    import torch

    compiled = tile.once(loops)
    if compiled is not None:
        return compiled.overlaps()
    rows = tile.once(valid_rows)
    gram = rows.probs @ rows.probs.mT
    inverse = gram.diagonal(dim1=-2, dim2=-1).rsqrt()  # a row's norm is at least 1/s > 0
    cosine = gram * inverse[..., :, None] * inverse[..., None, :] * rows.comparable[:, None, None]
    distance = gram - torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return rows.by_sequence(cosine), rows.by_sequence(cosine.square()), distance.square().sum(-1)


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
