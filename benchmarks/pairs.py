"""All pairs of 144 heads over 128 × 128, against the published loop and others like it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.loops import js_distances, kl_bhattacharyya_cosine
from benchmarks.measure import Row, Settings, alternate, compared, seconds
from headprobe.engine.local import Workers
from headprobe.metrics import METRICS
from headprobe.tile import AttentionTile

HEADS, TOKENS = 144, 128
REST = ("kl", "bhattacharyya", "cosine")


def maps_of(heads: int, tokens: int) -> Tensor:
    """Peaked attention [1, head, query, key]."""
    return torch.softmax(3 * torch.randn(1, heads, tokens, tokens, generator=torch.Generator().manual_seed(0)), -1)


def observed(maps: Tensor, names: tuple[str, ...], workers: Workers) -> list[Any]:
    """The metrics' totals of a tile, cut into as many parts of its rows as there are workers."""
    tile, rows = AttentionTile.of(maps), maps.shape[2]
    step = -(-rows // workers.count)
    parts = [tile.cut(first, min(first + step, rows)) for first in range(0, rows, step)]
    totals = workers.map(lambda part: [METRICS[name].observe(part) for name in names], parts)
    return [sum(of_parts[1:], of_parts[0]) for of_parts in map(list, zip(*totals, strict=True))]


def pairs(settings: Settings) -> list[Row]:
    """Ours by one and by two threads."""
    maps = maps_of(HEADS, TOKENS)
    loops = maps[0].numpy()
    with Workers(1) as one, Workers(2) as two:

        def works(names: tuple[str, ...], theirs: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
            ours = {"one": partial(observed, maps, names, one), "two": partial(observed, maps, names, two)}
            return ours | {"theirs": theirs}

        rows = []
        for dtype in ("float64", "float32"):
            given = loops.astype(dtype)
            js = alternate(works(("js",), partial(js_distances, given)), settings.repeats)
            rest = alternate(works(REST, partial(kl_bhattacharyya_cosine, given)), settings.repeats)
            published, numpy = f"published loop, {dtype} maps", f"numpy loops, {dtype} maps"
            rows += [
                _faster("JS of 144 heads, 128 × 128, two threads", published, js, "two", "≥ 60", "120"),
                _faster("JS of 144 heads, 128 × 128, one thread", published, js, "one"),
                _faster("KL, BC, cosine of 144 heads, two threads", numpy, rest, "two", "≥ 100", "300"),
                _faster("KL, BC, cosine of 144 heads, one thread", numpy, rest, "one"),
            ]
    if settings.quick:
        return rows
    stored = [seconds(partial(js_distances, loops.astype("float16")))] * len(js["two"])  # once: it takes a minute
    as_it_is = _faster("JS of 144 heads, 128 × 128, two threads", "published loop, float16 maps as it stores them",
                       js | {"theirs": stored}, "two", "≥ 60", "120")  # fmt: skip
    return [as_it_is, *rows]


def _faster(work: str, against: str, times: dict[str, list[float]], ours: str, must: str = "", aim: str = "") -> Row:
    return compared(work, against, times[ours], times["theirs"], faster=True, must=must, aim=aim)
