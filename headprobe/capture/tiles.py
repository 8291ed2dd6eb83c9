"""Probabilities of a call become a tile: in float32, with positions, masks and a learned sink as a key."""

import torch
from torch import Tensor, nn

from headprobe.capture.lazy import of_sequences
from headprobe.capture.masks import Masks
from headprobe.capture.structure import Structure
from headprobe.masks import Known
from headprobe.tile import AttentionTile, Site


def make_tile(
    site: Site,
    probs: Tensor,
    shown: tuple[Structure | None, Known],
    start: int,
    masks: Masks,
    sequences: tuple[int, ...],
    part: slice,
) -> AttentionTile:
    """The tile of some rows of a call: `probs` [batch, head, row, key] from row `start` on, `masks` of all rows.

    Of the `part` of the call's batch axis that has these `sequences`, which `probs` and `masks` have no more than.

    `shown` is what the call's own mask hides beyond padding, and what is known of all masks.

    Of all keys, or of the first so many where none of the rows sees the rest.
    """
    hides, known = shown
    probs = probs if probs.dtype == torch.float64 else probs.float()
    query_mask, key_mask = masks.queries, masks.keys
    queries, keys = query_mask.shape[1], key_mask.shape[1]
    rows, reached = slice(start, start + probs.shape[2]), probs.shape[3]
    key_positions = masks.key_positions
    # a query's position is its own key's, also where keys of earlier tokens come from a cache
    own = site.kind == "cross" or queries > keys
    query_positions = masks.query_positions if own else key_positions[:, keys - queries :]
    structure = None if hides is None else of_sequences(hides.rows(rows.start, rows.stop, reached), part)
    key_mask, key_positions = key_mask[:, :reached], key_positions[:, :reached]
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
        hides=hides,
        known=known,
    )


def _with_virtual_key(
    key_mask: Tensor, key_positions: Tensor, structure: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """A last key column that every query sees and that stands at no position."""
    key_mask = nn.functional.pad(key_mask, (0, 1), value=True)
    key_positions = nn.functional.pad(key_positions, (0, 1), value=-1)
    return key_mask, key_positions, None if structure is None else nn.functional.pad(structure, (0, 1), value=True)
