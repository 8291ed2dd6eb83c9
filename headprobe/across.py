"""Heads of different layers compared: the rows of all layers for the same queries, so many at a time as fit the budget.

No layer's attention is kept as such where its queries and keys are smaller: its rows are then computed once more.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from headprobe import devices
from headprobe.budget import ADVICE, Budget
from headprobe.engine.local import Workers
from headprobe.errors import EnvironmentFailure, InputError
from headprobe.metrics import Metric
from headprobe.metrics.outputs import sums_products
from headprobe.outputs import joined_outputs, outputs_bytes
from headprobe.tile import AttentionTile, Site

Totals = dict[str, Any]
Job = tuple[list[Metric], AttentionTile]
COPIES = (
    3  # of the rows of all layers that live at once: a layer's own, all layers' together, what metrics make of them
)


@dataclass
class Pool:
    """Sites whose queries see the same keys, compared with each other across layers."""

    sites: tuple[Site, ...]
    totals: Totals = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """Attention of a site in a forward pass that can be read a second time: held, or computed again."""

    tile: AttentionTile
    held: bool

    def rows(self, first: int, last: int) -> AttentionTile:
        """The rows from `first` to `last`."""
        return (
            self.tile.cut(first, last) if self.held or self.tile.source is None else self.tile.source.read(first, last)
        )

    def one_by_one(self) -> list["Kept"]:
        """Its sequences apart."""
        return [replace(self, tile=self.tile.select(row, row + 1)) for row in range(len(self.tile.sequences))]


class Across:
    """Pairs of heads of all layers, from what is kept of each layer until the forward pass is over."""

    def __init__(self, metrics: list[Metric], budget: Budget, workers: Workers) -> None:
        self.pools: list[Pool] = []
        pairwise = [metric for metric in metrics if metric.pairwise]
        self._uncut = [metric for metric in pairwise if sums_products(metric)]  # their totals are large
        self._metrics = [metric for metric in pairwise if not sums_products(metric)]
        self._budget = budget
        self._workers = workers
        self._kept: dict[Site, list[Kept]] = {}
        self._checked: set[Site] = set()
        self._bytes = 0

    def wait(self, tile: AttentionTile) -> None:
        """Keep what the attention that ends with this tile is read from. Raises `EnvironmentFailure` over budget."""
        if not tile.ends:
            return
        size = tile.probs.numel() * tile.probs.element_size() + outputs_bytes(tile.outputs)
        held = tile.whole and (tile.source is None or size <= tile.source.bytes)
        if not held and tile.site not in self._checked:
            check_again(tile)
            self._checked.add(tile.site)
        self._bytes += size if held or tile.source is None else tile.source.bytes
        self._budget.check_kept(self._bytes)
        if not held:
            nothing = tile.probs.new_empty(*tile.probs.shape[:2], 0, tile.probs.shape[3])
            tile = replace(tile, probs=nothing, outputs=None)
        self._kept.setdefault(tile.site, []).append(Kept(tile, held))

    def end(self) -> None:
        """The forward pass is over: compare."""
        pooled_before = {site for pool in self.pools for site in pool.sites}
        new = [kept for site, kept in self._kept.items() if site not in pooled_before]
        self.pools += [Pool(group) for group in _same_keys(new)]
        for pool in self.pools:
            several = side_by_side([self._kept.get(site, []) for site in pool.sites])
            if several is None:  # a pair that some images lack would be one of other images
                raise InputError("E-PAIRS", f"{pool.sites[0].path} was called as often as not all layers beside it")
            for parts in several:
                self._compare(pool, parts)
        self._kept.clear()
        self._bytes = 0

    def _compare(self, pool: Pool, parts: list[Kept]) -> None:
        """The pairwise metrics of a pool's heads, so many rows at a time as the budget allows."""
        tile, heads = parts[0].tile, sum(site.heads for site in pool.sites)
        a_row = len(tile.key_mask) * heads * tile.key_mask.shape[1] * tile.probs.element_size() * COPIES
        if a_row > self._budget.bytes // 2:
            raise EnvironmentFailure(
                "E-MEMORY", f"--pairs model takes {2 * a_row:,} bytes for a single query of {heads} heads", ADVICE
            )
        step = self._budget.bytes // 2 // a_row
        for first in range(0, tile.queries, step):
            last = min(first + step, tile.queries)
            self._observe(pool, pooled([part.rows(first, last) for part in parts]))

    def _observe(self, pool: Pool, tile: AttentionTile) -> None:
        rows = tile.probs.shape[2]
        share = -(-rows // self._workers.count) if devices.at_hand(tile.probs) else rows
        cuts = [tile.cut(first, min(first + share, rows)) for first in range(0, rows, share)]
        for seen in self._workers.map(observed, [(self._metrics, cut) for cut in cuts]):
            add(pool.totals, seen)
        add(pool.totals, observed((self._uncut, tile)))


def observed(job: Job) -> Totals:
    """What each of a job's metrics makes of its tile."""
    metrics, tile = job
    return {metric.name: metric.observe(tile) for metric in metrics}


def add(totals: Totals, seen: Totals) -> None:
    """Add what was seen to totals."""
    for name, total in seen.items():
        totals[name] = totals[name] + total if name in totals else total


def check_again(tile: AttentionTile) -> None:
    """Raise `InputError` where computing a tile's rows again gives other probabilities than the model used."""
    if tile.source is None:
        raise InputError("E-ROWS", f"{tile.site.path} was cut into tiles, and its rows can't be computed again")
    again = tile.source.read(tile.start, tile.queries).probs
    first = _of_first_keys(tile, again.shape[3] - tile.site.sink).probs
    if again.shape != first.shape or not torch.allclose(again, first, rtol=0, atol=TOLERANCE, equal_nan=True):
        raise InputError(
            "E-CAPTURE",
            f"{tile.site.path} gives other attention when it is computed again",
            "Raise --max-memory until a layer fits whole, and leave out --pairs model.",
        )


TOLERANCE = 1e-5


def side_by_side(several: list[list[Kept]]) -> list[list[Kept]] | None:
    """The same sequences of several sites that were kept in parts: part by part, or if those differ one by one.

    Layers of more heads are cut into smaller parts. None where the sites do not have the same sequences.
    """
    if len({tuple(part.tile.sequences for part in kept) for kept in several}) > 1:
        several = [[row for part in kept for row in part.one_by_one()] for kept in several]
        if len({_sequences(kept) for kept in several}) > 1:
            return None
    return [list(parts) for parts in zip(*several, strict=True)]


def _sequences(kept: list[Kept]) -> tuple[int, ...]:
    return tuple(number for part in kept for number in part.tile.sequences)


def _same_keys(sites: list[list[Kept]]) -> list[tuple[Site, ...]]:
    """Sites grouped by kind and by the keys that their queries see: only those can be compared.

    Told once, from the first batch, which holds the longest sequences: a window shows there if anywhere.
    """
    groups: list[list[list[Kept]]] = []
    for kept in sites:
        group = next((group for group in groups if _comparable(group[0], kept)), None)
        if group is None:
            groups.append([kept])
        else:
            group.append(kept)
    return [tuple(kept[0].tile.site for kept in group) for group in groups]


def _comparable(some: list[Kept], others: list[Kept]) -> bool:
    one, other = some[0].tile, others[0].tile
    if (one.site.kind, one.site.sink, one.queries) != (other.site.kind, other.site.sink, other.queries):
        return False
    # of masked attention a tile may lack keys at the end that none of its queries sees
    widths = [0 if tile.site.kind == "decoder" else tile.key_mask.shape[1] for tile in (one, other)]
    if widths[0] != widths[1] or _sequences(some) != _sequences(others) or (one.hides is None) != (other.hides is None):
        return False
    return one.hides is None or other.hides is None or one.hides.same(other.hides)


def pooled(tiles: list[AttentionTile]) -> AttentionTile:
    """The heads of several sites over the same queries and keys as one tile's, in order, where the first tile lies."""
    fewest = min(tile.probs.shape[3] - tile.site.sink for tile in tiles)
    tiles = [_of_first_keys(tile, fewest) for tile in tiles]
    first = tiles[0]
    for tile in tiles[1:]:
        if not tile.same_support(first):
            raise InputError("E-PAIRS", f"{tile.site.path} and {first.site.path} see different keys")
    heads = sum(tile.site.heads for tile in tiles)
    site = Site(first.site.index, "pooled", first.site.kind, first.site.layer, heads, heads, first.site.sink)
    device = first.probs.device
    probs = torch.cat([tile.probs.to(device) for tile in tiles], dim=1)
    return replace(first, site=site, probs=probs, outputs=joined_outputs([tile.outputs for tile in tiles], device))


def _of_first_keys(tile: AttentionTile, keys: int) -> AttentionTile:
    """The tile without the keys after the first so many, unless one of its queries sees them; a virtual key stays."""
    end = tile.probs.shape[3] - tile.site.sink
    if end == keys or bool(tile.support[..., keys:end].any()):
        return tile

    def first(values: Tensor) -> Tensor:
        return torch.cat([values[..., :keys], values[..., end:]], -1)

    return replace(
        tile,
        probs=first(tile.probs),
        key_mask=first(tile.key_mask),
        key_positions=first(tile.key_positions),
        structure=None if tile.structure is None else first(tile.structure),
        special_keys=None if tile.special_keys is None else first(tile.special_keys),
        tokens=None if tile.tokens is None else tile.tokens.map(first),
    )
