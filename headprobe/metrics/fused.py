"""The compiled loops over a tile's rows, as functions of tensors; None where torch must do the work.

What a loop is given lies in one piece: numba compiles it anew for every other layout.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.metrics.shared import Rows
    from headprobe.tile import AttentionTile


@cache
def kernels() -> ModuleType | None:
    """The module of compiled loops, None where numba is absent, doesn't fit the numpy at hand or is switched off."""
    try:
        from numba import config

        from headprobe.metrics import kernels as compiled
    except ImportError:
        return None
    return None if getattr(config, "DISABLE_JIT", False) else compiled


SIDE = 128  # rows of a block of M1's Gram


class Loops:
    """The loops over one tile. Sums are float64, by sequence of the batch; statistics of rows are float32."""

    def __init__(self, compiled: ModuleType, tile: AttentionTile, rows: Rows) -> None:
        import numpy as np
        import torch

        self._loops, self._tile, self.rows = compiled, tile, rows
        batch, heads, _, keys = tile.probs.shape
        seen = tile.key_mask[:, None, :] if tile.structure is None else tile.support
        self._block = compiled.Rows(
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
        compiled.row_stats(self._block, self.stats.numpy())

    @property
    def _compared(self) -> Any:
        """The block with the comparable rows alone."""
        keep = self.rows.comparable.numpy()
        return self._block._replace(rows=self._block.rows[keep], spans=self._block.spans[keep])

    @property
    def ends(self) -> Any:
        """[row]: the key after the last that matters to any head."""
        return self._block.spans[:, 1]

    def _sums(self, count: int = 1) -> Tensor:
        import torch

        return torch.zeros(count, *self._shape, dtype=torch.float64)

    def places(self) -> Tensor:
        """[row, head, 2]: mass on special tokens, 0 if unknown, and mean distance."""
        import torch

        tile = self._tile
        positions = tile.key_positions.float().contiguous()
        special = torch.zeros_like(positions) if tile.special_keys is None else tile.special_keys.float().contiguous()
        sums = torch.empty(*self.stats.shape[:2], 2)
        at = self.rows.position.float()
        self._loops.places(self._block, positions.numpy(), at.numpy(), special.numpy(), sums.numpy())
        return sums

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
        self._loops.bhattacharyya(self._compared, sums.numpy())
        return sums + sums.mT - sums.diagonal(dim1=-2, dim2=-1).diag_embed()

    def overlaps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sums of cosines and of their squares over comparable rows, and [row, head]: Σ over heads of (G - I)²."""
        import torch

        cosines, squares = self._sums(2)
        shares = torch.zeros(self.stats.shape[:2])
        compared = self.rows.comparable.numpy()
        self._loops.overlaps(self._block, compared, cosines.numpy(), squares.numpy(), shares.numpy())
        return cosines, squares, shares


def loops(tile: AttentionTile) -> Loops | None:
    """The compiled loops for a tile, where they apply."""
    from headprobe.metrics.shared import valid_rows

    compiled = _applicable(tile)
    return None if compiled is None else Loops(compiled, tile, tile.once(valid_rows))


def _applicable(tile: AttentionTile) -> ModuleType | None:
    """Float32 on the CPU, keys side by side, and no gradients to keep."""
    import torch

    probs = tile.probs
    if probs.device.type != "cpu" or probs.dtype != torch.float32 or probs.requires_grad or not probs.numel():
        return None
    return kernels() if probs.stride(-1) == 1 else None


def gram_sums(tile: AttentionTile) -> Tensor | None:
    """[sequence, head, (G², cos², (1 - Gᵢᵢ)²)] of G = AAᵀ over a sequence's valid rows: the first two off its diagonal.

    The upper blocks of G are enough, in one small buffer, and of causal rows only the keys that the block can see.
    """
    import torch

    compiled = _applicable(tile)
    if compiled is None:
        return None
    batch, heads, queries, _ = tile.probs.shape
    sums = torch.zeros(batch, heads, 3, dtype=torch.float64)
    inverses = torch.empty(heads, queries).numpy()
    buffer = torch.empty(heads * min(queries, SIDE) ** 2)
    blocks = [slice(first, min(first + SIDE, queries)) for first in range(0, queries, SIDE)]
    reach = _reach(tile, len(blocks))
    for b in range(batch):
        valid, into = tile.query_mask[b].contiguous().numpy(), sums[b].numpy()
        for j, columns in enumerate(blocks):
            for i in [j, *range(j)]:  # the diagonal first: it gives the norms that the blocks above it need
                rows = blocks[i]
                one, other = (tile.probs[b, :, part, : reach[b][i]] for part in (rows, columns))
                gram = buffer[: heads * one.shape[1] * other.shape[1]].view(heads, one.shape[1], other.shape[1])
                torch.bmm(one, other.mT, out=gram)
                if i == j:
                    compiled.gram_diagonal(gram.numpy(), rows.start, valid, inverses, into)
                else:
                    compiled.gram_block(gram.numpy(), rows.start, columns.start, inverses, into)
    return sums


def _reach(tile: AttentionTile, blocks: int) -> list[list[int]]:
    """For each sequence and block of rows: the first keys, as many as any row of the block has mass on."""
    import numpy as np

    batch, _, _, keys = tile.probs.shape
    compiled = tile.once(loops)
    if tile.structure is None or blocks == 1 or compiled is None:
        return [[keys] * blocks] * batch
    ends = np.zeros((batch, blocks), np.int64)
    sequence, row = compiled.rows.at.numpy().T
    np.maximum.at(ends, (sequence, row // SIDE), compiled.ends)
    reached: list[list[int]] = ends.tolist()
    return reached


def _flat(tensor: Tensor) -> Any:
    """A tensor's memory as a flat array, from its first element to its last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.as_strided((last + 1,), (1,)).numpy()
