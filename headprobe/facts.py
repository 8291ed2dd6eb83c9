"""What the caller knows of a batch's sequences, told to the tiles that the observer makes of it."""

from dataclasses import replace

import torch
from torch import Tensor

from headprobe.load.collate import Batch
from headprobe.tile import AttentionTile


class Facts:
    """The sequences' numbers in the corpus, which of their tokens are special, and what else is known of tokens."""

    def __init__(self) -> None:
        self._batch = Batch({})
        self._copies: dict[torch.device, Batch] = {}
        self._before = 0

    def begin(self, batch: Batch) -> None:
        """The next tiles are of this batch."""
        self._batch = batch
        self._copies.clear()

    def end(self) -> None:
        """The batch is over."""
        self._before += len(self._batch.numbers or ())

    def told(self, tile: AttentionTile) -> AttentionTile:
        """The tile with its sequences' numbers in the corpus and what is known of special tokens."""
        numbers, rows, site = self._batch.numbers, tile.probs.shape[2], tile.site
        places = [number - self._before for number in tile.sequences]
        if numbers is not None:
            tile = replace(tile, sequences=tuple(numbers[place] for place in places))
        facts = _of_places(self._on(tile.probs.device), places)
        side = "encoder" if site.kind == "encoder" else "decoder"
        read = "encoder" if site.kind == "cross" else side  # whose tokens are the keys
        keys, tokens = _of_tokens(facts.special.get(read), tile), facts.tokens.get(read)
        queries = facts.special.get(side)
        if queries is not None and queries.shape != (len(tile.probs), tile.queries):
            queries = None
        return replace(
            tile,
            special_keys=None if keys is None else torch.nn.functional.pad(keys, (0, int(site.sink)), value=False),
            special_queries=None if queries is None else queries[:, tile.start : tile.start + rows],
            tokens=None if tokens is None else tokens.map(lambda fact: _of_keys(fact, tile)),
            source=None if tile.source is None else tile.source.then(self.told),
        )

    def _on(self, device: torch.device) -> Batch:
        """What is known of the batch's tokens, on the device of a tile: layers may lie on several."""
        if device not in self._copies:
            special = {side: marks.to(device) for side, marks in self._batch.special.items()}
            tokens = {side: facts.map(lambda fact: fact.to(device)) for side, facts in self._batch.tokens.items()}
            self._copies[device] = Batch({}, self._batch.numbers, special, tokens)
        return self._copies[device]


def _of_places(facts: Batch, places: list[int]) -> Batch:
    """What is known of sequences that follow each other in the batch: of windows of one nothing is."""
    rows = slice(places[0], places[-1] + 1)
    if places != list(range(rows.start, rows.stop)):
        return Batch({})
    special = {side: marks[rows] for side, marks in facts.special.items()}
    tokens = {side: known.map(lambda fact: fact[rows]) for side, known in facts.tokens.items()}
    return Batch({}, None, special, tokens)


def _of_tokens(special: Tensor | None, tile: AttentionTile) -> Tensor | None:
    """[batch, key]: which keys of a tile are special; None for windows, or a part of the model that reads no tokens."""
    keys = tile.probs.shape[3] - tile.site.sink
    if special is not None and tile.site.kind == "decoder" and not tile.whole:
        special = special[:, :keys]  # without those that none of its queries sees
    return None if special is None or special.shape != (len(tile.probs), keys) else special


def _of_keys(fact: Tensor, tile: AttentionTile) -> Tensor | None:
    """The same for facts about tokens; of a virtual key False is said, or -1."""
    keys, nothing = _of_tokens(fact, tile), 0 if fact.dtype == torch.bool else -1
    return None if keys is None else torch.nn.functional.pad(keys, (0, int(tile.site.sink)), value=nothing)
