"""How far apart two models' attention is on the same inputs: the same head's, or every head's of one with the other's.

The base's attention of one batch is held until the other model has run on it: all layers at once, within the budget.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor

from headprobe import devices
from headprobe.across import pooled
from headprobe.errors import EnvironmentFailure, InputError
from headprobe.metrics.js import js_sums
from headprobe.metrics.totals import PairSums
from headprobe.tile import AttentionTile, Site

Place = tuple[str, str, int, int]  # tower, kind, layer, and the how-many-eth such site
Key = tuple[Place, int, int]
Rows = dict[Site, list[AttentionTile]]


@dataclass
class HeadDrift:
    """Sums over queries that see at least two keys: `js` and `tv` [head], and how many there were."""

    site: Site
    js: Tensor
    tv: Tensor
    queries: Tensor


class Places:
    """Where the tiles of one model stand in it, whatever its modules are called."""

    def __init__(self) -> None:
        self._sites: dict[tuple[str, str, int], list[int]] = defaultdict(list)
        self._seen: Counter[tuple[Place, int]] = Counter()

    def key(self, tile: AttentionTile) -> Key:
        """The place of a tile's site, its first row, and which of several such tiles of this batch it is."""
        site = tile.site
        known = self._sites[site.tower, site.kind, site.layer]
        if site.index not in known:
            known.append(site.index)
        place = (site.tower, site.kind, site.layer, known.index(site.index))
        self._seen[place, tile.start] += 1
        return place, tile.start, self._seen[place, tile.start]

    def clear(self) -> None:
        """The next tiles are of another batch."""
        self._seen.clear()


class Held:
    """The attention of one batch."""

    def __init__(self, most: int) -> None:
        self.tiles: dict[Key, AttentionTile] = {}
        self._most = most
        self._bytes = 0
        self._places = Places()

    def hold(self, tile: AttentionTile) -> None:
        """Keep a tile. Raises `EnvironmentFailure` where the budget does not suffice."""
        self._bytes += tile.probs.numel() * tile.probs.element_size()
        if self._bytes > self._most:
            raise EnvironmentFailure(
                "E-MEMORY",
                f"a comparison holds all layers of a batch at once: over {self._bytes:,} bytes here",
                "Lower --batch-size or --max-length, choose --layers, or raise --max-memory.",
            )
        self.tiles[self._places.key(tile)] = replace(
            tile, outputs=None, source=None
        )  # which would keep queries and keys

    def clear(self) -> None:
        """Forget the batch."""
        self.tiles.clear()
        self._places.clear()
        self._bytes = 0


class Drift:
    """The drift of each head, from tiles of the base (`before`) and of the other model on the same batch (`after`)."""

    def __init__(self, most: int) -> None:
        self.heads: dict[Place, HeadDrift] = {}
        self._base, self._places = Held(most), Places()

    def before(self, tile: AttentionTile) -> None:
        """A tile of the base."""
        self._base.hold(tile)

    def after(self, tile: AttentionTile) -> None:
        """A tile of the other model: compared with the base's, which is then let go."""
        key = self._places.key(tile)
        base = self._base.tiles.pop(key, None)
        if base is None or base.probs.shape != tile.probs.shape:
            raise InputError(
                "E-SHAPES",
                f"{tile.site.path} has no counterpart of its shape in the base",
                "Models of different shapes are compared with --match.",
            )
        js, tv, queries = _distances(base, tile)
        known = self.heads.get(key[0])
        if known is None:
            self.heads[key[0]] = HeadDrift(base.site, js, tv, queries)
        else:
            self.heads[key[0]] = HeadDrift(known.site, known.js + js, known.tv + tv, known.queries + queries)

    def end(self) -> None:
        """The batch is over. Raises `InputError` where the other model lacks a layer of the base."""
        if self._base.tiles:
            lost = next(iter(self._base.tiles.values())).site
            raise InputError("E-SHAPES", f"{lost.path} of the base has no counterpart", "Compare the two with --match.")
        self._base.clear()
        self._places.clear()

    def table(self) -> pd.DataFrame:
        """A row a head: `site path tower kind layer head js tv`; JS in nats, total variation in [0, 1]."""
        rows = []
        for drift in sorted(self.heads.values(), key=lambda drift: drift.site.index):
            site, count = drift.site, int(drift.queries) or float("nan")
            named = {"site": site.index, "path": site.path, "tower": site.tower, "kind": site.kind, "layer": site.layer}
            pairs = zip(drift.js.tolist(), drift.tv.tolist(), strict=True)
            rows += [named | {"head": head, "js": js / count, "tv": tv / count} for head, (js, tv) in enumerate(pairs)]
        return pd.DataFrame(rows, columns=["site", "path", "tower", "kind", "layer", "head", "js", "tv"])


