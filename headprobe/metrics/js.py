"""M5: Jensen-Shannon divergence between heads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.shared import TINY, comparable, mean_of_pairs, pair_sums, row_entropy
from headprobe.metrics.totals import PairSums

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile

BLOCK = 2**18  # elements a step: its few buffers then stay in a core's cache


class JensenShannon:
    """JS(g, h) = H((p + q)/2) - H(p)/2 - H(q)/2 of two heads' rows of the same query; bounded, symmetric, no smoothing."""

    name = "js"
    shape: Shape = "rows"
    pairwise = True
    columns = (
        Column("js_mean", "head", "mean over the site's other heads of JS", "nats", high=math.log(2), more="different", paired=True),
        Column("js_mean", "layer", "mean over pairs of heads", "nats", high=math.log(2), more="different"),
        Column("js", "pair", "mean Jensen-Shannon divergence of the two heads' rows", "nats", high=math.log(2), more="different"),
    )  # fmt: skip
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
    import torch

    rows, where = tile.rows, comparable(tile).to(tile.probs.dtype)
    batch, heads, queries, keys = rows.shape
    known = math.log(2) * rows.sum(-1) - tile.once(row_entropy)  # [batch, head, query]
    sums = torch.zeros(batch, 1, heads, heads, dtype=torch.float64, device=rows.device)
    step = max(1, BLOCK // (heads * keys))
    for b in range(batch):
        for start in range(0, queries, step):
            part = slice(start, start + step)
            block, weight = rows[b, :, part], where[b, part]
            for g in range(heads - 1):
                mixed = block[g] + block[g + 1 :]
                mixture = (mixed + TINY).log_().mul_(mixed).sum(-1)
                js = (known[b, g, part] + known[b, g + 1 :, part] - mixture) * 0.5
                sums[b, 0, g, g + 1 :] += (js * weight).sum(-1, dtype=torch.float64)
    return pair_sums(tile, sums + sums.mT)
