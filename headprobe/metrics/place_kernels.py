"""Compiled loop over where a tile's rows look: each row is read once for all kinds of keys."""

from typing import NamedTuple

import numpy as np
from numba import float32

from headprobe.metrics.kernels import BLOCK, Array, Rows, compiled, start


class Keys(NamedTuple):
    """A tile's keys, [b, key] each, as `places` reads them.

    `positions` are below zero for a key that stands nowhere, `segments` numbers; `special` and `delimiter` are 1 at
    such tokens and 0 elsewhere. Keys are near up to `near` positions away, and far beyond `far`.
    """

    positions: Array
    segments: Array
    special: Array
    delimiter: Array
    near: float
    far: float


@compiled
def places(tile: Rows, keys: Keys, at: Array, own: Array, columns: Array, sums: Array, weights: Array) -> None:
    """Fills `sums` [row, head, (special, delimiter, near, far, segment, distance)]: masses, and Σ p |at - position|.

    `at` [row] is the queries' position and `own` [row] their segment. `weights` [row, head, column] gets the row's
    weight at each key of `columns` [row, column].
    """
    apart, near = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    far, inside = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    close_by, far_off = float32(keys.near), float32(keys.far)
    for r in range(len(tile.rows)):
        b, here, mine = tile.rows[r, 0], at[r], own[r]
        sums[r] = 0
        for first in range(tile.spans[r, 0], tile.spans[r, 1], BLOCK):
            n = min(BLOCK, tile.spans[r, 1] - first)
            where, segment = keys.positions[b, first : first + n], keys.segments[b, first : first + n]
            special, delimiter = keys.special[b, first : first + n], keys.delimiter[b, first : first + n]
            for k in range(n):
                apart[k] = abs(here - where[k]) if where[k] >= 0 else float32(0)
                near[k] = float32(1) if (where[k] >= 0) & (apart[k] <= close_by) else float32(0)
                far[k] = float32(1) if apart[k] > far_off else float32(0)
                inside[k] = float32(1) if segment[k] == mine else float32(0)
            for h in range(tile.heads):
                o = start(tile, r, h) + first
                row = tile.probs[o : o + n]
                marked, point, close = float32(0), float32(0), float32(0)
                remote, same, distance = float32(0), float32(0), float32(0)
                for k in range(n):
                    p = row[k]
                    marked += p * special[k]
                    point += p * delimiter[k]
                    close += p * near[k]
                    remote += p * far[k]
                    same += p * inside[k]
                    distance += p * apart[k]
                into = sums[r, h]
                into[0] += marked
                into[1] += point
                into[2] += close
                into[3] += remote
                into[4] += same
                into[5] += distance
        for h in range(tile.heads):
            row = tile.probs[start(tile, r, h) :]
            for c in range(columns.shape[1]):
                weights[r, h, c] = row[columns[r, c]]
