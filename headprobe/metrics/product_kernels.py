"""Compiled loops over the dot products of heads' rows."""

import math

import numpy as np
from numba import float32

from headprobe.metrics.kernels import BLOCK, Array, Rows, compiled, start


@compiled
def add_products(rows: Array, n: int, into: Array) -> None:
    """Adds to `into` [head, head], on and above the diagonal, the dot products of `rows` [head, :n].

    Two heads with two heads at a time, so that each is read half as often.
    """
    heads = len(rows)
    for g in range(0, heads - 1, 2):
        first, both, second = float32(0), float32(0), float32(0)
        for k in range(n):
            p, q = rows[g, k], rows[g + 1, k]
            first += p * p
            both += p * q
            second += q * q
        into[g, g] += first
        into[g, g + 1] += both
        into[g + 1, g + 1] += second
        for h in range(g + 2, heads - 1, 2):
            pr, ps, qr, qs = float32(0), float32(0), float32(0), float32(0)
            for k in range(n):
                p, q, r, s = rows[g, k], rows[g + 1, k], rows[h, k], rows[h + 1, k]
                pr += p * r
                ps += p * s
                qr += q * r
                qs += q * s
            into[g, h] += pr
            into[g, h + 1] += ps
            into[g + 1, h] += qr
            into[g + 1, h + 1] += qs
    if heads % 2:
        for g in range(heads):
            total = float32(0)
            for k in range(n):
                total += rows[g, k] * rows[heads - 1, k]
            into[g, heads - 1] += total


@compiled
def bhattacharyya(tile: Rows, sums: Array) -> None:
    """Adds to `sums` [b, head, head] Σ √(pq), on and above the diagonal."""
    roots = np.empty((tile.heads, BLOCK), np.float32)
    for r in range(len(tile.rows)):
        into = sums[tile.rows[r, 0]]
        for first in range(tile.spans[r, 0], tile.spans[r, 1], BLOCK):
            n = min(BLOCK, tile.spans[r, 1] - first)
            for h in range(tile.heads):
                o = start(tile, r, h) + first
                row = tile.probs[o : o + n]
                for k in range(n):
                    roots[h, k] = math.sqrt(row[k])
            add_products(roots, n, into)


@compiled
def head_gram(tile: Rows, r: int, rows: Array, gram: Array) -> None:
    """Fills `gram` [head, head] with the heads' dot products at row r. `rows` [head, BLOCK] is room to work in."""
    gram[:] = 0
    for first in range(tile.spans[r, 0], tile.spans[r, 1], BLOCK):
        n = min(BLOCK, tile.spans[r, 1] - first)
        for h in range(tile.heads):
            o = start(tile, r, h) + first
            rows[h, :n] = tile.probs[o : o + n]
        add_products(rows, n, gram)
    for g in range(tile.heads):
        for h in range(g):
            gram[g, h] = gram[h, g]


@compiled
def overlaps(tile: Rows, compared: Array, cosines: Array, squares: Array, shares: Array) -> None:
    """From the Gram G of the heads' rows of each query: `shares` [row, head] is the sum over heads of (G - I)².

    Adds the cosines and their squares to `cosines` and `squares` [b, head, head], on and above the diagonal, where
    `compared` [row] says so.
    """
    rows, gram = np.empty((tile.heads, BLOCK), np.float32), np.empty((tile.heads, tile.heads), np.float32)
    inverse = np.empty(tile.heads, np.float32)
    for r in range(len(tile.rows)):
        b = tile.rows[r, 0]
        head_gram(tile, r, rows, gram)
        for g in range(tile.heads):
            inverse[g] = float32(1) / math.sqrt(gram[g, g])
        for g in range(tile.heads):
            share = float32(0)
            for h in range(tile.heads):
                distance = gram[g, h] - float32(g == h)
                share += distance * distance
            shares[r, g] += share
            if compared[r]:
                into, square = cosines[b, g], squares[b, g]
                for h in range(g, tile.heads):
                    cosine = gram[g, h] * (inverse[g] * inverse[h])
                    into[h] += cosine
                    square[h] += cosine * cosine
