"""M8: how spread out a head's attention is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.shared import head_values, row_stats, valid_rows
from headprobe.metrics.totals import PerSequence

if TYPE_CHECKING:
    from headprobe.tile import AttentionTile


class Entropy:
    """Entropy of each query's row, what it amounts to in keys, and the largest weight."""

    name = "entropy"
    shape: Shape = "rows"
    pairwise = False
    columns: tuple[Column, ...] = (
        Column("entropy", "head", "mean entropy of a row", "nats", more="diffuse", paired=True),
        Column("entropy_norm", "head", "mean of entropy / ln s, s visible keys", high=1.0, more="diffuse", paired=True),
        Column("eff_keys", "head", "mean of exp(entropy)", "keys", low=1.0, more="diffuse"),
        Column(
            "confidence", "head", "mean of the largest weight of a row", "mass", high=1.0, more="peaked", paired=True
        ),
    )
    formula = "H = -Σ p ln p; entropy_norm = H / ln s; eff_keys = exp H; confidence = max p; means over queries"
    baseline = "entropy ln s, eff_keys s, confidence 1/s, each averaged over the queries; entropy_norm 1"
    source = "Clark et al. 2019, §3.3; confidence: Voita et al. 2019, §4"

    def observe(self, tile: AttentionTile) -> PerSequence:
        rows, stats = tile.once(valid_rows), tile.once(row_stats)
        entropy = stats.entropy
        most = rows.size.clamp(min=2).to(entropy.dtype).log()
        every = rows.size >= 0
        return rows.means(
            [
                (entropy, every),
                (entropy / most[:, None], rows.comparable),
                (entropy.exp(), every),
                (stats.peak, every),
            ]
        )

    def compute(self, total: PerSequence) -> Values:
        return head_values(self.columns, total)
