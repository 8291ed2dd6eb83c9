"""M13: what a head looks at once each key counts by how much it has to say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.outputs import projection_of, values_of
from headprobe.metrics.places import places
from headprobe.metrics.shared import head_values, row_stats, valid_rows
from headprobe.metrics.totals import PerSequence

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile


class NormWeighted:
    """Attention weighted with the norm of what it moves, ‖α f(x)‖ with f(x) = v W_O, as shares of each query's sum.

    A head may look at [SEP] and take next to nothing from it; here such a key has next to no share. Queries to which no
    key gives anything are left out.
    """

    name = "norms"
    shape: Shape = "rows"
    pairwise = False
    outputs = True
    columns = (
        Column("norm_sum", "head", "mean over queries of Σ ‖α f(x)‖", more="moves more", paired=True),
        Column("norm_entropy", "head", "mean entropy of the shares", "nats", more="diffuse", paired=True),
        Column("norm_confidence", "head", "mean of the largest share", high=1.0, more="peaked", paired=True),
        Column("norm_self", "head", "share of the query's own position", high=1.0, more="looks at itself", paired=True),
        Column("norm_first", "head", "share of the first position", high=1.0, more="attention sink", paired=True),
        Column(
            "norm_special", "head", "share of special tokens", high=1.0, more="looks at special tokens", paired=True
        ),
    )
    formula = "share = α[i, k] ‖v_k W_O‖ / Σⱼ α[i, j] ‖v_j W_O‖; its entropy, maximum and masses, means over queries"
    baseline = "none: it depends on the values"
    source = "Kobayashi et al. 2020"

    def observe(self, tile: AttentionTile) -> PerSequence:
        weighted = tile.probs.double() * key_norms(tile)[:, :, None]
        moved = weighted.sum(-1, keepdim=True)
        counted = tile.query_mask & (moved[..., 0] > 0).all(1)
        shares = (weighted / moved).to(tile.probs.dtype)
        known = replace(tile.known, full=False)
        seen = replace(tile, probs=shares, query_mask=counted, known=known, source=None, outputs=None)
        rows, stats, where = seen.once(valid_rows), seen.once(row_stats), seen.once(places)
        every = rows.size >= 0
        own, _, _, first, _ = where.weights.unbind(-1)
        return rows.means(
            [
                (rows.values(moved[..., 0].transpose(1, 2)), every),
                (stats.entropy, every),
                (stats.peak, every),
                (own, every & tile.aligned & where.there[:, 0]),
                (first, where.there[:, 3]),
                (where.special, every & (tile.special_keys is not None)),
            ]
        )

    def compute(self, total: PerSequence) -> Values:
        return head_values(self.columns, total)


def key_norms(tile: AttentionTile) -> Tensor:
    """[batch, head, key] float64: ‖f(x_k)‖ = (v_k W_O W_Oᵀ v_kᵀ)^½, zeros at padding."""
    import torch

    values = values_of(tile).double()
    values = values.masked_fill(~tile.key_mask[:, None, :, None], 0.0)  # padding may be no number
    shared = tile.site.heads // values.shape[1]
    grams = projection_of(tile).grams.to(values.device)
    by_head = [((v := values[:, head // shared]) @ gram * v).sum(-1) for head, gram in enumerate(grams)]
    return torch.stack(by_head, 1).clamp(min=0).sqrt()
