"""A call on its way to the receiver: whole, in parts, or its rows once more when somebody asks for them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from headprobe.capture.calls import Anew, Call, Made, Piece
from headprobe.capture.masks import Extent
from headprobe.capture.tiles import make_tile
from headprobe.capture.validate import validate
from headprobe.devices import Arithmetic
from headprobe.outputs import Unknown
from headprobe.tile import AttentionTile, Site, Source

if TYPE_CHECKING:
    from headprobe.capture.observer import Observer

EXACT = Arithmetic.exact()


class Shown:
    """One call of a site, and the pieces of it that its sequences own: none where it was shown before."""

    def __init__(self, observer: "Observer", site: Site, call: Call, shared: list[Piece]) -> None:
        self.site = site
        self._observer, self._call, self._pieces = observer, call, shared
        self._inputs, self._before = observer.inputs, observer.sequences
        self._arithmetic = observer.arithmetic
        batch, heads, self._queries, keys = call.shape
        self.rows = max(1, observer.tile_bytes // (batch * heads * keys * 4))

    def parts(self) -> Iterator[tuple[int, int, int | None]]:
        """The rows of the call in tiles: first, last, and how many keys they reach if that is not all."""
        if self.rows < self._queries:
            self._observer.blocks.use()
        for first in range(0, self._queries, self.rows):
            last = min(first + self.rows, self._queries)
            yield first, last, self._reach(first, last)

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

    def _reach(self, first: int, last: int) -> int | None:
        structure = self._call.structure
        if self.site.kind != "decoder" or structure is None or structure.is_meta or structure.shape[1] == 1:
            return None
        return structure.reach(first, last)

    def _tile(self, piece: Piece, start: int, probs: Tensor, made: Made | Unknown | None) -> AttentionTile | None:
        """Those of the call's rows from `start` on that are the piece's; None where none is."""
        site = self.site
        part, begin = piece.cut(probs, start)
        if not part.shape[2]:
            return None
        extent = Extent(len(piece.rows), piece.queries.stop - piece.queries.start, piece.keys.stop - piece.keys.start)
        masks = self._inputs.of(site.kind, extent, piece.structure, probs.device)
        shown = self._observer.structures.beyond_padding(piece.structure, masks)
        tile = make_tile(site, part, shown, begin, masks, tuple(self._before + row for row in piece.rows))
        if self._observer.wiring.wanted:
            outputs = self._observer.wiring.outputs(site, piece, made, (start, part.shape[3]))
            tile = replace(tile, outputs=outputs)
        anew = self._call.anew
        return tile if anew is None else replace(tile, source=self._source(anew, piece))

    def _source(self, anew: Anew, piece: Piece) -> Source:
        return Source(partial(self._again, anew, piece), self.rows, anew.bytes)

    def _again(self, anew: Anew, piece: Piece, first: int, last: int) -> AttentionTile:
        first, last = piece.queries.start + first, piece.queries.start + last
        with self._observer.tap.paused(), self._arithmetic.used():  # as the model did it
            tile = self._tile(piece, first, *anew.again(first, last, self._reach(first, last)))
        assert tile is not None  # the rows are the piece's own
        return tile
