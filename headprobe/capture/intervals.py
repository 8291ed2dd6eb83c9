"""Masks under which each query sees keys that follow each other: two numbers a query say all of them.

Full, causal, sliding and chunked masks are such. Of a long text that is what can be held: the mask itself is made again
for every question that is asked of it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Intervals:
    """[row or 1, query] int64 each: the first key that a query sees, and one after the last; equal if it sees none."""

    low: Tensor
    high: Tensor
    keys: int

    @classmethod
    def of(cls, blocks: Iterable[tuple[slice, Tensor]], shape: tuple[int, int, int]) -> "Intervals | None":
        """From some rows of a mask after the others, [row or 1, query, key] bool; None where a query skips a key."""
        rows, queries, keys = shape
        low, high = torch.zeros(2, rows, queries, dtype=torch.long).unbind()  # no room in the heap between blocks
        for at, block in blocks:
            begins = (block[..., 1:] > block[..., :-1]).sum(-1, dtype=torch.int32) + block[..., 0]
            if bool((begins > 1).any()):
                return None
            low[:, at] = block.byte().argmax(-1)
            high[:, at] = low[:, at] + block.sum(-1, dtype=torch.int32)
        return cls(low, high, keys)

    @cached_property
    def size(self) -> Tensor:
        """[row or 1, query]: how many keys a query sees."""
        return self.high - self.low

    def rows(self, first: int, last: int, keys: slice) -> Tensor:
        """[row or 1, query, key] bool: the mask, of the queries from `first` to `last` and some keys."""
        at = torch.arange(keys.start, keys.stop, dtype=torch.int32)
        low, high = (ends[:, first:last, None].int() for ends in (self.low, self.high))
        return (at >= low) & (at < high)

    @cached_property
    def seen_keys(self) -> Tensor:
        """[row or 1, key] bool: the keys that any query sees."""
        steps = torch.zeros(len(self.low), self.keys + 1, dtype=torch.long)
        one = torch.ones_like(self.low)
        steps.scatter_add_(1, self.low, one).scatter_add_(1, self.high, -one)
        return steps[:, : self.keys].cumsum(1) > 0

    def hides(self, query_mask: Tensor, key_mask: Tensor) -> bool:
        """True if it hides a key from a query of the masks [row, query] and [row, key] bool."""
        low, high, query_mask, key_mask = self._with(query_mask, key_mask)
        before = _before(key_mask)
        seen = before.gather(1, high) - before.gather(1, low)
        return bool((query_mask & (seen < before[:, -1:])).any())

    def reach(self, first: int, last: int) -> int | None:
        """One more than the last key that any query from `first` to `last` sees; None if one of them sees nothing."""
        if bool((self.size[:, first:last] == 0).any()):
            return None
        return int(self.high[:, first:last].max())

    def rows_within(self, first: int, places: int) -> int:
        """How many queries from `first` on, with all keys up to the last that any of them sees, are so many places.

        A query that sees nothing spreads its attention over all keys.
        """
        reach = self.high.where(self.size > 0, self.keys)[:, first:].amax(0).cummax(0).values
        return int((reach * torch.arange(1, len(reach) + 1) <= places).sum())

    def is_one_directional(self, valid: Tensor) -> bool | None:
        """As `Structure.one_directional`, where a look at the ends of what each query sees is enough to tell."""
        low, high, valid, _ = self._with(valid, valid)
        count = valid.shape[1]
        before, place = _before(valid), torch.arange(count)
        later = before.gather(1, high) - before.gather(1, high.minimum((place + 1).maximum(low)))
        followed = before[:, -1:] - before[:, 1:] > 0
        if not bool((valid & followed & (later == 0)).any()):
            return False
        sees = valid & (before.gather(1, high) > before.gather(1, low))
        following = place.where(valid, count).flip(1).cummin(1).values.flip(1)  # the next valid one, itself included
        first = following.gather(1, low.clamp(max=count - 1)).clamp(max=count - 1)
        unseen = (place < low.gather(1, first)) | (place >= high.gather(1, first))
        return True if bool((sees & unseen).any()) else None

    def _with(self, query_mask: Tensor, key_mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Its ends and the masks, each with as many rows as any has: one row holds for all."""
        rows, queries = max(len(self.low), len(query_mask), len(key_mask)), query_mask.shape[1]
        ends = self.low.expand(rows, queries), self.high.expand(rows, queries)
        return *ends, query_mask.expand(rows, -1), key_mask.expand(rows, -1)


def _before(mask: Tensor) -> Tensor:
    """[row, key + 1]: how many of a mask's keys come before each, and of all."""
    return torch.nn.functional.pad(mask.long().cumsum(-1), (1, 0))
