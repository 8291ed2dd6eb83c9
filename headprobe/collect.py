"""The receiver of a scan: gives every tile to every metric and keeps their totals."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from headprobe import devices
from headprobe.across import Across, Job, Pool, Totals, add, check_again, observed
from headprobe.budget import Budget
from headprobe.engine.local import Workers
from headprobe.errors import UsageError, nearest
from headprobe.facts import Facts
from headprobe.load.collate import Batch
from headprobe.metrics import Metric, reads_outputs, select
from headprobe.metrics.approximate import estimated
from headprobe.metrics.outputs import sums_bytes, sums_products, width
from headprobe.metrics.places import places
from headprobe.metrics.shared import valid_rows
from headprobe.metrics.totals import PerSequence
from headprobe.settings import ScanOptions
from headprobe.tile import AttentionTile, Site

PART = 2**21  # probabilities that a worker takes at a time


class Collector:
    """Totals of each metric by site, of uniform attention under the site's mask, and of pools of sites.

    `special` says what is done with special tokens; `layers` and `kind` choose sites; `across` asks for
    pairs across layers, for which `budget` bounds what is kept.
    """

    def __init__(
        self,
        metrics: list[Metric],
        *,
        special: str,
        layers: list[int] | None,
        kind: str | None,
        budget: Budget,
        across: bool,
        workers: Workers,
    ) -> None:
        self.metrics = metrics
        self.reads_outputs = any(reads_outputs(metric) for metric in metrics)
        self.totals: dict[Site, Totals] = defaultdict(dict)
        self.baselines: dict[Site, Totals] = defaultdict(dict)
        self.budget = budget
        self.across = Across(metrics, budget, workers) if across else None
        self.queries: dict[Site, Tensor] = {}
        self.sequences: dict[Site, set[int]] = defaultdict(set)
        self.dropped: dict[Site, PerSequence] = {}
        self._special = special
        self._layers = layers
        self._kind = kind
        self.workers = workers
        self._uniform: list[tuple[AttentionTile, Totals]] = []
        self._facts = Facts()
        self._again: set[Site] = set()  # whose rows were found to be the same when they are computed again
        self.widths: dict[Site, int] = {}  # features that a site's heads give together; the observer knows all at once
        self._checked = False

    # --- a forward pass -----------------------------------------------------------------------------------------

    def begin(self, batch: Batch) -> None:
        """The next tiles are of this batch."""
        self._facts.begin(batch)

    @property
    def room(self) -> dict[str, Any]:
        """How large tiles are: `observing` takes it."""
        by_rows = all(metric.shape == "rows" for metric in self.metrics) and self.across is None
        return {
            "tile_bytes": self.budget.tile,
            "cached_bytes": self.budget.cached(self.workers.count),
            "whole_sequences": not by_rows,
        }

    @property
    def pools(self) -> list[Pool]:
        """Sites that were compared across layers."""
        return [] if self.across is None else self.across.pools

    def receive(self, tile: AttentionTile) -> AttentionTile | None:
        """Observe one tile; return it as it was measured, None if its site was not chosen."""
        site = tile.site
        if not wants(site, self._layers, self._kind):
            return None
        # of masked attention the first rows see few of the keys that the last ones will see
        keys = max(tile.probs.shape[3], tile.queries if site.kind == "decoder" else 0)
        self.budget.rows(len(tile.probs), site.heads, keys)
        if site not in self.queries:
            self._check_sums(tile)
        tile = self._without_special(self._facts.told(tile))
        self.sequences[site].update(tile.sequences)
        count = tile.query_mask.sum()
        self.queries[site] = self.queries[site] + count if site in self.queries else count
        jobs, baseline = self._jobs(tile), self._known_baseline(tile)
        if baseline is None:
            jobs.append(([metric for metric in self.metrics if metric.name in BASELINES], tile.uniform()))
        found = self.workers.map(observed, jobs) if devices.at_hand(tile.probs) else [observed(job) for job in jobs]
        if baseline is None:
            baseline = found.pop()
            self._uniform.append((_masks_alone(tile), baseline))
        for seen in found:
            add(self.totals[site], seen)
        add(self.baselines[site], baseline)
        self._observe_cut_sequences(tile)
        if self.across is not None:
            self.across.wait(tile)
        return tile

    def _observe_cut_sequences(self, tile: AttentionTile) -> None:
        """Metrics that need all rows of a sequence read them again; torch's own threads share that work."""
        whole = [metric for metric in self.metrics if metric.shape == "sequence"]
        if whole and tile.ends and not tile.whole:
            if tile.site not in self._again:
                check_again(tile)
                self._again.add(tile.site)
            add(self.totals[tile.site], observed((whole, tile)))

    def _check_sums(self, tile: AttentionTile) -> None:
        widths = {site: features for site, features in self.widths.items() if wants(site, self._layers, self._kind)}
        widths[tile.site] = width(tile)
        across = self.across is not None
        self.budget.check_sums(sums_bytes(self.metrics, widths, across=across, workers=self.workers.count))

    def end(self, sites: list[Site]) -> None:
        """The forward pass is over: check the choice of sites once, and compare the layers' heads."""
        if not self._checked:
            check_choice(sites, self._layers, None if self._kind is None else [self._kind])
            self._checked = True
        if self.across is not None:
            with devices.Arithmetic.exact().used():
                self.across.end()
        self._facts.end()
        self._uniform.clear()

    def _known_baseline(self, tile: AttentionTile) -> Totals | None:
        """The mask baselines: layers with one mask in one forward pass share what was observed."""
        same = (seen for other, seen in self._uniform if other.site.kind == tile.site.kind and _same_rows(other, tile))
        return next(same, None)

    def adopt(self, other: "Collector") -> None:
        """Take over what another collector of the same model's sites has found for its metrics."""
        sites = {(site.path, site.index): site for site in self.queries}
        for site, found in other.totals.items():
            mine = sites.get((site.path, site.index))
            if mine is not None:
                self.totals[mine] |= found
                self.baselines[mine] |= other.baselines[site]

    # --- its parts ----------------------------------------------------------------------------------------------

    def _jobs(self, tile: AttentionTile) -> list[Job]:
        """The tile in parts, each with the metrics that observe it.

        By sequences: some for every worker, and not so many that copies of them need much memory. A long sequence
        goes in rows, but for the metrics that want all of its rows at once, or whose totals are large.
        """
        by_rows = [metric for metric in self.metrics if metric.shape == "rows"]
        everything = self.metrics if tile.whole else by_rows
        if not devices.at_hand(tile.probs):
            return [(everything, tile)]
        batch, _, rows, _ = tile.probs.shape
        sequences = _share(batch, max(1, PART * batch // max(1, tile.probs.numel())), self.workers.count)
        parts = [tile.select(first, first + sequences) for first in range(0, batch, sequences)]
        small = PART * batch if len(parts) >= self.workers.count else PART // 4
        if tile.probs.numel() <= small:
            return [(everything, part) for part in parts]
        step = _share(rows, max(1, PART * batch * rows // max(1, tile.probs.numel())), self.workers.count)
        uncut = [metric for metric in everything if metric.shape == "sequence" or sums_products(metric)]
        by_rows = [metric for metric in by_rows if metric not in uncut]
        cuts = [part.cut(first, min(first + step, rows)) for part in parts for first in range(0, rows, step)]
        jobs = [*((uncut, part) for part in parts), *((by_rows, cut) for cut in cuts)]
        return [job for job in jobs if job[0]]

    def _without_special(self, tile: AttentionTile) -> AttentionTile:
        if self._special == "drop-queries":
            return tile.without_special_queries()
        if self._special == "drop-keys" and tile.special_keys is not None:
            dropped = _dropped_mass(tile)
            site = tile.site
            self.dropped[site] = self.dropped[site] + dropped if site in self.dropped else dropped
            return tile.without_special_keys()
        return tile


def metrics_of(options: ScanOptions) -> tuple[list[Metric], frozenset[str]]:
    """The metrics and the columns that the options choose."""
    metrics, columns = select((*options.metrics, *PROBED) if options.metrics and options.probe else options.metrics)
    if not options.metrics:
        left = () if options.probe else PROBED
        metrics = [metric for metric in metrics if metric.name not in left and not reads_outputs(metric)]
    if options.approx:
        metrics, columns = estimated(metrics, columns)
    if options.pairs != "none":
        return metrics, columns
    compared = [metric.name for metric in metrics if metric.pairwise]
    if options.metrics and compared:
        raise UsageError("E-OPTION", f"--pairs none leaves out {', '.join(compared)}, which --metrics asks for")
    return [metric for metric in metrics if not metric.pairwise], columns


def wants(site: Site, layers: Collection[int] | None, kind: str | None) -> bool:
    """True for a site of the chosen layers and kind."""
    return (layers is None or site.layer in layers) and kind in (None, site.kind)


def check_choice(sites: list[Site], layers: Collection[int] | None, kinds: Collection[str] | None) -> None:
    """Raise `UsageError` unless each of the layers and kinds, where any are given, is one of these sites."""
    found, numbers = {site.kind for site in sites}, {site.layer for site in sites}
    other = next((kind for kind in kinds or () if kind not in found), None)
    if other is not None:
        raise UsageError("E-KIND", f"the model has no {other} attention", nearest(other, found))
    absent = next((layer for layer in layers or () if layer not in numbers), None)
    if absent is not None:
        raise UsageError("E-LAYERS", f"the model has no layer {absent}", f"Its layers are 0 to {max(numbers)}.")
    if layers is None or kinds is None:  # each of them alone is there
        return
    if not any(site.layer in layers and site.kind in kinds for site in sites):
        raise UsageError("E-LAYERS", "no site is of the kind and the layers asked for")


def _share(count: int, most: int, workers: int) -> int:
    """How many of `count` things go together: `most` at most, in shares as even as can be, some for every worker."""
    shares = max(-(-count // most), min(workers, count))
    shares = -(-shares // workers) * workers if shares > workers else shares
    return -(-count // max(1, min(shares, count)))


# Which are given uniform attention too: theirs does not depend on other heads.
BASELINES = ("entropy", "position", "regions", "induction")
PROBED = ("induction",)  # which see something on repeated tokens alone


def _dropped_mass(tile: AttentionTile) -> PerSequence:
    rows = tile.once(valid_rows)
    return rows.means([(tile.once(places).special, rows.size >= 0)])


def _masks_alone(tile: AttentionTile) -> AttentionTile:
    """What tells which keys a tile's queries see; of a part of a site without its share of the mask."""
    probs = tile.probs.new_empty(*tile.probs.shape[:2], 0, tile.probs.shape[3])
    return replace(tile, probs=probs, source=None, outputs=None, structure=tile.structure if tile.whole else None)


def _same_rows(one: AttentionTile, other: AttentionTile) -> bool:
    """True if two tiles hold the same queries of the same sequences, which see the same keys.

    `one` holds masks alone: its structure too if it is whole.
    """
    if (one.site.kind, one.site.sink, one.start, one.sequences) != (
        other.site.kind, other.site.sink, other.start, other.sequences,
    ):  # fmt: skip
        return False
    if not (_equal(one.key_mask, other.key_mask) and _equal(one.query_mask, other.query_mask)):
        return False
    if one.hides is other.hides and (one.hides is not None or one.structure is other.structure is None):
        return True
    if one.structure is None or other.structure is None or not devices.at_hand(one.structure):
        return False
    return torch.equal(one.support, other.support)


def _equal(one: Tensor, other: Tensor) -> bool:
    if devices.same_memory(one, other):
        return True
    return one.shape == other.shape and devices.at_hand(one) and devices.at_hand(other) and torch.equal(one, other)
