"""Heads of different layers compared: the rows of all layers for the same queries, so many at a time as fit the budget.

No layer's attention is kept as such where its queries and keys are smaller: its rows are then computed once more.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from headprobe import devices
from headprobe.budget import ADVICE, Budget
from headprobe.engine.local import Workers
from headprobe.errors import EnvironmentFailure, InputError
from headprobe.metrics import Metric
from headprobe.outputs import joined_outputs, outputs_bytes
from headprobe.tile import AttentionTile, Site

Totals = dict[str, Any]
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


class Across:
    """Pairs of heads of all layers, from what is kept of each layer until the forward pass is over."""

    def __init__(self, metrics: list[Metric], budget: Budget, workers: Workers) -> None:
        self.pools: list[Pool] = []
        self._metrics = [metric for metric in metrics if metric.pairwise]
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
        if self._kept and not self.pools:
            firsts = [kept[0].tile for kept in self._kept.values()]
            self.pools = [Pool(group) for group in _same_keys(firsts)]
        for pool in self.pools:
            several = [self._kept.get(site, []) for site in pool.sites]
            if len({len(kept) for kept in several}) != 1:  # a pair that some images lack would be one of other images
                raise InputError("E-PAIRS", f"{pool.sites[0].path} was called as often as not all layers beside it")
            for parts in zip(*several, strict=True):
                self._compare(pool, list(parts))
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
        for seen in self._workers.map(self._observed, cuts):
            for name, total in seen.items():
                pool.totals[name] = pool.totals[name] + total if name in pool.totals else total

    def _observed(self, tile: AttentionTile) -> Totals:
        return {metric.name: metric.observe(tile) for metric in self._metrics}


def check_again(tile: AttentionTile) -> None:
    """Raise `InputError` where computing a tile's rows again gives other probabilities than the model used."""
    if tile.source is None:
        raise InputError("E-ROWS", f"{tile.site.path} was cut into tiles, and its rows can't be computed again")
    again = tile.source.read(tile.start, tile.queries).probs
    if again.shape != tile.probs.shape or not bool(((again - tile.probs).abs() <= TOLERANCE).all()):
        raise InputError(
            "E-CAPTURE",
            f"{tile.site.path} gives other attention when it is computed again",
            "Raise --max-memory until a layer fits whole, and leave out --pairs model.",
        )


TOLERANCE = 1e-5


def _same_keys(tiles: list[AttentionTile]) -> list[tuple[Site, ...]]:
    """Sites grouped by kind and by the keys that their queries see: only those can be compared.

    Told once, from the first batch, which holds the longest sequences: a window shows there if anywhere.
    """
    groups: list[list[AttentionTile]] = []
    for tile in tiles:
        group = next((group for group in groups if _comparable(group[0], tile)), None)
        if group is None:
            groups.append([tile])
        else:
            group.append(tile)
    return [tuple(tile.site for tile in group) for group in groups]


def _comparable(one: AttentionTile, other: AttentionTile) -> bool:
    if (one.site.kind, one.queries, one.sequences) != (other.site.kind, other.queries, other.sequences):
        return False
    if one.key_mask.shape != other.key_mask.shape or (one.hides is None) != (other.hides is None):
        return False
    return one.hides is None or other.hides is None or one.hides.same(other.hides)


def pooled(tiles: list[AttentionTile]) -> AttentionTile:
    """The heads of several sites over the same queries and keys as one tile's, in order, where the first tile lies."""
    first = tiles[0]
    for tile in tiles[1:]:
        if not tile.same_support(first):
            raise InputError("E-PAIRS", f"{tile.site.path} and {first.site.path} see different keys")
    heads = sum(tile.site.heads for tile in tiles)
    site = Site(first.site.index, "pooled", first.site.kind, first.site.layer, heads, heads, first.site.sink)
    device = first.probs.device
    probs = torch.cat([tile.probs.to(device) for tile in tiles], dim=1)
    return replace(first, site=site, probs=probs, outputs=joined_outputs([tile.outputs for tile in tiles], device))
