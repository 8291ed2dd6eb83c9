"""M14: how alike what heads write to the residual stream is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headprobe.metrics.cka import ratio
from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.outputs import OutputSums, output_sums, projection_of

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.outputs import Projection
    from headprobe.tile import AttentionTile


@dataclass(frozen=True)
class Written:
    """Sums of what a site's heads give, and by what they write it."""

    sums: OutputSums
    projection: Projection

    def __add__(self, other: Written) -> Written:
        return Written(self.sums + other.sums, self.projection)


class OutputCosine:
    """Cosine of what two heads write to the residual stream, o = z W_O, over the queries of all sequences at once.

    1 where one writes a multiple of what the other does, below 0 where it takes that away, 0 where they write to
    different directions. Centred, it leaves out what a head writes whatever the query. The projection's bias is no
    head's.
    """

    name = "ocos"
    shape: Shape = "rows"
    pairwise = True
    outputs = True
    columns = (
        Column("ocos", "pair", "cosine of what the two heads write", low=-1.0, high=1.0, more="alike"),
        Column("ocos_centred", "pair", "the same without the mean of each", low=-1.0, high=1.0, more="alike"),
    )
    formula = "⟨o_g, o_h⟩_F / (‖o_g‖_F ‖o_h‖_F), o_h [query, width] = z_h W_O^h; from ZᵀZ and W_O"
    baseline = "none: heads of uniform attention write means of their own values"
    source = "own definition, of the outputs that Li et al. 2018 tell apart (D_out), after W_O"

    def observe(self, tile: AttentionTile) -> Written:
        return Written(tile.once(output_sums), projection_of(tile))

    def compute(self, total: Written) -> Values:
        sums = total.sums.centred()
        weights = total.projection.weights().to(sums.second.device)
        means = (sums.by_head(sums.at)[:, None] @ weights).squeeze(1)  # [head, width]
        centred = written_products(sums, weights)
        products = centred + sums.count * means @ means.T
        nothing = sums.count < 1
        return Values(
            pairs={
                "ocos": ratio(products, nothing).clamp(-1.0, 1.0),
                "ocos_centred": ratio(centred, nothing | sums.constant()).clamp(-1.0, 1.0),
            }
        )


def written_products(sums: OutputSums, weights: Tensor) -> Tensor:
    """[head, head]: Σ over queries of (z_g - at_g) W_g · (z_h - at_h) W_h, a head at a time: tr C_gh W_h W_gᵀ."""
    import torch

    every = weights.flatten(0, 1).T  # [width, head · feature]
    return torch.stack(
        [
            sums.by_head(block * (mine @ every)).sum((0, 2))
            for mine, block in zip(weights, sums.blocks().flatten(2), strict=True)
        ]
    )
