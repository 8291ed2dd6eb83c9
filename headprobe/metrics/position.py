"""M10: where a head looks: at itself, its neighbours, the first token, special tokens, near or far."""

from __future__ import annotations

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
        rows = tile.once(valid_rows)
        every = rows.size >= 0
        first_mass, first_known = _mass_at(tile, rows, rows.position * 0)
        aligned = every & tile.aligned  # in cross-attention positions of queries and keys have nothing in common
        later = aligned & (rows.position > 0)
        columns = [_neighbour(tile, rows, offset) for offset in (0, -1, 1)]
        columns += [(first_mass, first_known), (first_mass, first_known & later)]
        special, distance = tile.once(special_and_distance).unbind(-1)
        columns += [(special, every & (tile.special_keys is not None)), (distance, aligned), (distance, later)]
        columns += [(_last(tile, rows), every & tile.site.sink)]
        return rows.means(columns)

    def compute(self, total: PerSequence) -> Values:
        return head_values(self.columns, total)


def _mass_at(tile: AttentionTile, rows: Rows, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Mass [row, head] on the key at position `wanted` [row], and the rows [row] whose sequence has that key."""
    column = _columns_at(tile, rows, wanted)
    there = (tile.key_positions[rows.owner, column] == wanted) & tile.key_mask[rows.owner, column]
    sequence, row = rows.at.unbind(-1)
    return tile.probs[sequence, :, row, column], there


def _neighbour(tile: AttentionTile, rows: Rows, offset: int) -> tuple[Tensor, Tensor]:
    """Mass on the key `offset` positions away, and the rows that can see such a key."""
    wanted = rows.position + offset
    mass, there = _mass_at(tile, rows, wanted)
    column = _columns_at(tile, rows, wanted)
    sequence, row = rows.at.unbind(-1)
    return mass, there & tile.sees(sequence, row, column) & tile.aligned


def _last(tile: AttentionTile, rows: Rows) -> Tensor:
    """Mass [row, head] on the last key, where a learned sink stands."""
    sequence, row = rows.at.unbind(-1)
    return tile.probs[sequence, :, row, -1]


def _columns_at(tile: AttentionTile, rows: Rows, wanted: Tensor) -> Tensor:
    """[row]: the key column at which position `wanted` stands; any column for a position that isn't there."""
    return tile.once(_column_of)[rows.owner, wanted.clamp(0, tile.key_positions.shape[1] - 1)]


def _column_of(tile: AttentionTile) -> Tensor:
    """[batch, position + 1]: the key column of each position."""
    import torch

    positions = tile.key_positions
    keys = positions.shape[1]
    slots = torch.where(positions >= 0, positions, keys)
    columns = torch.arange(keys, device=slots.device).expand_as(slots)
    return torch.zeros(len(slots), keys + 1, dtype=torch.long, device=slots.device).scatter(1, slots, columns)


def special_and_distance(tile: AttentionTile) -> Tensor:
    """[row, head, 2]: mass on special tokens (0 if unknown) and mean distance in tokens, in one pass over the rows.

    Keys that stand at no position (padding, a virtual sink) add no distance.
    """
    import torch

    compiled = tile.once(loops)
    if compiled is not None:
        return compiled.places()
    rows = tile.once(valid_rows)
    dtype = rows.probs.dtype
    positions = tile.key_positions.to(dtype)[rows.owner]
    apart = (rows.position.to(dtype)[:, None] - positions).abs_().masked_fill_(positions < 0, 0)
    distance = (rows.probs * apart[:, None]).sum(-1)
    if tile.special_keys is None:
        return torch.stack([torch.zeros_like(distance), distance], -1)
    special = tile.special_keys.to(dtype)[rows.owner]
    return torch.stack([(rows.probs * special[:, None]).sum(-1), distance], -1)
