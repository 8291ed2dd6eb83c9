"""What the metrics cost: by probability, by length, and M1 against the matrix product that defines it."""

import statistics
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Row, Settings, alternate, compared
from benchmarks.pairs import maps_of
from headprobe.collect import PROBED
from headprobe.engine.local import Workers
from headprobe.metrics import METRICS, Metric, reads_outputs
from headprobe.tile import AttentionTile

HEADS, TOKENS = 12, 512
LENGTHS = (512, 1024, 2048, 4096, 8192)
PART = 2**21  # probabilities of a part, as a scan cuts long sequences


def row_metrics() -> list[Metric]:
    """Those of a default scan that look at one query's rows at a time, of any input."""
    rows = (metric for metric in METRICS.values() if metric.shape == "rows" and metric.name not in PROBED)
    return [metric for metric in rows if not reads_outputs(metric)]


def observe(metrics: list[Metric], maps: Tensor) -> None:
    """All of them, on a tile that nothing is known of yet."""
    tile = AttentionTile.of(maps)
    for metric in metrics:
        metric.observe(tile)


def costs(settings: Settings) -> list[Row]:
    """Nanoseconds a probability of each row metric alone and of all, beside torch's logarithm; M1 beside A Aᵀ."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _costs(maps_of(HEADS, TOKENS), settings.repeats)
    finally:
        torch.set_num_threads(threads)


def _costs(maps: Tensor, repeats: int) -> list[Row]:
    rooms = torch.empty_like(maps)
    works: dict[str, Any] = {metric.name: partial(observe, [metric], maps) for metric in row_metrics()}
    works["all row metrics"] = partial(observe, row_metrics(), maps)
    works["log"] = partial(torch.log, maps, out=rooms)
    works["m1"] = partial(observe, [METRICS["redundancy"]], maps)
    works["product"] = partial(torch.matmul, maps, maps.mT, out=rooms)
    times = alternate(works, repeats)
    each = {name: [1e9 * time / maps.numel() for time in found] for name, found in times.items()}
    shape = f"{HEADS} heads × {TOKENS} × {TOKENS}, one thread"
    rows = [
        compared(f"{name}, a probability", f"torch.log of it, {shape}", each[name], each["log"], unit="ns")
        for name in works
        if name not in ("log", "m1", "product")
    ]
    return [*rows, compared(f"M1 of {shape}", "the product AAᵀ, 2n²m each head", times["m1"], times["product"])]


def growth(settings: Settings) -> list[Row]:
    """Row metrics of a layer of 4 heads against the length: the slope of log time over log length.

    One thread: a short sequence is work for one worker alone, and a second one for long ones would flatter the slope.
    """
    lengths, times = LENGTHS[: 3 if settings.quick else None], []
    with Workers(1) as workers:
        for length in lengths:
            maps = torch.softmax(3 * torch.randn(1, 4, length, length), -1)
            found = alternate({"one": partial(_in_parts, maps, workers)}, settings.repeats_of_long)
            times.append(statistics.median(found["one"]))
    exponent = float(np.polyfit(np.log(lengths), np.log(times), 1)[0])
    work = f"row metrics of 4 heads, {lengths[0]:,} to {lengths[-1]:,} tokens, one thread"
    return [Row(work, "the shortest", times[-1], times[0], exponent, reading="exponent", must="≤ 2.1")]


def _in_parts(maps: Tensor, workers: Workers) -> None:
    """All row metrics, as a scan cuts a long sequence for its workers."""
    tile, rows = AttentionTile.of(maps), maps.shape[2]
    step = max(1, PART * rows // maps.numel())
    cuts = [tile.cut(first, min(first + step, rows)) for first in range(0, rows, step)]
    workers.map(_observe_all, cuts)


def _observe_all(tile: AttentionTile) -> None:
    for metric in row_metrics():
        metric.observe(tile)
