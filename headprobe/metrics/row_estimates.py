"""The sums of `row_grams` estimated, for sequences whose Gram costs too much: each with its standard error.

Two unbiased estimators that fail on opposite inputs, in two passes over the rows; of each sum the one with the smaller
error is kept.

* Hutchinson: ‖M‖_F² is the mean of ‖Mz‖² over random signs z; M = AAᵀ - I is never formed, since Mz = A(Aᵀz) - z.
* Rows: the mean of the squared products of some rows drawn at random, its error by jackknife. A few rows can all look
  alike by chance: what they can't have seen is counted as an error of 1 / rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headprobe import devices

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile

PROBES = 64
SAMPLE = 128
LEAST_PROBES, LEAST_SAMPLE = 8, 16


@dataclass(frozen=True)
class Estimate:
    """`sums` [sequence, head, (G², cos², (1 - Gᵢᵢ)²)], the last of them exact, and `errors` of the first two."""

    sums: Tensor
    errors: Tensor


def row_estimates(tile: AttentionTile, visit: Callable[[AttentionTile], None]) -> Estimate:
    """Over all rows of the tile's site; each of the tiles that hold them is shown once to `visit`.

    Draws depend on the number of the sequence alone. Where little fits a tile, fewer probes and rows are drawn.
    """
    import torch

    room = tile.queries if tile.whole else tile.step
    probes, sample = min(PROBES, max(LEAST_PROBES, room // 4)), min(SAMPLE, max(LEAST_SAMPLE, room // 2))
    sketch = Sketch(tile, probes)
    for part in parts(tile):
        visit(part)
        sketch.add(part)
    rows = DrawnRows(tile, sample, sketch.rows)
    for part in parts(tile):
        sketch.apply(part)
        rows.add(part)
    by_probes, by_rows = sketch.estimates(), rows.estimates()
    better = by_rows[..., 1] < by_probes[..., 1]
    chosen = torch.where(better[..., None], by_rows, by_probes)
    diagonal = sketch.diagonal[..., None]
    return Estimate(torch.cat([chosen[..., 0].clamp(min=0), diagonal], -1), chosen[..., 1])


def parts(tile: AttentionTile) -> Iterator[AttentionTile]:
    """Tiles of all rows of the tile's site."""
    if tile.whole:
        yield tile
        return
    for first in range(0, tile.queries, tile.step):
        yield tile.part(first, min(first + tile.step, tile.queries))


class Sketch:
    """Hutchinson's estimator: random signs through AAᵀ - I, for rows as they are and for rows of length one."""

    def __init__(self, tile: AttentionTile, probes: int) -> None:
        import torch

        batch, heads = tile.probs.shape[:2]
        # drawn where they always come out the same: on the CPU, by the sequence's number; for all positions, since
        # queries may stand after keys of a cache
        positions = max(tile.queries, tile.key_positions.shape[1])
        signs = [
            torch.randint(0, 2, (positions, probes), generator=torch.Generator().manual_seed(number)) * 2 - 1
            for number in tile.sequences
        ]
        self._signs = torch.stack(signs).to(tile.probs)
        self._sink = int(tile.site.sink)
        self._sums = tile.probs.new_zeros(2, batch, heads, self._sink, probes)  # [kind, sequence, head, key, probe]
        self._squares = tile.probs.new_zeros(2, batch, heads, probes, dtype=torch.float64)
        self.diagonal = tile.probs.new_zeros(batch, heads, dtype=torch.float64)
        self.rows = tile.query_mask.new_zeros(batch, dtype=torch.long)

    def _of(self, tile: AttentionTile) -> tuple[Tensor, Tensor]:
        """The signs [sequence, 1, row, probe] of a tile's rows, 0 for rows that don't count, and 1 / ‖row‖."""
        at = tile.query_positions.clamp(min=0)[..., None].expand(-1, -1, self._signs.shape[-1])
        signs = self._signs.gather(1, at) * tile.query_mask[..., None]
        square = tile.rows.square().sum(-1)
        return signs[:, None], square.clamp(min=1e-30).rsqrt() * tile.query_mask[:, None]

    def add(self, tile: AttentionTile) -> None:
        """The first pass over a tile's rows: Aᵀz."""
        import torch

        signs, inverse = self._of(tile)
        square = tile.rows.square().sum(-1)
        self.rows += tile.query_mask.sum(-1)
        self.diagonal += ((1 - square.double()).square() * tile.query_mask[:, None]).sum(-1)
        sums = torch.stack([tile.rows.mT @ signs, tile.rows.mT @ (signs * inverse[..., None])])
        self._sums = _joined(self._sums, sums, self._sink)

    def apply(self, tile: AttentionTile) -> None:
        """The second pass: ‖A(Aᵀz) - z‖²."""
        import torch

        signs, inverse = self._of(tile)
        keys, sink = tile.probs.shape[3] - self._sink, self._sink
        sums = torch.cat([self._sums[..., :keys, :], self._sums[..., self._sums.shape[-2] - sink :, :]], -2)
        plain, unit = tile.rows @ sums[0], (tile.rows @ sums[1]) * inverse[..., None]
        for i, product in enumerate((plain, unit)):
            self._squares[i] += (product - signs).double().square().sum(-2)

    def estimates(self) -> Tensor:
        """[sequence, head, (G², cos²), (estimate, standard error)]."""
        import torch

        probes = self._squares.shape[-1]
        mean, error = self._squares.mean(-1), self._squares.std(-1) / probes**0.5
        mean = torch.stack([mean[0] - self.diagonal, mean[1]])
        return torch.stack([mean, error], -1).permute(1, 2, 0, 3)


