"""The compiled loops over a tile's rows, as functions of tensors; None where torch must do the work.

What a loop is given lies in one piece: numba compiles it anew for every other layout.
"""

from __future__ import annotations

from functools import cache, cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from headprobe import devices

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.metrics.places import Kinds
    from headprobe.metrics.shared import Rows
    from headprobe.tile import AttentionTile


class Kernels(NamedTuple):
    """The modules of compiled loops."""

    rows: ModuleType
    products: ModuleType
    grams: ModuleType
    places: ModuleType


@cache
def kernels() -> Kernels | None:
    """The compiled loops, None where numba is absent, doesn't fit the numpy at hand or is switched off."""
    try:
        from numba import config

        from headprobe.metrics import gram_kernels, place_kernels, product_kernels
        from headprobe.metrics import kernels as row_kernels
    except ImportError:
        return None
    return (
        None
        if getattr(config, "DISABLE_JIT", False)
        else Kernels(row_kernels, product_kernels, gram_kernels, place_kernels)
    )


SIDE = 128  # rows of a block of M1's Gram


class RowBlock(NamedTuple):
    """Rows `first` to `last` of a tile, and the keys from `low` to `high` that bound what they see."""

    first: int
    last: int
    low: int
    high: int


class Loops:
    """The loops over one tile. Sums are float64, by sequence of the batch; statistics of rows are float32."""

    def __init__(self, compiled: Kernels, rows: Rows) -> None:
        import numpy as np
        import torch

        self._loops, self._products, self._grams, self._places = compiled
        self._tile = tile = rows.tile
        self.rows = rows
        batch, heads, _, keys = tile.probs.shape
        seen = tile.key_mask[:, None, :] if tile.structure is None else tile.support
        seen = seen if seen.stride(-1) == 1 else seen.contiguous()  # a mask of [position, sequence] that was turned
        self._block = self._loops.Rows(
            probs=_flat(tile.probs),
            strides=tile.probs.stride()[:3],
            seen=_flat(seen),
            seen_strides=(seen.stride(0), seen.stride(1) if seen.shape[1] > 1 else 0),
            rows=rows.at.numpy(),
            spans=np.empty((len(rows.at), 2), np.int64),
            heads=heads,
            keys=keys,
        )
        self._shape = (batch, heads, heads)
        self.stats = torch.empty(len(rows.at), heads, 5)  # [row, head, (entropy, peak, total, leak, nonzero)]
        self._loops.row_stats(self._block, self.stats.numpy())

    @cached_property
    def _compared(self) -> Any:
        """The block with the comparable rows alone."""
        keep = self.rows.comparable.numpy()
        return self._block._replace(rows=self._block.rows[keep], spans=self._block.spans[keep])

    def _sums(self, count: int = 1) -> Tensor:
        import torch

        return torch.zeros(count, *self._shape, dtype=torch.float64)

    def places(self, kinds: Kinds, columns: Tensor) -> tuple[Tensor, Tensor]:
        """[row, head, (special, delimiter, near, far, segment, distance)]: masses, and the mean distance in tokens.

        And [row, head, column]: the weight of each of the row's keys `columns` [row, column].
        """
        import torch

        positions = self._tile.key_positions.float()
        special, delimiter = (positions * 0 if mask is None else mask.float() for mask in kinds.masks)
        segments = positions * 0 - 1 if kinds.segments is None else kinds.segments.float()
        parts = (part.contiguous().numpy() for part in (positions, segments, special, delimiter))
        keys = self._places.Keys(*parts, float(kinds.near), float(kinds.far))
        sums = torch.empty(*self.stats.shape[:2], 6)
        weights = torch.empty(*self.stats.shape[:2], columns.shape[1])
        at, own = self.rows.position.float().numpy(), kinds.own.float().numpy()
        self._places.places(self._block, keys, at, own, columns.numpy(), sums.numpy(), weights.numpy())
        return sums, weights

    def jensen_shannon(self) -> Tensor:
        """[sequence, head, head]: sums of JS over comparable rows."""
        sums = self._sums()[0]
        self._loops.jensen_shannon(self._compared, sums.numpy())
        return 0.5 * (sums + sums.mT)

    def kullback_leibler(self, smoothing: float) -> tuple[Tensor, Tensor]:
        """[sequence, head, head] each: sums of smoothed KL over comparable rows, and how many were infinite."""
        rows, compared = self.rows, self._compared
        sums, infinite = self._sums(2)
        self._loops.kullback_leibler(compared, rows.size[rows.comparable].numpy(), smoothing, sums.numpy())
        if bool((self.stats[..., 4] < rows.size[:, None]).any()):  # zeros inside the support are rare
            self._loops.infinite(compared, infinite.numpy())
        return sums, infinite

    def bhattacharyya(self) -> Tensor:
        """[sequence, head, head]: sums of Σ √(pq) over comparable rows."""
        sums = self._sums()[0]
        self._products.bhattacharyya(self._compared, sums.numpy())
        return _mirrored(sums)

    def overlaps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of cosines and of their squares over comparable rows, and [row, head]: Σ over heads of (G - I)²."""
        import torch

        cosines, squares = self._sums(2)
        shares = torch.zeros(self.stats.shape[:2])
        compared = self.rows.comparable.numpy()
        self._products.overlaps(self._block, compared, cosines.numpy(), squares.numpy(), shares.numpy())
        return _mirrored(cosines), _mirrored(squares), shares

    def span(self) -> tuple[int, int]:
        """The first key that any row gives mass to, and one after the last."""
        spans = self._block.spans
        return (int(spans[:, 0].min()), int(spans[:, 1].max())) if len(spans) else (0, 0)

    def gram_sums(self) -> tuple[Tensor, Tensor]:
        """[sequence, head, (G², cos², (1 - Gᵢᵢ)²)] of G = AAᵀ over a sequence's rows: the first two off its diagonal.

        And [sequence, head, row] 1 / Gᵢᵢ, 0 for rows that do not count. The upper blocks of G are enough, in one small
        buffer, each over the keys that both its rows can see.
        """
        import torch

        batch, heads, queries, _ = self._tile.probs.shape
        sums = torch.zeros(batch, heads, 3, dtype=torch.float64)
        buffer = torch.empty(heads * min(queries, SIDE) ** 2)
        inverses = torch.zeros(batch, heads, queries)
        for b in range(batch):
            blocks = self._row_blocks(b)
            for j, columns in enumerate(blocks):
                for rows in (columns, *blocks[:j]):  # the diagonal first: the blocks above it need its norms
                    self._add_block(b, rows, columns, buffer, inverses[b].numpy(), sums[b].numpy())
        return sums, inverses.clamp_(min=0)

    def _row_blocks(self, b: int) -> list[RowBlock]:
        """A sequence's rows from the first that counts to the last, and the keys that matter to each block."""
        where = slice(*self._block.rows[:, 0].searchsorted((b, b + 1)))
        at, spans = self._block.rows[where, 1], self._block.spans[where]
        if not len(at):
            return []
        edges = range(int(at[0]), int(at[-1]) + 1, SIDE)
        blocks = []
        for first in edges:
            inside = slice(*at.searchsorted((first, first + SIDE)))
            low = int(spans[inside, 0].min(initial=self._block.keys))
            high = int(spans[inside, 1].max(initial=0))
            blocks.append(RowBlock(first, min(first + SIDE, int(at[-1]) + 1), low, high))
        return blocks

    def _add_block(self, b: int, rows: RowBlock, columns: RowBlock, buffer: Tensor, inverses: Any, sums: Any) -> None:
        import torch

        keys = slice(max(rows.low, columns.low), max(rows.low, columns.low, min(rows.high, columns.high)))
        one, other = (self._tile.probs[b, :, part.first : part.last, keys] for part in (rows, columns))
        gram = buffer[: len(one) * one.shape[1] * other.shape[1]].view(len(one), one.shape[1], other.shape[1])
        torch.bmm(one, other.mT, out=gram)
        if rows is columns:
            valid = self._tile.query_mask[b].contiguous().numpy()
            self._grams.gram_diagonal(gram.numpy(), rows.first, valid, inverses, sums)
        elif keys.start < keys.stop:
            self._grams.gram_block(gram.numpy(), rows.first, columns.first, inverses, sums)


def loops(tile: AttentionTile) -> Loops | None:
    """The compiled loops for a tile, where they apply: float32 on the CPU, keys side by side, no gradients to keep."""
    import torch

    from headprobe.metrics.shared import valid_rows

    probs = tile.probs
    if not devices.at_hand(probs) or probs.dtype != torch.float32 or probs.requires_grad or not probs.numel():
        return None
    compiled = kernels() if probs.stride(-1) == 1 else None
    return None if compiled is None else Loops(compiled, tile.once(valid_rows))


def _mirrored(sums: Tensor) -> Tensor:
    """A symmetric matrix [..., head, head] of which the upper half is known."""
    return sums + sums.mT - sums.diagonal(dim1=-2, dim2=-1).diag_embed()


def _flat(tensor: Tensor) -> Any:
    """A tensor's memory as a flat array, from its first element to its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((last + 1,), (1,)).numpy()
