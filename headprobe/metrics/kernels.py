"""Compiled loops over a tile's rows: all heads of a query are read once and compared while they lie in a core's cache.

Torch goes over the probabilities once for every operation, and its logarithms cost two to seven times as much as the
one here. What these loops compute is defined by the torch code of the metrics, which stays as reference and fallback.
They take numpy views, release the interpreter's lock, and sum a row in float32 and rows in float64. A NaN stays a NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import float32, int32, njit
from numpy.typing import NDArray

Loop = TypeVar("Loop", bound=Callable[..., Any])
Array = NDArray[Any]

TINY = float32(1e-37)  # added before a logarithm: below any probability that matters, above float32's denormals
BLOCK = 256  # keys at a time: the rows of some dozen heads and their logarithms then stay in the first cache
OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "nogil": True, "error_model": "numpy"}


class Rows(NamedTuple):
    """A tile's rows as the loops read them.

    `probs` is flat: row t of head h of sequence b starts at b, h, t times `strides`. `seen`, likewise by b and t, is
    True at visible keys. `rows` [row, (b, t)] are the valid ones and `spans` [row, (first, last)] bound the keys that
    matter: the visible ones, or all where mass lies outside.
    """

    probs: Array
    strides: tuple[int, int, int]
    seen: Array
    seen_strides: tuple[int, int]
    rows: Array
    spans: Array
    heads: int
    keys: int


def compiled(function: Loop) -> Loop:
    """The loop as machine code, kept on disk where there is a place to keep it."""
    try:
        loop: Loop = njit(cache=True, **OPTIONS)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        loop = njit(**OPTIONS)(function)
    return loop


def inlined(function: Loop) -> Loop:
    """A function of the loops' own."""
    made: Loop = njit(inline="always", **OPTIONS)(function)
    return made


@inlined
def log(x: Any) -> Any:
    """ln x of a positive normal float32, within 1 ulp or so: no branch and no table, so that loops of it vectorise.

    The exponent comes from the bits; the mantissa in [2/3, 4/3) goes through N. Juffa's polynomial for log1p.
    """
    bits = np.float32(x).view(np.int32)
    exponent = (bits - int32(0x3F2AAAAB)) >> int32(23)
    f = np.int32(bits - (exponent << int32(23))).view(np.float32) - float32(1.0)
    r = float32(-0.130310059) * f + float32(0.140869141)
    r = r * f + float32(-0.121483095)
    r = r * f + float32(0.139814854)
    r = r * f + float32(-0.166846126)
    r = r * f + float32(0.200120345)
    r = r * f + float32(-0.249996200)
    r = r * f + float32(0.333331972)
    r = r * f + float32(-0.5)
    return float32(exponent) * float32(0.693147182) + (r * f * f + f)


@inlined
def start(tile: Any, r: Any, head: Any) -> Any:
    """Where row r of a head begins."""
    return tile.rows[r, 0] * tile.strides[0] + head * tile.strides[1] + tile.rows[r, 1] * tile.strides[2]


@compiled
def span(tile: Rows, r: int, visible: Array) -> tuple[int, int]:
    """Fills `visible` [key] with 1 at the keys that row r may see; returns the first, and the one after the last.

    All keys count where any head has mass outside: nothing that a model does may go missing.
    """
    first = tile.rows[r, 0] * tile.seen_strides[0] + tile.rows[r, 1] * tile.seen_strides[1]
    seen = tile.seen[first : first + tile.keys]
    for k in range(tile.keys):
        visible[k] = seen[k]
    low, high = 0, tile.keys
    while high > 0 and not seen[high - 1]:
        high -= 1
    while low < high and not seen[low]:
        low += 1
    for h in range(tile.heads):
        o = start(tile, r, h)
        mass = float32(0)
        for p in tile.probs[o : o + low]:
            mass += p
        for p in tile.probs[o + high : o + tile.keys]:
            mass += p
        if mass != 0:
            return 0, tile.keys
    return low, high


@compiled
def row_stats(tile: Rows, stats: Array) -> None:
    """Fills `stats` [row, head, (entropy, peak, total, leak, nonzero)] and the tile's spans."""
    visible = np.empty(tile.keys, np.float32)
    for r in range(len(tile.rows)):
        low, high = span(tile, r, visible)
        tile.spans[r, 0], tile.spans[r, 1] = low, high
        weight = visible[low:high]
        for h in range(tile.heads):
            o = start(tile, r, h)
            row = tile.probs[o + low : o + high]
            entropy, total, leak, nonzero, peak = float32(0), float32(0), float32(0), float32(0), int32(0)
            for k in range(high - low):
                p = row[k]
                total += p
                entropy -= p * log(p + TINY)
                leak += p * (float32(1) - weight[k])
                nonzero += float32(1) if p * weight[k] > 0 else float32(0)
                # floats that are not negative are ordered as their bits are, and only integers' maximum vectorises
                peak = max(peak, np.float32(p).view(np.int32))
            stats[r, h, 0] = entropy
            # a NaN with a sign is less than any number there; in the sum it stays
            stats[r, h, 1] = total if np.isnan(total) else np.int32(peak).view(np.float32)
            stats[r, h, 2] = total
            stats[r, h, 3] = leak
            stats[r, h, 4] = nonzero


