"""M6: the Bhattacharyya coefficient of heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.fused import loops
from headprobe.metrics.shared import valid_rows
from headprobe.metrics.totals import PairSums

if TYPE_CHECKING:
    from headprobe.tile import AttentionTile


class Bhattacharyya:
    """BC = Σ √(pq) of two heads' rows of the same query: 1 for the same row, 0 for disjoint ones."""

    name = "bhattacharyya"
    shape: Shape = "rows"
    pairwise = True
    columns = (Column("bc", "pair", "mean Bhattacharyya coefficient of the two heads' rows", high=1.0, more="alike"),)
    formula = "bc = mean over t of Σₖ √(p q); Hellinger distance² = 1 - bc"
    baseline = "1 (uniform heads are the same head)"
    source = "Bhattacharyya 1943; for heads: Bian et al. 2021"

    def observe(self, tile: AttentionTile) -> PairSums:
        rows, compiled = tile.once(valid_rows), tile.once(loops)
        if compiled is not None:
            return rows.pairs([compiled.bhattacharyya()])
        roots = rows.probs.sqrt()
        return rows.pairs([rows.by_sequence(roots @ roots.mT * rows.comparable[:, None, None])])

    def compute(self, total: PairSums) -> Values:
        return Values(pairs={"bc": total.mean()[0].clamp(max=1.0)})
