"""The receiver of a scan: gives every tile to every metric and keeps their totals."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from headprobe.engine.local import Workers
from headprobe.errors import EnvironmentFailure, InputError, UsageError, nearest
from headprobe.load.collate import Batch
from headprobe.metrics import Metric
from headprobe.metrics.position import places
from headprobe.metrics.shared import valid_rows
from headprobe.metrics.totals import PerSequence
from headprobe.tile import AttentionTile, Site, pooled

Totals = dict[str, Any]
Job = tuple[list[Metric], AttentionTile]
COPIES = 6  # of a block's Gram or rows that a pairwise metric holds at once, at most
PART = 2**21  # probabilities that a worker takes at a time


@dataclass
class Pool:
    """Sites whose queries see the same keys, compared with each other across layers."""

    sites: tuple[Site, ...]
    totals: Totals = field(default_factory=dict)


class Collector:
    """Totals of each metric by site, of uniform attention under the site's mask, and of pools of sites.

    `special` says what is done with special tokens; `layers` and `kind` choose sites; `pool_bytes` above 0 asks for
    pairs across layers and bounds what may be held for them.
    """

    def __init__(
        self,
        metrics: list[Metric],
        *,
        special: str,
        layers: list[int] | None,
        kind: str | None,
        pool_bytes: int,
        workers: Workers,
    ) -> None:
        self.metrics = metrics
        self.totals: dict[Site, Totals] = defaultdict(dict)
        self.baselines: dict[Site, Totals] = defaultdict(dict)
        self.pools: list[Pool] = []
        self.queries: dict[Site, Tensor] = {}
        self.sequences: dict[Site, set[int]] = defaultdict(set)
        self.dropped: dict[Site, PerSequence] = {}
        self._special = special
        self._layers = layers
        self._kind = kind
        self._pool_bytes = pool_bytes
        self._workers = workers
        self._waiting: dict[tuple[int, int], list[AttentionTile]] = defaultdict(list)
        self._waiting_bytes = 0
        self._uniform: list[tuple[AttentionTile, Totals]] = []
        self._batch = Batch({})
        self._before = 0
        self._checked = False

    # --- a forward pass -----------------------------------------------------------------------------------------

    def begin(self, batch: Batch) -> None:
        """The next tiles are of this batch."""
        self._batch = batch

    def _wants(self, site: Site) -> bool:
        """True for a site of the chosen layers and kind."""
        return (self._layers is None or site.layer in self._layers) and self._kind in (None, site.kind)

    def receive(self, tile: AttentionTile) -> AttentionTile | None:
        """Observe one tile; return it as it was measured, None if its site was not chosen."""
        site = tile.site
        if not self._wants(site):
            return None
        tile = self._without_special(self._annotated(tile))
        self.sequences[site].update(tile.sequences)
        count = tile.query_mask.sum()
        self.queries[site] = self.queries[site] + count if site in self.queries else count
        jobs, baseline = self._jobs(tile), self._known_baseline(tile)
        if baseline is None:
            uniform = tile.uniform()
            jobs.append(([metric for metric in self.metrics if metric.name in BASELINES], uniform))
        found = self._workers.map(_observed, jobs)
        if baseline is None:
            baseline = found.pop()
            self._uniform.append((uniform, baseline))
        for seen in found:
            _add(self.totals[site], seen)
        _add(self.baselines[site], baseline)
        if self._pool_bytes:
            self._wait(tile)
        return tile

    def end(self, sites: list[Site]) -> None:
        """The forward pass is over: check the choice of sites once, and compare the layers' heads."""
        if not self._checked:
            self._check_choice(sites)
            self._checked = True
        if self._waiting and not self.pools:
            self.pools = [Pool(group) for group in _same_support(self._waiting[0, 0])]
        for rows in sorted(self._waiting):
            tiles = {tile.site: tile for tile in self._waiting[rows]}
            for pool in self.pools:
                self._compare(pool, tiles)
        self._before += len(self._batch.numbers or ())
        self._waiting.clear()
        self._uniform.clear()
        self._waiting_bytes = 0

    def _known_baseline(self, tile: AttentionTile) -> Totals | None:
        """The mask baselines: layers with one mask in one forward pass share what was observed."""
        same = (seen for other, seen in self._uniform if other.site.kind == tile.site.kind and _same_rows(other, tile))
        return next(same, None)

    # --- its parts ----------------------------------------------------------------------------------------------

    def _jobs(self, tile: AttentionTile) -> list[Job]:
        """The tile in parts, each with the metrics that observe it.

        By sequences: some for every worker, and not so many that copies of them need much memory. A long sequence
        goes in rows, but for the metrics that want all of its rows at once.
        """
        if tile.probs.device.type != "cpu":
            return [(self.metrics, tile)]
        batch, _, rows, _ = tile.probs.shape
        sequences = max(1, PART * batch // max(1, tile.probs.numel()))
        sequences = min(sequences, -(-batch // self._workers.count))
        parts = [tile.select(first, first + sequences) for first in range(0, batch, sequences)]
        if tile.probs.numel() <= PART * batch:
            return [(self.metrics, part) for part in parts]
        step = max(1, PART * batch * rows // tile.probs.numel())
        by_rows = [metric for metric in self.metrics if metric.shape == "rows"]
        whole = [metric for metric in self.metrics if metric.shape == "sequence"]
        cuts = [part.cut(first, min(first + step, rows)) for part in parts for first in range(0, rows, step)]
        jobs = [*((whole, part) for part in parts), *((by_rows, cut) for cut in cuts)]
        return [job for job in jobs if job[0]]

    def _annotated(self, tile: AttentionTile) -> AttentionTile:
        """The tile with its sequences' numbers in the corpus and what is known of special tokens."""
        numbers = self._batch.numbers
        if numbers is not None:
            tile = replace(tile, sequences=tuple(numbers[number - self._before] for number in tile.sequences))
        known = self._batch.special
        side = "encoder" if tile.site.kind == "encoder" else "decoder"
        keys = known.get("encoder" if tile.site.kind == "cross" else side)
        queries = known.get(side)
        if keys is not None and keys.shape != (len(tile.probs), tile.probs.shape[3] - tile.site.sink):
            keys = None  # windows, or another part of the model, whose positions are no tokens
        if queries is not None and queries.shape != (len(tile.probs), tile.queries):
            queries = None
        rows = slice(tile.start, tile.start + tile.probs.shape[2])
        return replace(
            tile,
            special_keys=None if keys is None else torch.nn.functional.pad(keys, (0, int(tile.site.sink)), value=False),
            special_queries=None if queries is None else queries[:, rows],
        )

    def _without_special(self, tile: AttentionTile) -> AttentionTile:
        if self._special == "drop-queries":
            return tile.without_special_queries()
        if self._special == "drop-keys" and tile.special_keys is not None:
            dropped = _dropped_mass(tile)
            site = tile.site
            self.dropped[site] = self.dropped[site] + dropped if site in self.dropped else dropped
            return tile.without_special_keys()
        return tile

    def _check_choice(self, sites: list[Site]) -> None:
        kinds, layers = {site.kind for site in sites}, {site.layer for site in sites}
        if self._kind is not None and self._kind not in kinds:
            raise UsageError("E-KIND", f"the model has no {self._kind} attention", nearest(self._kind, kinds))
        absent = [layer for layer in self._layers or [] if layer not in layers]
        if absent:
            raise UsageError("E-LAYERS", f"the model has no layer {absent[0]}", f"Its layers are 0 to {max(layers)}.")
        if not self.queries:
            raise UsageError("E-LAYERS", "no site is of the kind and the layers asked for")

    def _wait(self, tile: AttentionTile) -> None:
        # a layer may take its images one by one: the n-th tile from a row on belongs with the others' n-th
        nth = sum(other.site == tile.site for (start, _), tiles in self._waiting.items() if start == tile.start
                  for other in tiles)  # fmt: skip
        self._waiting[tile.start, nth].append(tile)
        self._waiting_bytes += tile.probs.numel() * tile.probs.element_size()
        if 2 * self._waiting_bytes > self._pool_bytes:
            raise EnvironmentFailure(
                "E-MEMORY",
                f"--pairs model holds all layers of a batch at once: over {2 * self._waiting_bytes:,} bytes here",
                "Lower --batch-size or --max-length, choose --layers, or raise --max-memory.",
            )

    def _compare(self, pool: Pool, tiles: dict[Site, AttentionTile]) -> None:
        """Give the pairwise metrics a pool's heads, so many rows at a time that their Grams stay within the budget."""
        absent = [site for site in pool.sites if site not in tiles]
        if absent:  # a pair that some rows lack would silently be a pair of other rows
            raise InputError("E-PAIRS", f"{absent[0].path} was cut into other rows than {pool.sites[0].path}")
        tile = pooled([tiles[site] for site in pool.sites])
        batch, heads, rows, keys = tile.probs.shape
        fits = self._pool_bytes // (COPIES * self._workers.count * batch * heads * max(heads, keys) * 8)
        step = max(1, min(rows, fits))
        compared = [metric for metric in self.metrics if metric.pairwise]
        parts = [tile.cut(start, min(start + step, rows)) for start in range(0, rows, step)]
        for first in range(0, len(parts), self._workers.count):  # a total of all pairs is large: few at a time
            few = parts[first : first + self._workers.count]
            for seen in self._workers.map(_observed, [(compared, part) for part in few]):
                _add(pool.totals, seen)


def _observed(job: Job) -> Totals:
    metrics, tile = job
    return {metric.name: metric.observe(tile) for metric in metrics}


BASELINES = ("redundancy", "entropy", "position")  # whose value for uniform attention doesn't depend on other heads


def _dropped_mass(tile: AttentionTile) -> PerSequence:
    rows = tile.once(valid_rows)
    return rows.means([(tile.once(places).special, rows.size >= 0)])


def _add(totals: Totals, seen: Totals) -> None:
    for name, total in seen.items():
        totals[name] = totals[name] + total if name in totals else total


def _same_rows(one: AttentionTile, other: AttentionTile) -> bool:
    """True if two tiles hold the same queries of the same sequences, which see the same keys."""
    return one.start == other.start and one.sequences == other.sequences and one.same_support(other)


def _same_support(tiles: list[AttentionTile]) -> list[tuple[Site, ...]]:
    """Sites grouped by kind and by the keys that their queries see: only those can be compared.

    Told once, from the first batch, which holds the longest sequences: a window shows there if anywhere.
    """
    groups: list[list[AttentionTile]] = []
    for tile in tiles:
        for group in groups:
            first = group[0]
            if first.site.kind == tile.site.kind and first.same_support(tile):
                group.append(tile)
                break
        else:
            groups.append([tile])
    return [tuple(tile.site for tile in group) for group in groups]
