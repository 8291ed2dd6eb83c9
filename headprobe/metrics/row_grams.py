"""G = AAᵀ over the rows of a sequence, in blocks: sums of its entries' squares, of which no more than a block is held.

Rows that no tile holds any more are computed again. The diagonal is taken out before squaring, so nothing cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headprobe.budget import rows_together
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
    step = tile.queries if tile.whole else rows_together(tile.queries, tile.step)
    blocks: list[tuple[Block, Tensor]] = []
    total: Tensor | None = None
    for first in range(0, tile.queries, step):
        sums, inverse, block = _with_earlier(tile, first, min(first + step, tile.queries), blocks, visit)
        total = sums if total is None else total + sums
        blocks.append((block, inverse))
    assert total is not None  # a site has rows
    return total


def _with_earlier(
    tile: AttentionTile,
    first: int,
    last: int,
    earlier: list[tuple[Block, Tensor]],
    visit: Callable[[AttentionTile], None],
) -> tuple[Tensor, Tensor, Block]:
    """The sums over some rows' products with each other and with those of earlier blocks; 1 / Gᵢᵢ; where they look."""
    rows = tile if tile.whole else tile.part(first, last)
    visit(rows)
    sums, inverse = _within(rows)
    mine = _block(rows)
    for block, other_inverse in earlier:
        if mine.meets(block):
            for few, others in _few(tile, block):
                sums += _between(rows, inverse, others, other_inverse[..., few])
    return sums, inverse, mine


def _few(tile: AttentionTile, block: Block) -> Iterator[tuple[slice, AttentionTile]]:
    """The rows of a block, counted from its first, computed again: so few at a time that they stay in the cache."""
    count = block.last - block.first
    step = max(1, tile.few * tile.probs.shape[3] // max(1, block.high))
    for first in range(0, count, step):
        rows = slice(first, min(first + step, count))
        yield rows, tile.part(block.first + rows.start, block.first + rows.stop)


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
