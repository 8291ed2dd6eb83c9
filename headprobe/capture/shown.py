"""A call on its way to the receiver: whole, in parts, or its rows once more when somebody asks for them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headprobe import devices
from headprobe.capture.calls import Anew, Call, Made, Piece, joined_made
from headprobe.capture.interface import EagerCall
from headprobe.capture.masks import Extent
from headprobe.capture.memory import SMALL
from headprobe.capture.structure import Structure
from headprobe.capture.tiles import make_tile
from headprobe.capture.validate import validate
from headprobe.devices import Arithmetic
from headprobe.outputs import Unknown
from headprobe.tile import AttentionTile, Site, Source

if TYPE_CHECKING:
    from headprobe.capture.observer import Observer

EXACT = Arithmetic.exact()
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Room:
    """Bytes of a tile at most, and of one that stays in a CPU's cache, beyond which `whole_sequences` may go."""

    tile: int
    cached: int
    whole_sequences: bool = True

    def tile_of(self, shape: tuple[int, int, int, int], *, separable: bool, in_cache: bool) -> tuple[int, int]:
        """How many sequences of a call [sequence, head, query, key] go into one tile, and how many query rows of each.

        Sequences in shares as even as can be, and at least one; all its rows, or as many as stay in the cache.
        """
        batch, heads, queries, keys = shape
        a_row = max(1, heads * keys * FLOAT)
        several = self.cached if in_cache else self.tile
        sequences = batch
        if separable:
            tiles = -(-batch // max(1, several // (a_row * max(1, queries))))
            sequences = -(-batch // max(1, tiles))
        a_row *= max(1, sequences)
        if self.whole_sequences and a_row * queries <= self.tile:
            return sequences, queries
        return sequences, min(queries, max(1, (min(several, SMALL) if in_cache else several) // a_row))


class Shown:
    """One call of a site, and the pieces of it that its sequences own: none where it was shown before.

    `part` of the call's batch axis is all of it, or what `by_sequences` makes calls of their own of.
    """

    def __init__(
        self, observer: "Observer", site: Site, call: Call, shared: list[Piece], part: slice | None = None
    ) -> None:
        self.site = site
        self._observer, self._call, self._pieces = observer, call, shared
        self._inputs, self._before = observer.inputs, observer.sequences
        self._arithmetic = observer.arithmetic
        batch, _, self._queries, _ = call.shape
        self._part = part or slice(0, batch)
        separable = batch > 1 and call.anew is not None and call.anew.separable
        in_cache = call.source is not None and devices.at_hand(call.source[0])
        self._sequences, self.rows = observer.room.tile_of(call.shape, separable=separable, in_cache=in_cache)

    @property
    def whole(self) -> bool:
        """True if one tile holds the call."""
        return self._sequences == self._call.shape[0] and self.rows == self._queries

    @property
    def repeated(self) -> bool:
        """True for a call that was shown before, whose rows are not shown again."""
        return not self._pieces

    def run(self, whole: EagerCall) -> Tensor:
        """The call's output, from parts of it that are shown one after the other."""
        outputs = []
        for sequences, mine in self._by_sequences():
            call, rows = whole.of(sequences), []
            for first, last, reach in mine._parts():
                output, probs = call.rows(first, last, reach)
                mine.see(first, probs, call.made(output) if self._observer.wiring.wanted else None)
                del probs  # before the next are made
                rows.append(output)
            outputs.append(torch.cat(rows, dim=1))
        return torch.cat(outputs)

    def compute(self, whole: Anew) -> None:
        """Show probabilities that the call itself did not, part by part."""
        for sequences, mine in self._by_sequences():
            call = whole.of(sequences)
            for first, last, reach in mine._parts():
                mine.see(first, *call.again(first, last, reach))

    def _by_sequences(self) -> Iterator[tuple[slice, "Shown"]]:
        """The sequences that go together, and the call for them alone."""
        call, step = self._call, self._sequences
        if call.anew is None or step == call.shape[0]:
            yield self._part, self
            return
        for first in range(0, call.shape[0], step):
            part = slice(first, min(first + step, call.shape[0]))
            mine = replace(call, shape=(part.stop - first, *call.shape[1:]), anew=call.anew.of(part))
            yield part, Shown(self._observer, self.site, mine, self._pieces, part)

    def _parts(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int | None]]:
        """Rows of the call in parts: first, last, and how many keys they reach if that is not all."""
        structure, end = self._structure, self._queries if end is None else end
        while first < end:
            rows = self.rows
            if rows < self._queries:
                self._observer.memory.check()
                rows = rows if structure is None else structure.rows_within(first, rows)
            last = min(first + rows, end)
            yield first, last, self._reach(first, last)
            first = last

    def see(self, start: int, probs: Tensor, made: Made | Unknown | None = None) -> None:
        """Take the probabilities of the call's rows from `start` on to the receiver, with what they gave if wanted."""
        observer = self._observer
        if observer.wiring.looking:
            if self._pieces:
                observer.wiring.check(self.site, made, probs)
            return
        for piece in self._pieces:
            with observer.tap.paused():
                observer.receiving = True  # and stays so if something of ours fails
                tile = self._tile(piece, start, probs, made)
                if tile is not None:
                    if observer.passes == 0 and not tile.start and not probs.is_meta and not observer.allow_invalid:
                        validate(tile, probs.dtype)
                    with EXACT.used():
                        observer.receive(tile)
                observer.receiving = False

    def give(self, made: Made | Unknown | None) -> None:
        """What all of the call's rows gave, while it is found out who reads that."""
        if self._pieces and self._observer.wiring.looking:
            self._observer.wiring.give(self.site, made)

    def tiles(self, probs: Tensor, made: Made | Unknown | None = None) -> list[AttentionTile]:
        """All rows of the call as they are, a tile for each piece, with what they gave where that is wanted."""
        tiles = []
        for piece in self._pieces:
            tile = self._tile(piece, 0, probs, None)
            if tile is not None:
                outputs = piece.outputs(made) if isinstance(made, Made) else made
                tiles.append(replace(tile, outputs=outputs))
        return tiles

    @property
    def _structure(self) -> Structure | None:
        """What tells that some rows don't see all keys, which they are then cut with."""
        structure, anew = self._call.structure, self._call.anew
        if anew is None or anew.keys_together:
            return None
        if self.site.kind != "decoder" or structure is None or structure.is_meta or structure.shape[1] == 1:
            return None
        return structure

    def _reach(self, first: int, last: int) -> int | None:
        return None if self._structure is None else self._structure.reach(first, last)

    def _tile(self, piece: Piece, start: int, probs: Tensor, made: Made | Unknown | None) -> AttentionTile | None:
        """Those of the call's rows from `start` on that are the piece's; None where none is."""
        site = self.site
        part, begin = piece.cut(probs, start)
        if not part.shape[2]:
            return None
        extent = Extent(len(piece.rows), piece.queries.stop - piece.queries.start, piece.keys.stop - piece.keys.start)
        masks = self._inputs.of(site.kind, extent, piece.structure, probs.device)
        shown = self._observer.structures.beyond_padding(piece.structure, masks)
        numbers = tuple(self._before + row for row in piece.rows[self._part])
        tile = make_tile(site, part, shown, begin, masks.of(self._part), numbers, self._part)
        if self._observer.wiring.wanted:
            outputs = self._observer.wiring.outputs(site, piece, made, (start, part.shape[3]))
            tile = replace(tile, outputs=outputs)
        anew = self._call.anew
        return tile if anew is None else replace(tile, source=self._source(anew, piece))

    def _source(self, anew: Anew, piece: Piece) -> Source:
        a_row = self._call.shape[0] * self._call.shape[1] * self._call.shape[3] * FLOAT
        rows = max(self.rows, min(self._queries, self._observer.room.tile // max(1, a_row)))
        return Source(partial(self._again, anew, piece), rows, self.rows, anew.bytes)

    def _again(self, anew: Anew, piece: Piece, first: int, last: int) -> AttentionTile:
        first, last = piece.queries.start + first, piece.queries.start + last
        with self._observer.tap.paused(), self._arithmetic.used():  # as the model did it
            tile = self._tile(piece, first, *self._rows_again(anew, first, last))
        assert tile is not None  # the rows are the piece's own
        return tile

    def _rows_again(self, anew: Anew, first: int, last: int) -> tuple[Tensor, Made | Unknown | None]:
        """Probabilities of the rows, and what they gave, in parts that stay in the cache."""
        keys = self._reach(first, last) or self._call.shape[3]
        probs, made = None, []
        for begin, end, reach in self._parts(first, last):
            some, gave = anew.again(begin, end, reach)
            if end - begin == last - first:
                return some, gave
            if probs is None:
                self._observer.memory.give_back()  # before so much is held at once
                probs = some.new_zeros(*some.shape[:2], last - first, keys)
            probs[:, :, begin - first : end - first, : some.shape[3]] = some
            made.append(gave)
        assert probs is not None  # there are rows
        return probs, joined_made(made)
