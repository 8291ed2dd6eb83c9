"""M5: Jensen-Shannon divergence between heads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.fused import loops
from headprobe.metrics.shared import floored, mean_of_pairs, row_stats, valid_rows
from headprobe.metrics.totals import PairSums

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile

BLOCK = 2**18  # elements a step: its few buffers then stay in a core's cache
DEVICE_BLOCK = 2**25  # where a step costs a launch, and memory is fast


class JensenShannon:
    """JS(g, h) = H((p + q)/2) - H(p)/2 - H(q)/2 of two heads' rows of one query: bounded, symmetric, unsmoothed."""

    name = "js"
    shape: Shape = "rows"
    pairwise = True
    columns = (
        Column(
            "js_mean",
            "head",
            "mean over the site's other heads of JS",
            "nats",
            high=math.log(2),
            more="different",
            paired=True,
        ),
        Column("js_mean", "layer", "mean over pairs of heads", "nats", high=math.log(2), more="different"),
        Column(
            "js",
            "pair",
            "mean Jensen-Shannon divergence of the two heads' rows",
            "nats",
            high=math.log(2),
            more="different",
        ),
    )
    formula = "JS = mean over t of H((p + q)/2) - H(p)/2 - H(q)/2"
    baseline = "0 (uniform heads are the same head)"
    source = "Lin 1991; for heads: Clark et al. 2019, §6, there smoothed and summed"

    def observe(self, tile: AttentionTile) -> PairSums:
        return tile.once(js_sums)

    def compute(self, total: PairSums) -> Values:
        js = js_matrix(total)
        return Values(
            heads={"js_mean": total.rows.mean()[:, 0].clamp(min=0.0)},
            layers={"js_mean": mean_of_pairs(js)},
            pairs={"js": js},
            sequences={"js_mean": total.rows.means()[..., 0].clamp(min=0.0)},
            numbers=total.rows.numbers,
        )


def js_matrix(total: PairSums) -> Tensor:
    """[head, head]: mean JS in [0, ln 2]; rounding can leave identical heads a hair below zero."""
    return total.mean()[0].clamp(min=0.0, max=math.log(2))


def js_sums(tile: AttentionTile) -> PairSums:
    """Sums of JS over comparable queries: one logarithm per element and unordered pair.

    JS = ln 2 (|p| + |q|)/2 - Σ (p + q) ln(p + q) / 2 - (H(p) + H(q))/2, row by row.
    """
    rows, compiled = tile.once(valid_rows), tile.once(loops)
    if compiled is not None:
        return rows.pairs([compiled.jensen_shannon()], keep=True)
    _, heads, keys = rows.probs.shape
    step = max(1, (BLOCK if rows.picked else DEVICE_BLOCK) // (heads * keys))
    known = math.log(2) * rows.probs.sum(-1) - tile.once(row_stats).entropy  # [row, head]
    probs = tile.once(floored)
    mixtures = _mixtures_with_gradients(probs) if probs.requires_grad else _mixtures(probs, step)
    js = known[:, :, None] + known[:, None, :] - mixtures
    js = 0.5 * js * rows.comparable[:, None, None]
    js.diagonal(dim1=-2, dim2=-1).zero_()
    return rows.pairs([rows.by_sequence(js)], keep=True)


def _mixtures(probs: Tensor, step: int) -> Tensor:
    """[row, head, head]: Σ (p + q) ln(p + q), `step` rows at a time in two buffers that are used again and again."""
    import torch

    count, heads, keys = probs.shape
    sums = probs.new_zeros(count, heads, heads)
    buffers = probs.new_empty(2, step * (heads - 1) * keys)
    for start in range(0, count, step):
        block = probs[start : start + step]
        for g in range(heads - 1):
            shape = (len(block), heads - 1 - g, keys)
            size = shape[0] * shape[1] * shape[2]
            mixed, logs = (buffer[:size].view(shape) for buffer in buffers)
            torch.add(block[:, g : g + 1], block[:, g + 1 :], out=mixed)
            torch.log(mixed, out=logs).mul_(mixed)
            torch.sum(logs, -1, out=sums[start : start + step, g, g + 1 :])
    return sums + sums.mT


def _mixtures_with_gradients(probs: Tensor) -> Tensor:
    """The same, with gradients: mixtures are made again for them, so that not those of all pairs are held at once."""
    import torch
    from torch.nn.functional import pad
    from torch.utils.checkpoint import checkpoint

    heads = probs.shape[1]
    sums = [probs.new_zeros(len(probs), heads)] * heads
    for g in range(heads - 1):
        later = checkpoint(_mixed, probs[:, g : g + 1], probs[:, g + 1 :], use_reentrant=False)
        sums[g] = pad(later, (g + 1, 0))
    upper = torch.stack(sums, 1)
    return upper + upper.mT


def _mixed(one: Tensor, others: Tensor) -> Tensor:
    """[row, other]: Σ (p + q) ln(p + q)."""
    mixed = one + others
    total: Tensor = (mixed * mixed.log()).sum(-1)
    return total
