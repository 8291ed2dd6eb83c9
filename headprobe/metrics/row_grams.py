"""G = AAᵀ over the rows of a sequence, in blocks: sums of its entries' squares, of which no more than a block is held.

Rows that no tile holds any more are computed again. The diagonal is taken out before squaring, so nothing cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headprobe.metrics.fused import loops

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile


@dataclass(frozen=True)
class Block:
    """Query rows of a tile: the first, the last, the keys from `low` to `high` that any of them gives mass to."""

    first: int
    last: int
    low: int
    high: int

    def meets(self, other: Block) -> bool:
        """True if some key has mass from both."""
        return max(self.low, other.low) < min(self.high, other.high)


def row_grams(tile: AttentionTile, visit: Callable[[AttentionTile], None]) -> Tensor:
    """[sequence, head, (G², cos², (1 - Gᵢᵢ)²)] in float64: the first two over i ≠ j, of all rows of the tile's site.

    Each of the tiles that hold these rows is shown once to `visit`.
    """
    blocks: list[Block] = []
    inverses: list[Tensor] = []
    total: Tensor | None = None
    step = tile.queries if tile.whole else tile.step
    for first in range(0, tile.queries, step):
        part = tile if tile.whole else tile.part(first, min(first + step, tile.queries))
        visit(part)
        sums, inverse = _within(part)
        total = sums if total is None else total + sums
        block = _block(part)
        for earlier, other_inverse in zip(blocks, inverses, strict=True):
            if block.meets(earlier):
                total += _between(part, inverse, tile.part(earlier.first, earlier.last), other_inverse)
        blocks.append(block)
        inverses.append(inverse)
    assert total is not None  # a site has rows
    return total


def _block(tile: AttentionTile) -> Block:
    """Where a tile's rows look; all keys where that is not known."""
    low, high = 0, tile.probs.shape[3]
    compiled = tile.once(loops)
    if compiled is not None and not tile.site.sink:
        low, high = compiled.span()
    return Block(tile.start, tile.start + tile.probs.shape[2], low, high)


def _within(tile: AttentionTile) -> tuple[Tensor, Tensor]:
    """The sums over a tile's own rows, and [sequence, head, row] 1 / Gᵢᵢ, 0 for rows that do not count."""
    compiled = tile.once(loops)
    if compiled is not None:
        return compiled.gram_sums()
    import torch

    gram = tile.rows @ tile.rows.mT
    x = gram.diagonal(dim1=-2, dim2=-1).clone()
    diagonal = ((1 - x.double()).square() * tile.query_mask[:, None]).sum(-1)
    gram.diagonal(dim1=-2, dim2=-1).zero_()
    inverse = 1 / x.masked_fill(x == 0, float("inf"))  # which has a gradient there too
    plain, weighted = (gram.square_() @ torch.stack([torch.ones_like(x), inverse], -1)).double().unbind(-1)
    return torch.stack([plain.sum(-1), (weighted * inverse).sum(-1), diagonal], -1), inverse


def _between(one: AttentionTile, inverse: Tensor, other: AttentionTile, other_inverse: Tensor) -> Tensor:
    """The sums over pairs of a row of one tile and a row of another, each pair counted both ways."""
    import torch

    gram = _products(one, other).square_()
    weights = torch.stack([torch.ones_like(other_inverse), other_inverse], -1)
    plain, weighted = (gram @ weights).double().unbind(-1)
    cosines = (weighted * inverse).sum(-1)
    return 2 * torch.stack([plain.sum(-1), cosines, torch.zeros_like(cosines)], -1)


def _products(one: AttentionTile, other: AttentionTile) -> Tensor:
    """[sequence, head, row, other row]: dot products, over the keys that both tiles hold."""
    a, b = one.rows, other.rows
    if a.shape[3] == b.shape[3]:
        return a @ b.mT
    sink = int(one.site.sink)  # whose key comes last in each
    keys = min(a.shape[3], b.shape[3]) - sink
    products = a[..., :keys] @ b[..., :keys].mT
    return products + a[..., -1:] @ b[..., -1:].mT if sink else products
