"""M10: where a head looks: at itself, its neighbours, the first token, special tokens, near or far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.fused import loops
from headprobe.metrics.shared import Rows, head_values, valid_rows
from headprobe.metrics.totals import PerSequence

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile


class Position:
    """Mean mass on a key given by its place. Positions are ranks among valid tokens, so padding moves nothing."""

    name = "position"
    shape: Shape = "rows"
    pairwise = False
    columns = (
        Column(
            "self_mass",
            "head",
            "mass on the query's own position",
            "mass",
            high=1.0,
            more="looks at itself",
            paired=True,
        ),
        Column(
            "prev_mass", "head", "mass on the position before", "mass", high=1.0, more="looks one back", paired=True
        ),
        Column(
            "next_mass",
            "head",
            "mass on the position after, where it is visible",
            "mass",
            high=1.0,
            more="looks one ahead",
            paired=True,
        ),
        Column(
            "first_mass", "head", "mass on the first position", "mass", high=1.0, more="attention sink", paired=True
        ),
        Column(
            "first_mass_excl_first",
            "head",
            "first_mass without the first query",
            "mass",
            high=1.0,
            more="attention sink",
        ),
        Column(
            "special_mass",
            "head",
            "mass on special tokens",
            "mass",
            high=1.0,
            more="looks at special tokens",
            paired=True,
        ),
        Column("mean_distance", "head", "mean distance to what is looked at", "tokens", more="looks far", paired=True),
        Column("mean_distance_excl_first", "head", "mean_distance without the first query", "tokens", more="looks far"),
        Column(
            "sink_virtual",
            "head",
            "mass that a learned sink takes, which is no token",
            "mass",
            high=1.0,
            more="attends to nothing",
        ),
    )
    formula = "mean over queries i of a[i, i], a[i, i-1], a[i, i+1], a[i, 0], Σ a[i, special], Σₖ a[i, k] |i - k|"
    baseline = "mean of 1/s for the masses; distance (n - 1)/4 causal, (n² - 1)/(3n) full"
    source = "Clark et al. 2019, §3; prev: Olsson et al. 2022; first: Gu et al. 2025"

    def observe(self, tile: AttentionTile) -> PerSequence:
        rows, seen = tile.once(valid_rows), tile.once(places)
        every = rows.size >= 0
        aligned = every & tile.aligned  # in cross-attention positions of queries and keys have nothing in common
        later = aligned & (rows.position > 0)
        own, previous, following, first, last = seen.weights.unbind(-1)
        own_there, previous_there, following_there, first_there, _ = seen.there.unbind(-1)
        return rows.means(
            [
                (own, aligned & own_there),
                (previous, aligned & previous_there),
                (following, aligned & following_there),
                (first, first_there),
                (first, first_there & later),
                (seen.special, every & (tile.special_keys is not None)),
                (seen.distance, aligned),
                (seen.distance, later),
                (last, every & tile.site.sink),
            ]
        )

    def compute(self, total: PerSequence) -> Values:
        return head_values(self.columns, total)


@dataclass(frozen=True, eq=False)
class Places:
    """Where the rows of a tile look.

    `special` [row, head] is the mass on special tokens, 0 if unknown, and `distance` the mean distance in tokens, to
    which keys that stand at no position (padding, a virtual sink) add nothing. `weights` [row, head, 5] are those of
    the key at the query's own position, the one before, the one after, the first, and of the last key; `there` [row, 5]
    says whether the row can see that key, or for the first whether its sequence has one.
    """

    special: Tensor
    distance: Tensor
    weights: Tensor
    there: Tensor


def places(tile: AttentionTile) -> Places:
    """Where the rows of a tile look, in one pass."""
    import torch

    rows = tile.once(valid_rows)
    position, (sequence, row) = rows.position, rows.at.unbind(-1)
    wanted = torch.stack([position, position - 1, position + 1, position * 0], -1)
    column = _column_of(tile)[sequence[:, None], wanted.clamp(0, tile.key_positions.shape[1] - 1)]
    there = (tile.key_positions[sequence[:, None], column] == wanted) & tile.key_mask[sequence[:, None], column]
    there[:, :3] &= tile.sees(sequence[:, None], row[:, None], column[:, :3])
    last = torch.full_like(column[:, :1], tile.probs.shape[3] - 1)
    column, there = torch.cat([column, last], 1), torch.cat([there, last >= 0], 1)
    compiled = tile.once(loops)
    if compiled is None:
        weights = rows.probs.gather(2, column[:, None].expand(-1, rows.probs.shape[1], -1))
        special, distance = _special_and_distance(tile, rows)
        return Places(special, distance, weights, there)
    sums, weights = compiled.places(column)
    return Places(sums[..., 0], sums[..., 1], weights, there)


def _column_of(tile: AttentionTile) -> Tensor:
    """[batch, position + 1]: the key column of each position, any column for a position that isn't there."""
    import torch

    positions = tile.key_positions
    keys = positions.shape[1]
    slots = torch.where(positions >= 0, positions, keys)
    columns = torch.arange(keys, device=slots.device).expand_as(slots)
    return torch.zeros(len(slots), keys + 1, dtype=torch.long, device=slots.device).scatter(1, slots, columns)


def _special_and_distance(tile: AttentionTile, rows: Rows) -> tuple[Tensor, Tensor]:
    dtype = rows.probs.dtype
    positions = tile.key_positions.to(dtype)[rows.owner]
    apart = (rows.position.to(dtype)[:, None] - positions).abs_().masked_fill_(positions < 0, 0)
    distance = (rows.probs * apart[:, None]).sum(-1)
    if tile.special_keys is None:
        return distance * 0, distance
    return (rows.probs * tile.special_keys.to(dtype)[rows.owner][:, None]).sum(-1), distance
