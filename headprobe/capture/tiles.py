"""Probabilities of a call become a tile: in float32, with positions, masks and a learned sink as a key."""

import torch
from torch import Tensor, nn

from headprobe.capture.masks import Masks
from headprobe.tile import AttentionTile, Site, positions


def make_tile(
    site: Site, probs: Tensor, structure: Tensor | None, start: int, masks: Masks, sequences: tuple[int, ...]
) -> AttentionTile:
    """The tile of some rows of a call: `probs` [batch, head, row, key] from row `start` on, `masks` of all rows."""
    probs = probs if probs.dtype == torch.float64 else probs.float()
    query_mask, key_mask = masks
    queries, keys = query_mask.shape[1], probs.shape[3]
    rows = slice(start, start + probs.shape[2])
    key_positions = positions(key_mask)
    # a query's position is its own key's, also where keys of earlier tokens come from a cache
    own = site.kind == "cross" or queries > keys
    query_positions = positions(query_mask) if own else key_positions[:, keys - queries :]
    if structure is not None and structure.shape[1] > 1:
        structure = structure[:, rows]
    if site.sink:
        rest = 1 - probs.sum(-1, keepdim=True, dtype=torch.float64)
        probs = torch.cat([probs, rest.clamp(min=0).to(probs.dtype)], dim=-1)  # rounding can leave less than none
        key_mask, key_positions, structure = _with_virtual_key(key_mask, key_positions, structure)
    return AttentionTile(
        site=site,
        probs=probs,
        query_mask=query_mask[:, rows],
        key_mask=key_mask,
        start=start,
        queries=queries,
        query_positions=query_positions[:, rows],
        key_positions=key_positions,
        sequences=sequences,
        structure=structure,
    )


def _with_virtual_key(
    key_mask: Tensor, key_positions: Tensor, structure: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A last key column that every query sees and that stands at no position."""
    key_mask = nn.functional.pad(key_mask, (0, 1), value=True)
    key_positions = nn.functional.pad(key_positions, (0, 1), value=-1)
    return key_mask, key_positions, None if structure is None else nn.functional.pad(structure, (0, 1), value=True)
