"""M0: is it attention at all?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.totals import Worst

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile


@dataclass(frozen=True)
class ValidityTotal:
    """Worst row sum and leak, and counts [head] of zeros and of entries inside the support."""

    worst: Worst
    counts: Tensor

    def __add__(self, other: ValidityTotal) -> ValidityTotal:
        return ValidityTotal(self.worst + other.worst, self.counts + other.counts)


class Validity:
    """Every row must be a distribution over the keys that its query may see; anything else is broken input."""

    name = "validity"
    shape: Shape = "rows"
    pairwise = False
    columns = (
        Column("row_error", "head", "largest distance of a row's sum from one", more="broken input"),
        Column("leak", "head", "largest mass of a row outside its support", "mass", more="broken input"),
        Column("zero_frac", "head", "share of exact zeros inside the support", high=1.0, more="underflow or hard attention"),
    )
    formula = "max |Σₖ a - 1|, max Σ over hidden keys of a, share of a = 0 inside the support"
    baseline = "0"
    source = "own definition"

    def observe(self, tile: AttentionTile) -> ValidityTotal:
        import torch

        rows, support = tile.rows, tile.support[:, None]
        off = (rows.sum(-1) - 1).abs().masked_fill(~tile.query_mask[:, None], 0.0)
        leak = rows.masked_fill(support, 0.0).sum(-1)
        entries = support.sum((0, 2, 3)).expand(rows.shape[1])
        zeros = entries - ((rows > 0) & support).sum((0, 2, 3))
        worst = torch.stack([off.amax((0, 2)), leak.amax((0, 2))], -1)
        return ValidityTotal(Worst(worst.double()), torch.stack([zeros, entries], -1).double())

    def compute(self, total: ValidityTotal) -> Values:
        row_error, leak = total.worst.values.unbind(-1)
        zeros, entries = total.counts.unbind(-1)
        return Values(heads={"row_error": row_error, "leak": leak, "zero_frac": zeros / entries})
