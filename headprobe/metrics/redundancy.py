"""M1: within-head redundancy ‖AAᵀ - I‖: do a head's queries read the same thing?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.mask_grams import MaskRows, uniform_rows
from headprobe.metrics.row_grams import row_grams
from headprobe.metrics.shared import head_values
from headprobe.metrics.totals import PerSequence

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile


@dataclass(frozen=True)
class RedundancyTotal:
    """The columns of each sequence, [sequence, head, column], and those of uniform attention under the same mask."""

    heads: PerSequence
    uniform: PerSequence

    def __add__(self, other: RedundancyTotal) -> RedundancyTotal:
        return RedundancyTotal(self.heads + other.heads, self.uniform + other.uniform)


class Redundancy:
    """Within-head ‖AAᵀ - I‖ of a sequence's valid rows, and its scale-free form, the mean squared cosine of two."""

    name = "redundancy"
    shape: Shape = "sequence"
    pairwise = False
    columns: tuple[Column, ...] = (
        Column("aat_fro", "head", "‖AAᵀ - I‖_F", more="redundant", paired=True),
        Column("aat_sq", "head", "‖AAᵀ - I‖_F², overlap and diffuseness together", more="redundant"),
        Column("aat_unit", "head", "aat_sq / (n - 1): uniform attention is 1", more="redundant"),
        Column("aat01", "head", "aat_sq between its smallest and largest possible value", high=1.0, more="redundant"),
        Column(
            "overlap",
            "head",
            "mean squared dot product of two different rows",
            high=1.0,
            more="rows read the same keys",
        ),
        Column("diffuse", "head", "mean (1 - ‖row‖²)²", high=1.0, more="rows are spread out"),
        Column("rcos", "head", "mean squared cosine of two different rows", high=1.0, more="redundant", paired=True),
        Column(
            "rcos_excess",
            "head",
            "rcos minus that of uniform attention under the same mask",
            low=-1.0,
            high=1.0,
            more="more redundant than the mask forces",
            paired=True,
        ),
    )
    formula = "G = AAᵀ over a sequence's rows; aat_sq = ‖G - I‖_F²; rcos = mean over i ≠ j of Gᵢⱼ² / (Gᵢᵢ Gⱼⱼ)"
    baseline = "rcos 1 under a full mask, 1/2 under a causal one; aat_sq n - 1 under a full mask"
    source = "after Lin et al. 2017, eq. 8, read within a head; split and rcos: own"

    def observe(self, tile: AttentionTile) -> RedundancyTotal:
        if not tile.ends:
            return RedundancyTotal(PerSequence({}), PerSequence({}))
        masks = MaskRows()
        sums = row_grams(tile, masks.add)
        uniform = row_grams(uniform_rows(tile), lambda part: None) if masks.grams is None else masks.grams
        rows, reached = masks.rows(), masks.reached()
        return RedundancyTotal(
            *(of_sums(tile.sequences, each, uniform[..., 1], rows, reached) for each in (sums, uniform))
        )

    def compute(self, total: RedundancyTotal) -> Values:
        if not total.heads.pieces:
            raise ValueError("the last rows of all sequences are missing: the metric needs all rows of a sequence")
        uniform = total.uniform.mean()[0]
        baseline = {column.name: uniform[i] for i, column in enumerate(Redundancy.columns)}
        return replace(head_values(Redundancy.columns, total.heads), baseline=baseline)


def of_sums(
    numbers: tuple[int, ...], sums: Tensor, uniform_cosines: Tensor, rows: Tensor, reached: Tensor
) -> PerSequence:
    """All fields of one sequence each, in the order of the columns; not counted where there are too few rows."""
    import torch

    squares, cosines, diagonal = sums.unbind(-1)
    n = rows[:, None]
    pairs = (n * (n - 1)).clamp(min=1)
    square = squares + diagonal
    least = (n - reached[:, None]).clamp(min=0)
    rcos = cosines / pairs
    fields = [
        square.sqrt(),
        square,
        square / (n - 1).clamp(min=1),
        (square - least) / (n * (n - 1) - least).clamp(min=1),
        squares / pairs,
        diagonal / n.clamp(min=1),
        rcos,
        rcos - uniform_cosines / pairs,
    ]
    defined = torch.cat([n >= needed for needed in (1, 1, 2, 2, 2, 1, 2, 2)], -1).double()
    values = torch.stack(fields, -1) * defined[:, None, :]
    return PerSequence.of(numbers, values, defined[:, None, :])
