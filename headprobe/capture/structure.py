"""What a mask shows, read some rows at a time: of a long text no mask is ever whole."""

from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from headprobe import devices
from headprobe.capture.intervals import Intervals
from headprobe.capture.lazy import LazyMask
from headprobe.masks import spans

HIDDEN = -9e3  # additive masks hide with -1e4, -1e9, finfo.min or -inf; no bias of a key that some head can see is less
BLOCK = 2**21  # places that are looked at at once: what is made of them stays in a CPU's cache


def visible(mask: Tensor) -> Tensor:
    """[batch or 1, query, key] bool from an additive or boolean mask [batch or 1, head or 1, query or 1, key].

    A key counts as visible if any head sees it: masks with an axis of heads carry biases, not other supports.
    """
    seen = mask if mask.dtype == torch.bool else mask > HIDDEN
    return seen.any(dim=1)


class Structure:
    """[row or 1, query or 1, key] bool, False where a call's own mask hides a key.

    Made of a tensor of that shape, or of a mask whose rows are computed when they are asked for. `of_one_call` says
    that it was read off a call's scores, and no other call shares it.
    """

    def __init__(self, seen: Tensor | LazyMask, *, of_one_call: bool = False) -> None:
        self._seen = seen
        self.of_one_call = of_one_call
        rows, queries, keys = (seen.shape[0], *seen.shape[-2:])
        self.shape = (rows, queries, keys)
        self.device = seen.device
        self.is_meta = seen.is_meta
        self._reach: dict[tuple[int, int], int | None] = {}
        self._cuts: dict[tuple[int, int, int, int], Structure] = {}

    def rows(self, first: int, last: int, reach: int | None = None) -> Tensor:
        """[row or 1, query or 1, key]: of the queries from `first` to `last`, over all keys or the first `reach`."""
        keys = slice(0, self.shape[2] if reach is None else reach)
        if isinstance(self._seen, LazyMask) and self._intervals is not None:
            return self._intervals.rows(first, last, keys)
        return self._read(first, last, keys)

    def _read(self, first: int, last: int, keys: slice) -> Tensor:
        """The same from what it is made of."""
        if isinstance(self._seen, LazyMask):
            return visible(self._seen.part(slice(first, last), keys))
        return (self._seen if self.shape[1] == 1 else self._seen[:, first:last])[..., keys]

    def columns(self, first: int, last: int) -> Tensor:
        """[row or 1, query or 1, key]: of the keys from `first` to `last`."""
        if isinstance(self._seen, LazyMask):
            return visible(self._seen.part(slice(0, self.shape[1]), slice(first, last)))
        return self._seen[..., first:last]

    def blocks(self, queries: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """All rows, so many at a time that what is made of them stays small.

        Of so many `queries`, where it is one row that holds for all.
        """
        for part in self._steps(self.shape[1] if queries is None else queries):
            yield part, self.rows(part.start, part.stop)

    def _steps(self, queries: int) -> Iterator[slice]:
        step = max(1, BLOCK // max(1, self.shape[0] * self.shape[2]))
        return (slice(first, min(first + step, queries)) for first in range(0, queries, step))

    def cut(self, queries: slice, keys: slice) -> "Structure":
        """Of those queries and keys alone."""
        if queries == slice(0, self.shape[1]) and keys == slice(0, self.shape[2]):
            return self
        part = queries.start, queries.stop, keys.start, keys.stop
        if part not in self._cuts:
            seen = self.rows(queries.start, queries.stop)[..., keys]
            self._cuts[part] = Structure(seen, of_one_call=self.of_one_call)
        return self._cuts[part]

    @cached_property
    def _intervals(self) -> Intervals | None:
        """What says all of the mask, where two numbers a query do."""
        if self.shape[1] == 1 or self.is_meta or not devices.at_hand(self._seen):
            return None
        every = slice(0, self.shape[2])
        blocks = ((part, self._read(part.start, part.stop, every)) for part in self._steps(self.shape[1]))
        return Intervals.of(blocks, self.shape)

    @cached_property
    def seen_keys(self) -> Tensor:
        """[row or 1, key] bool: the keys that any query sees."""
        if self._intervals is not None:
            return self._intervals.seen_keys
        seen = torch.zeros(self.shape[0], self.shape[2], dtype=torch.bool, device=self.device)
        for _, block in self.blocks():
            seen |= block.any(1)
        return seen

    @cached_property
    def seeing(self) -> Tensor:
        """[row or 1, query or 1] bool: the queries that see any key."""
        if self._intervals is not None:
            return self._intervals.size > 0
        return torch.cat([block.any(2) for _, block in self.blocks()], 1)

    def reach(self, first: int, last: int) -> int | None:
        """One more than the last key that any query from `first` to `last` sees; None if one of them sees nothing.

        Told once for all layers that share the mask.
        """
        if self._intervals is not None:
            return self._intervals.reach(first, last)
        if not devices.at_hand(self._seen):
            ends = self._ends[first:last]
            return max(ends) if all(ends) else None
        if (first, last) not in self._reach:
            block = self.rows(first, last)
            some = block.any(1).any(0).nonzero()
            self._reach[first, last] = int(some[-1]) + 1 if bool(block.any(2).all()) else None
        return self._reach[first, last]

    def rows_within(self, first: int, rows: int) -> int:
        """How many queries from `first` on go with their keys where `rows` with all keys do: more if they reach less.

        As many where that is not known beforehand.
        """
        return rows if self._intervals is None else max(rows, self._intervals.rows_within(first, rows * self.shape[2]))

    def hides(self, query_mask: Tensor, key_mask: Tensor) -> bool:
        """True if it hides anything but padding. The masks are [row, query] and [row, key] bool."""
        if self._intervals is not None:
            return self._intervals.hides(query_mask, key_mask)
        return _any(
            (query_mask[:, rows, None] & key_mask[:, None, :] & ~block).any()
            for rows, block in self.blocks(query_mask.shape[1])
        )

    def follows(self, query_mask: Tensor, key_mask: Tensor) -> bool:
        """True if the keys that a query sees follow each other, padding left out."""
        if self._intervals is not None:
            return True

        def gaps(rows: slice, block: Tensor) -> Tensor:
            low, high, size = spans(query_mask[:, rows, None] & key_mask[:, None, :] & block, key_mask)
            return (high - low != size).any()

        return not _any(gaps(*each) for each in self.blocks(query_mask.shape[1]))

    @cached_property
    def _ends(self) -> list[int]:
        """For each query one more than the last key that it sees in any row; 0 if it sees nothing in one of them.

        All at once, since each look at a device waits for it.
        """
        after = torch.arange(1, self.shape[2] + 1, device=self.device, dtype=torch.int32)
        ends = [(block * after).amax(-1) for _, block in self.blocks()]
        return torch.cat([(part.amin(0) > 0) * part.amax(0) for part in ends]).tolist()

    def same(self, other: "Structure") -> bool:
        """True if both hide the same."""
        if self is other:
            return True
        if self.shape != other.shape:
            return False
        parts = ((block, other.rows(rows.start, rows.stop)) for rows, block in self.blocks())
        return all(torch.equal(block, theirs.to(self.device)) for block, theirs in parts)

    def one_directional(self, valid: Tensor) -> bool:
        """True if some query sees nothing after it that others see back: what masked self-attention is.

        `valid` is [row, position] bool. Causal, sliding causal, chunked and prefix masks are so. Packed documents are
        not, since what their last tokens do not see does not see them; nor are windows that reach less far forward
        than back.
        """
        told = None if self._intervals is None else self._intervals.is_one_directional(valid)
        if told is not None:
            return told
        followed = valid.flip(-1).cumsum(-1).flip(-1) > 1  # not the last of its sequence
        symmetric, found = True, False
        for rows, block in self.blocks(valid.shape[1]):
            both = valid[:, rows, None] & valid[:, None, :]
            seen = block & both
            symmetric = symmetric and torch.equal(seen, self.columns(rows.start, rows.stop).mT & both)
            later = seen.triu(rows.start + 1).any(-1)
            found = found or bool((valid[:, rows] & followed[:, rows] & ~later).any())
        return found and not symmetric

    @cached_property
    def widest(self) -> int | None:
        """The most keys that a query sees, where none sees all that others see: a window or a chunk; else None."""
        if self.is_meta or self.shape[1] == 1:
            return None
        if self._intervals is None:
            most = torch.stack([block.sum(-1).amax(-1) for _, block in self.blocks()]).amax(0)
        else:
            most = self._intervals.size.amax(-1)
        return int(most.max()) if bool((most < self.seen_keys.sum(-1)).any()) else None


def _any(found: Iterator[Tensor]) -> bool:
    """True if one of the scalars is: one after the other where to look costs nothing, else all with one look."""
    first = next(found, None)
    if first is None:
        return False
    if devices.at_hand(first):
        return bool(first) or any(bool(each) for each in found)
    return bool(torch.stack([first, *found]).any())
