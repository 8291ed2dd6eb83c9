"""M6: cosine similarity of heads, query by query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.shared import head_overlaps, mean_of_pairs, valid_rows
from headprobe.metrics.totals import PairSums

if TYPE_CHECKING:
    from headprobe.tile import AttentionTile


class Cosine:
    """Cosine of two heads' rows of the same query, mean over queries that see at least two keys."""

    name = "cosine"
    shape: Shape = "rows"
    pairwise = True
    columns = (
        Column("cos", "pair", "mean cosine of the two heads' rows", high=1.0, more="alike"),
        Column("rcos_heads", "layer", "mean squared cosine of two heads' rows", high=1.0, more="redundant"),
    )
    formula = "cos = mean over t of a_g·a_h / (‖a_g‖ ‖a_h‖); rcos_heads = mean over g ≠ h and t of its square"
    baseline = "1 (uniform heads are the same head)"
    source = "Kovaleva et al. 2019, §4.3, taken query by query"

    def observe(self, tile: AttentionTile) -> PairSums:
        cosines, squares, _ = tile.once(head_overlaps)
        return tile.once(valid_rows).pairs([cosines, squares])

    def compute(self, total: PairSums) -> Values:
        cosine, square = total.mean()
        return Values(layers={"rcos_heads": mean_of_pairs(square)}, pairs={"cos": cosine.clamp(max=1.0)})