class DrawnRows:
    """The same sums from some rows of each sequence."""

    def __init__(self, tile: AttentionTile, sample: int, rows: Tensor) -> None:
        import torch

        batch, heads = tile.probs.shape[:2]
        self._sink = int(tile.site.sink)
        # the one look at a device, where it is not known that all rows count
        known = tile.known.full and not devices.at_hand(rows)
        self._rows: list[int] = [tile.queries] * batch if known else rows.tolist()
        self._counts = [min(sample, count) for count in self._rows]
        self._slots = torch.full((batch, tile.queries), -1, dtype=torch.long)
        for b, number in enumerate(tile.sequences):
            drawn = torch.randperm(self._rows[b], generator=torch.Generator().manual_seed(number + 2**32))
            self._slots[b, drawn[: self._counts[b]]] = torch.arange(self._counts[b])
        self._slots = self._slots.to(rows.device)
        self._seen = torch.zeros_like(rows)  # valid rows of the tiles so far
        self._drawn = tile.probs.new_zeros(batch, heads, sample, self._sink)

    def add(self, tile: AttentionTile) -> None:
        """Take the drawn rows of a tile."""
        import torch

        rank = tile.query_mask.cumsum(-1) - 1 + self._seen[:, None]  # among the rows that count
        self._seen = self._seen + tile.query_mask.sum(-1)
        slots = self._slots.gather(1, rank.clamp(min=0)).masked_fill(~tile.query_mask, -1)
        heads, sample, keys = *self._drawn.shape[1:3], tile.probs.shape[3]
        # of each slot the tile's row, -1 where it has none; what has no slot goes to one more at the end
        row = torch.arange(slots.shape[1], device=slots.device).expand_as(slots)
        at = torch.full((len(slots), sample + 1), -1, device=slots.device)
        at = at.scatter(1, slots.where(slots >= 0, sample), row)[:, None, :sample, None]
        rows = tile.probs.gather(2, at.clamp(min=0).expand(-1, heads, -1, keys)).masked_fill(at < 0, 0.0)
        self._drawn = _joined(self._drawn.mT, rows.mT, self._sink).mT

    def estimates(self) -> Tensor:
        """[sequence, head, (G², cos²), (estimate, standard error)]; an infinite error where too few rows count."""
        import torch

        found = [self._of(self._drawn[b, :, :count], self._rows[b]) for b, count in enumerate(self._counts)]
        return torch.stack(found)

    def _of(self, rows: Tensor, of: int) -> Tensor:
        import torch

        count = rows.shape[1]
        if count < 3:
            nothing = rows.new_zeros(len(rows), 2, dtype=torch.float64)
            return torch.stack([nothing, nothing + float("inf")], -1)
        gram = rows @ rows.mT
        inverse = gram.diagonal(dim1=-2, dim2=-1).clamp(min=1e-30).reciprocal()
        squares = gram.double().square()
        entries = torch.stack([squares, squares * inverse[..., :, None] * inverse[..., None, :]], 1)
        entries.diagonal(dim1=-2, dim2=-1).zero_()
        by_row, total = entries.sum(-1), entries.sum((-1, -2))
        without = (total[..., None] - 2 * by_row) / ((count - 1) * (count - 2))
        variance = (count - 1) * without.var(-1, correction=0) * (1 - count / of)
        error = (variance + (1 - count / of) / count**2).sqrt()
        pairs = of * (of - 1)
        return torch.stack([total / (count * (count - 1)) * pairs, error * pairs], -1)


def _joined(one: Tensor, other: Tensor, sink: int) -> Tensor:
    """The sum of two tensors [..., key, value] over the keys of either; a virtual key comes last in both."""
    import torch

    keys = max(one.shape[-2], other.shape[-2])
    if one.shape[-2] == other.shape[-2]:
        return one + other
    padded = []
    for each in (one, other):
        own = each.shape[-2] - sink
        room = (0, 0, 0, keys - sink - own)
        padded.append(torch.cat([torch.nn.functional.pad(each[..., :own, :], room), each[..., own:, :]], -2))
    return padded[0] + padded[1]
