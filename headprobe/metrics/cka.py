"""M14: how alike what heads give is, whatever they look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.outputs import OutputSums, output_sums

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile

FEWEST = 4  # queries that the unbiased estimate needs
NOTHING = 1e-12  # of the terms whose difference an estimate is: what rounding leaves of no difference


class CKA:
    """Linear CKA of two heads' outputs z = A V before the output projection, over the queries of all sequences.

    1 where one head's outputs are the other's, rotated and scaled; 0 where none of their features correlate. The
    second column is without the bias that many features give few queries; it can fall below 0. Empty for a head that
    gives the same for every query.
    """

    name = "cka"
    shape: Shape = "rows"
    pairwise = True
    outputs = True
    columns = (
        Column("cka", "pair", "linear CKA of the two heads' outputs", high=1.0, more="alike"),
        Column("cka_unbiased", "pair", "linear CKA, unbiased for few queries", low=-1.0, high=1.0, more="alike"),
    )
    formula = (
        "cka = ‖Z_gᵀZ_h‖²_F / (‖Z_gᵀZ_g‖_F ‖Z_hᵀZ_h‖_F), Z centred [query, feature];"
        " unbiased: the same ratio of HSIC₁ = (tr K̃L̃ + 1ᵀK̃1 1ᵀL̃1 / ((n-1)(n-2)) - 2/(n-2) 1ᵀK̃L̃1) / (n(n-3)),"
        " K̃ = ZZᵀ without its diagonal"
    )
    baseline = "none: heads of uniform attention give means of their own values"
    source = "Kornblith et al. 2019; unbiased: Song et al. 2012, Nguyen et al. 2021"

    def observe(self, tile: AttentionTile) -> OutputSums:
        return tile.once(output_sums)

    def compute(self, total: OutputSums) -> Values:
        sums = total.centred()
        undefined = sums.constant() | (total.count < 2)
        products, unbiased = sums.blocks().square().sum((1, 3)), hsic(sums)
        nothing = unbiased.diagonal() <= NOTHING * (products + sums.fourth).diagonal()
        biased = ratio(products, undefined).clamp(0.0, 1.0)
        unbiased = ratio(unbiased, undefined | nothing | (total.count < FEWEST)).clamp(-1.0, 1.0)
        return Values(pairs={"cka": biased, "cka_unbiased": unbiased})


def hsic(sums: OutputSums) -> Tensor:
    """[head, head]: n(n - 3) HSIC₁ of all pairs, from sums about any point, which it does not depend on."""
    n, first = sums.count, sums.by_head(sums.first)
    trace = sums.blocks().square().sum((1, 3)) - sums.fourth
    total = first.square().sum(-1) - sums.norms  # 1ᵀK̃1
    third = sums.by_head(sums.third)  # [g, h, feature]
    weighted = (third * first).sum(-1)  # [g, h]: Σ ‖y_g‖² y_h · s_h
    middle = (first[:, :, None, None] * sums.blocks() * first).sum((1, 3)) - weighted - weighted.T + sums.fourth
    return trace + total[:, None] * total / ((n - 1) * (n - 2)) - 2 / (n - 2) * middle


def ratio(products: Tensor, undefined: Tensor) -> Tensor:
    """[head, head]: inner products over the roots of those of a head with itself; NaN where those are `undefined`."""
    norms = products.diagonal().clamp(min=0)
    norms = norms.masked_fill(undefined | (norms == 0), float("nan")).sqrt()
    return products / norms[:, None] / norms
