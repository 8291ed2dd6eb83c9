"""M1: within-head redundancy ‖AAᵀ - I‖: do a head's queries read the same thing?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.fused import loops
from headprobe.metrics.shared import head_values
from headprobe.metrics.totals import PerSequence

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile


@dataclass(frozen=True)
class Sums:
    """What M1 is computed from, [batch, head]: off-diagonal sums of G² and cos², and the sum of (1 - Gᵢᵢ)²."""

    squares: Tensor
    cosines: Tensor
    diagonal: Tensor


@dataclass(frozen=True)
class OpenSequences:
    """Sequences of which some rows are still to come. AᵀA adds over rows, and ‖AᵀA‖ = ‖AAᵀ‖.

    `grams` [batch, head, key, key] are of the rows, `units` of the rows divided by their norms; the last head is
    uniform attention under the same mask. `norms` [batch, head, 2] sums (1 - x)² and x² of x = ‖row‖².
    """

    numbers: tuple[int, ...]
    grams: Tensor
    units: Tensor
    norms: Tensor
    rows: Tensor
    reached: Tensor
    seen: int
    queries: int

    def __add__(self, other: OpenSequences) -> OpenSequences:
        return OpenSequences(
            self.numbers,
            self.grams + other.grams,
            self.units + other.units,
            self.norms + other.norms,
            self.rows + other.rows,
            self.reached | other.reached,
            self.seen + other.seen,
            self.queries,
        )

    def close(self) -> PerSequence:
        off = (self.grams.square().sum((-1, -2)) - self.norms[..., 1]).clamp(min=0)
        cosines = (self.units.square().sum((-1, -2)) - self.rows[:, None]).clamp(min=0)
        sums = Sums(off[:, :-1], cosines[:, :-1], self.norms[:, :-1, 0])
        return _columns(self.numbers, sums, cosines[:, -1:], self.rows, self.reached.sum(-1))


@dataclass(frozen=True)
class RedundancyTotal:
    """The closed sequences' values, and the open ones, which close by themselves when their last row has come."""

    closed: PerSequence | None
    open: tuple[OpenSequences, ...] = ()

    def __add__(self, other: RedundancyTotal) -> RedundancyTotal:
        closed = (
            self.closed if other.closed is None else other.closed if self.closed is None else self.closed + other.closed
        )
        waiting = {part.numbers: part for part in self.open}
        for part in other.open:
            part = waiting.pop(part.numbers) + part if part.numbers in waiting else part
            if part.seen < part.queries:
                waiting[part.numbers] = part
            else:
                closed = part.close() if closed is None else closed + part.close()
        return RedundancyTotal(closed, tuple(waiting.values()))


class Redundancy:
    """Within-head ‖AAᵀ - I‖ of a sequence's valid rows, and its scale-free form, the mean squared cosine of two."""

    name = "redundancy"
    shape: Shape = "sequence"
    pairwise = False
    columns = (
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
    baseline = "rcos of uniform attention: 1 under a full mask, 1/2 under a causal one; aat_sq: n - 1 under a full mask"
    source = "after Lin et al. 2017, eq. 8, read within a head; split and rcos: own"

    def observe(self, tile: AttentionTile) -> RedundancyTotal:
        if tile.whole:
            return RedundancyTotal(_whole(tile))
        return RedundancyTotal(None, (_part(tile),))

    def compute(self, total: RedundancyTotal) -> Values:
        if total.open or total.closed is None:
            raise ValueError("rows of some sequences are missing: the metric needs all rows of a sequence")
        return head_values(self.columns, total.closed)


def _whole(tile: AttentionTile) -> PerSequence:
    """From the Gram of all rows at once."""
    rows = tile.query_mask.sum(-1).double()
    masked = tile.structure is not None  # else all rows of uniform attention are the same
    uniform_cosines = _gram_sums(tile.uniform()).cosines if masked else (rows * (rows - 1))[:, None]
    return _columns(tile.sequences, _gram_sums(tile), uniform_cosines, rows, tile.reached.sum(-1))


def _gram_sums(tile: AttentionTile) -> Sums:
    compiled = tile.once(loops)
    return _gram_sums_at_once(tile) if compiled is None else Sums(*compiled.gram_sums().unbind(-1))


def _gram_sums_at_once(tile: AttentionTile) -> Sums:
    """The Gram's diagonal is taken out before squaring, so that nothing cancels."""
    import torch

    gram = tile.rows @ tile.rows.mT
    x = gram.diagonal(dim1=-2, dim2=-1).clone()
    diagonal = ((1 - x.double()).square() * tile.query_mask[:, None]).sum(-1)
    gram.diagonal(dim1=-2, dim2=-1).zero_()
    inverse = torch.where(x > 0, 1 / x, 0.0)
    plain, weighted = (gram.square_() @ torch.stack([torch.ones_like(x), inverse], -1)).double().unbind(-1)
    return Sums(plain.sum(-1), (weighted * inverse).sum(-1), diagonal)


def _part(tile: AttentionTile) -> OpenSequences:
    import torch

    rows = torch.cat([tile.rows, tile.uniform().rows], dim=1).double()
    x = rows.square().sum(-1)
    units = rows / x.clamp(min=torch.finfo(torch.float64).tiny).sqrt()[..., None]
    diagonal = ((1 - x).square() * tile.query_mask[:, None]).sum(-1)
    return OpenSequences(
        numbers=tile.sequences,
        grams=rows.mT @ rows,
        units=units.mT @ units,
        norms=torch.stack([diagonal, x.square().sum(-1)], -1),
        rows=tile.query_mask.sum(-1).double(),
        reached=tile.reached,
        seen=tile.probs.shape[2],
        queries=tile.queries,
    )


def _columns(
    numbers: tuple[int, ...], sums: Sums, uniform_cosines: Tensor, rows: Tensor, reached: Tensor
) -> PerSequence:
    """All fields of one sequence each, in the order of the columns; not counted where there are too few rows."""
    import torch

    n = rows[:, None]
    pairs = (n * (n - 1)).clamp(min=1)
    square = sums.squares + sums.diagonal
    least = (n - reached[:, None]).clamp(min=0)
    rcos = sums.cosines / pairs
    fields = [
        square.sqrt(),
        square,
        square / (n - 1).clamp(min=1),
        (square - least) / (n * (n - 1) - least).clamp(min=1),
        sums.squares / pairs,
        sums.diagonal / n.clamp(min=1),
        rcos,
        rcos - uniform_cosines / pairs,
    ]
    needed = torch.tensor([1, 1, 2, 2, 2, 1, 2, 2], device=rows.device)
    defined = (n >= needed).double()
    values = torch.stack(fields, -1) * defined[:, None, :]
    return PerSequence.of(numbers, values, defined[:, None, :])
