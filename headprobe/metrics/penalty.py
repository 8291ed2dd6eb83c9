"""M2: across-head redundancy, the penalty of Lin et al. 2017, with each head's share of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.shared import head_overlaps, valid_rows
from headprobe.metrics.totals import PerSequence

if TYPE_CHECKING:
    from headprobe.tile import AttentionTile


class Penalty:
    """‖A_t A_tᵀ - I‖_F² of each query t, where A_t holds the heads' rows of that query.

    With fewer keys than heads the heads can't be disjoint, so only queries that see at least as many keys as there
    are heads count.
    """

    name = "penalty"
    shape: Shape = "rows"
    pairwise = False
    columns = (
        Column("aat_heads_share", "head", "the head's additive share of aat_heads", more="redundant", paired=True),
        Column("aat_heads", "layer", "‖AAᵀ - I‖_F² across heads, mean over queries", more="redundant"),
        Column("aat_heads_queries", "layer", "queries that see enough keys to count for aat_heads", "queries"),
    )
    formula = "G_t = A_t A_tᵀ [head, head]; aat_heads = mean over t of ‖G_t - I‖_F²; share of h = its row's sum"
    baseline = "H²/s² - 2H/s + H when all H heads are uniform over s keys"
    source = "Lin et al. 2017, eq. 8"

    def observe(self, tile: AttentionTile) -> PerSequence:
        rows = tile.once(valid_rows)
        _, _, distance = tile.once(head_overlaps)
        return rows.means([(distance, rows.size >= tile.probs.shape[1])])

    def compute(self, total: PerSequence) -> Values:
        shares = total.mean()[:, 0]
        queries = total.counts[0, 0]
        return Values(
            heads={"aat_heads_share": shares},
            layers={"aat_heads": shares.sum(), "aat_heads_queries": queries},
            sequences={"aat_heads_share": total.means()[..., 0]},
            numbers=total.numbers,
        )
