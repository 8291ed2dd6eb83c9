"""M10: where a head looks: at itself, its neighbours, the first token, special tokens, near or far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headprobe.metrics.contract import Column, Shape, Values
from headprobe.metrics.shared import mean_over_queries
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
        Column("self_mass", "head", "mass on the query's own position", "mass", high=1.0, more="looks at itself", paired=True),
        Column("prev_mass", "head", "mass on the position before", "mass", high=1.0, more="looks one back", paired=True),
        Column("next_mass", "head", "mass on the position after, where it is visible", "mass", high=1.0, more="looks one ahead", paired=True),
        Column("first_mass", "head", "mass on the first position", "mass", high=1.0, more="attention sink", paired=True),
        Column("first_mass_excl_first", "head", "first_mass without the first query", "mass", high=1.0, more="attention sink"),
        Column("special_mass", "head", "mass on special tokens", "mass", high=1.0, more="looks at special tokens", paired=True),
        Column("mean_distance", "head", "mean distance to what is looked at", "tokens", more="looks far", paired=True),
        Column("mean_distance_excl_first", "head", "mean_distance without the first query", "tokens", more="looks far"),
        Column("sink_virtual", "head", "mass that a learned sink takes, which is no token", "mass", high=1.0, more="attends to nothing"),
    )  # fmt: skip
    formula = "mean over queries i of a[i, i], a[i, i-1], a[i, i+1], a[i, 0], Σ a[i, special], Σₖ a[i, k] |i - k|"
    baseline = "mean of 1/s for the masses; distance (n - 1)/4 causal, (n² - 1)/(3n) full"
    source = "Clark et al. 2019, §3; prev: Olsson et al. 2022; first: Gu et al. 2025"

    def observe(self, tile: AttentionTile) -> PerSequence:
        valid, first = tile.query_mask, tile.query_positions == 0
        first_mass, first_seen = _mass_at(tile, tile.query_positions * 0)
        first_valid = valid & tile.key_mask.gather(1, first_seen)
        columns = [_neighbour(tile, offset) for offset in (0, -1, 1)]
        columns += [(first_mass, first_valid), (first_mass, _aligned(tile, first_valid & ~first))]
        special = tile.special_keys
        known = valid if special is not None else valid & False
        mass = tile.rows[..., 0] if special is None else (tile.rows @ special[:, None, :, None].to(tile.rows.dtype))[..., 0]
        distance = _distance(tile)
        columns += [(mass, known), (distance, _aligned(tile, valid)), (distance, _aligned(tile, valid & ~first))]
        columns += [(tile.rows[..., -1], valid if tile.site.sink else valid & False)]
        return mean_over_queries(tile, columns)

    def compute(self, total: PerSequence) -> Values:
        mean, means = total.mean(), total.means()
        return Values(
            heads={column.name: mean[:, i] for i, column in enumerate(self.columns)},
            sequences={c.name: means[..., i] for i, c in enumerate(self.columns) if c.paired},
            numbers=total.numbers,
        )


def _aligned(tile: AttentionTile, where: Tensor) -> Tensor:
    """`where`, or nowhere: in cross-attention the positions of queries and keys have nothing to do with each other."""
    return where if tile.aligned else where & False


def _mass_at(tile: AttentionTile, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Mass [batch, head, query] on the key at position `wanted` [batch, query], and that key's column."""
    import torch

    keys = tile.key_positions.shape[1]
    slots = torch.where(tile.key_positions >= 0, tile.key_positions, keys)
    columns = torch.arange(keys, device=slots.device).expand_as(slots)
    column_of = torch.zeros(len(slots), keys + 1, dtype=torch.long, device=slots.device).scatter(1, slots, columns)
    column = column_of.gather(1, wanted.clamp(0, keys - 1))
    mass = tile.rows.gather(3, column[:, None, :, None].expand(-1, tile.rows.shape[1], -1, 1))[..., 0]
    return mass, column


def _neighbour(tile: AttentionTile, offset: int) -> tuple[Tensor, Tensor]:
    """Mass on the key `offset` positions away, and the queries that have such a key in their support."""
    wanted = tile.query_positions + offset
    mass, column = _mass_at(tile, wanted)
    there = tile.key_positions.gather(1, column) == wanted
    seen = tile.support.gather(2, column[..., None])[..., 0]
    return mass, _aligned(tile, tile.query_mask & there & seen)


def _distance(tile: AttentionTile) -> Tensor:
    """[batch, head, query]: mean distance in tokens; keys that are no position (padding, a virtual sink) add none."""
    apart = (tile.query_positions[:, :, None] - tile.key_positions[:, None, :]).abs()
    apart = apart.masked_fill((tile.key_positions < 0)[:, None, :], 0).to(tile.rows.dtype)
    return (tile.rows * apart[:, None]).sum(-1)