@compiled
def jensen_shannon(tile: Rows, sums: Array) -> None:
    """Adds to `sums` [b, head, head] above the diagonal, key by key: p ln p + q ln q - (p + q) ln((p + q) / 2).

    Taken together term by term, so that what two like heads have in common cancels before it is summed.
    """
    probs, terms = np.empty((tile.heads, BLOCK), np.float32), np.empty((tile.heads, BLOCK), np.float32)
    for r in range(len(tile.rows)):
        into = sums[tile.rows[r, 0]]
        for first in range(tile.spans[r, 0], tile.spans[r, 1], BLOCK):
            n = min(BLOCK, tile.spans[r, 1] - first)
            for h in range(tile.heads):
                o = start(tile, r, h) + first
                row = tile.probs[o : o + n]
                for k in range(n):
                    probs[h, k] = row[k]
                    terms[h, k] = row[k] * log(row[k] + TINY)
            for g in range(tile.heads):
                for h in range(g + 1, tile.heads):
                    total = float32(0)
                    for k in range(n):
                        mixed = probs[g, k] + probs[h, k]
                        total += terms[g, k] + terms[h, k] - mixed * log(float32(0.5) * mixed + TINY)
                    into[g, h] += total


@compiled
def add_divergences(rows: Array, logs: Array, n: int, into: Array) -> None:
    """Adds to `into` [head, head], off the diagonal, Σ p (ln p - ln q) of `rows` and `logs` [head, :n].

    Two heads with two heads at a time, so that each is read half as often; an odd one with all others.
    """
    heads = len(rows)
    for g in range(0, heads - 1, 2):
        add_divergence(rows, logs, n, g, g + 1, into)
        for h in range(g + 2, heads - 1, 2):
            pr, ps, qr, qs = float32(0), float32(0), float32(0), float32(0)
            rp, sp, rq, sq = float32(0), float32(0), float32(0), float32(0)
            for k in range(n):
                p, q, r, s = rows[g, k], rows[g + 1, k], rows[h, k], rows[h + 1, k]
                a, b, c, d = logs[g, k], logs[g + 1, k], logs[h, k], logs[h + 1, k]
                pr += p * (a - c)
                ps += p * (a - d)
                qr += q * (b - c)
                qs += q * (b - d)
                rp += r * (c - a)
                rq += r * (c - b)
                sp += s * (d - a)
                sq += s * (d - b)
            into[g, h] += pr
            into[g, h + 1] += ps
            into[g + 1, h] += qr
            into[g + 1, h + 1] += qs
            into[h, g] += rp
            into[h, g + 1] += rq
            into[h + 1, g] += sp
            into[h + 1, g + 1] += sq
    if heads % 2:
        for g in range(heads - 1):
            add_divergence(rows, logs, n, g, heads - 1, into)


@compiled
def add_divergence(rows: Array, logs: Array, n: int, g: int, h: int, into: Array) -> None:
    """The same for one pair of heads."""
    forth, back = float32(0), float32(0)
    for k in range(n):
        apart = logs[g, k] - logs[h, k]
        forth += rows[g, k] * apart
        back -= rows[h, k] * apart
    into[g, h] += forth
    into[h, g] += back


@compiled
def kullback_leibler(tile: Rows, sizes: Array, smoothing: float, sums: Array) -> None:
    """Adds to `sums` [b, head, head] KL(row ‖ column) of rows smoothed over their `sizes` [row] visible keys."""
    rows, logs = np.empty((tile.heads, BLOCK), np.float32), np.empty((tile.heads, BLOCK), np.float32)
    kept = float32(1 - smoothing)
    for r in range(len(tile.rows)):
        b, t = tile.rows[r]
        into = sums[b]
        added = float32(smoothing / sizes[r])
        for first in range(tile.spans[r, 0], tile.spans[r, 1], BLOCK):
            n = min(BLOCK, tile.spans[r, 1] - first)
            s = b * tile.seen_strides[0] + t * tile.seen_strides[1] + first
            seen = tile.seen[s : s + n]
            for h in range(tile.heads):
                o = start(tile, r, h) + first
                row = tile.probs[o : o + n]
                for k in range(n):
                    smooth = row[k] * kept + added * float32(seen[k]) + TINY
                    rows[h, k] = smooth
                    logs[h, k] = log(smooth)
            add_divergences(rows, logs, n, into)


@compiled
def find_meetings(massive: Array, empty: Array, n: int, found: Array) -> None:
    """Sets `found` [head, head] where of the first n keys one is `massive` for the first and `empty` for the second."""
    for g in range(len(found)):
        for h in range(len(found)):
            if not found[g, h]:
                keys = float32(0)
                for k in range(n):
                    keys += massive[g, k] * empty[h, k]
                found[g, h] = keys > 0


@compiled
def infinite(tile: Rows, counts: Array) -> None:
    """Adds 1 to `counts` [b, head, head] where the unsmoothed KL(row ‖ column) of a row is infinite.

    That is where one head has mass on a visible key on which the other has none.
    """
    massive, empty = np.empty((tile.heads, BLOCK), np.float32), np.empty((tile.heads, BLOCK), np.float32)
    found = np.empty((tile.heads, tile.heads), np.bool_)
    for r in range(len(tile.rows)):
        b, t = tile.rows[r]
        found[:] = False
        for first in range(tile.spans[r, 0], tile.spans[r, 1], BLOCK):
            n = min(BLOCK, tile.spans[r, 1] - first)
            s = b * tile.seen_strides[0] + t * tile.seen_strides[1] + first
            seen = tile.seen[s : s + n]
            for h in range(tile.heads):
                o = start(tile, r, h) + first
                row = tile.probs[o : o + n]
                for k in range(n):
                    mass = float32(1) if row[k] > 0 else float32(0)
                    massive[h, k] = mass * float32(seen[k])
                    empty[h, k] = (float32(1) - mass) * float32(seen[k])
            find_meetings(massive, empty, n, found)
        counts[b] += found