def _distances(base: AttentionTile, tuned: AttentionTile) -> tuple[Tensor, Tensor, Tensor]:
    """Sums [head] of JS and of total variation over queries that see at least two keys, one sequence at a time.

    JS is taken term by term against the mean of the two, so that it is exactly 0 for equal rows. The sums lie where the
    base does, and on an accelerator rows that don't count are zeroed instead of left out, which would wait for it.
    """
    device = base.probs.device
    theirs, size = tuned.query_mask.to(device), tuned.support_size.to(device)
    counted = base.query_mask & theirs & (base.support_size.maximum(size) >= 2)
    js = torch.zeros(base.site.heads, dtype=torch.float64, device=device)
    tv = torch.zeros_like(js)
    for number, mask in enumerate(counted):
        both = base.probs[number], tuned.probs[number].to(device)
        p, q = (each[:, mask] if devices.at_hand(each) else each.where(mask[:, None], 0.0) for each in both)
        mean = (p + q) / 2
        terms = torch.xlogy(p, p) - torch.xlogy(p, mean) + torch.xlogy(q, q) - torch.xlogy(q, mean)
        js += terms.sum(-1).clamp(min=0).sum(-1, dtype=torch.float64) / 2
        tv += (p - q).abs().sum(-1).sum(-1, dtype=torch.float64) / 2
    return js, tv, counted.sum()


class Matching:
    """JS of every head of one model with every head of the other, for models whose heads do not correspond."""

    def __init__(self, most: int) -> None:
        self.sums: dict[tuple[str, str], PairSums] = {}
        self.sides: dict[tuple[str, str], tuple[list[Site], list[Site]]] = {}
        self._base, self._tuned = Held(most), Held(most)

    def before(self, tile: AttentionTile) -> None:
        """A tile of the base."""
        self._base.hold(tile)

    def after(self, tile: AttentionTile) -> None:
        """A tile of the other model."""
        self._tuned.hold(tile)

    def end(self) -> None:
        """The batch is over: compare its heads, kind by kind. Raises `InputError` where they see different keys."""
        kinds = {(place[0], place[1]) for place, _, _ in self._base.tiles}
        for tower, kind in sorted(kinds):
            towers = {place[0] for place, _, _ in self._tuned.tiles if place[1] == kind}
            there = tower if tower in towers or len(towers) != 1 else next(iter(towers))
            self._compare((tower, kind), _rows(self._base, tower, kind), _rows(self._tuned, there, kind))
        self._base.clear()
        self._tuned.clear()

    def _compare(self, key: tuple[str, str], ours: Rows, theirs: Rows) -> None:
        if not theirs:
            raise InputError("E-SHAPES", f"the other model has no {key[1]} attention to match")
        sides = [*ours], [*theirs]
        several = [*ours.values(), *theirs.values()]
        alike = len({tuple(row.sequences for row in rows) for rows in several}) == 1
        if not alike or self.sides.setdefault(key, sides) != sides:
            raise InputError("E-SHAPES", f"not all {key[1]} attention was called equally often")
        for rows in zip(*several, strict=True):
            with devices.Arithmetic.exact().used():
                seen = js_sums(pooled(list(rows)))
            known = self.sums.get(key)
            self.sums[key] = seen if known is None else known + seen

    def tables(self) -> list[pd.DataFrame]:
        """For each kind of attention JS [head of the base, head of the other], labelled by site, layer and head."""
        tables = []
        for key, total in self.sums.items():
            base, tuned = ([(s.index, s.layer, h) for s in sites for h in range(s.heads)] for sites in self.sides[key])
            js = total.mean()[0, : len(base), len(base) :].clamp(min=0).cpu().numpy()
            labels = [pd.MultiIndex.from_tuples(side, names=["site", "layer", "head"]) for side in (base, tuned)]
            tables.append(pd.DataFrame(js, index=labels[0], columns=labels[1]))
        return tables


def _rows(held: Held, tower: str, kind: str) -> Rows:
    """The sequences of each site of a kind, one by one: models of more heads are cut into smaller parts of a batch."""
    found = {key: tile for key, tile in held.tiles.items() if key[0][:2] == (tower, kind)}
    if any(not tile.whole for tile in found.values()):
        raise EnvironmentFailure("E-MEMORY", "heads are matched over whole layers", "Raise --max-memory.")
    rows: Rows = {}
    for _, tile in sorted(found.items(), key=lambda each: (each[1].site.index, each[0][2])):
        rows.setdefault(tile.site, []).extend(tile.select(row, row + 1) for row in range(len(tile.probs)))
    return rows
