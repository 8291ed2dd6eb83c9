"""Are the rows that were captured the rows that the model computed?"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

TOLERANCE = 2e-5
PROOF = 1e-7  # in float64
ROUNDED = 4e-7  # in a model of float64 that takes its softmax in float32: three of its last bits on either side
NOTHING = 1e-9  # less is zero: in the truth of fused calls it may be smaller than float32 holds
Signatures = dict[int, Tensor]


def signatures(maps: Iterable[Tensor]) -> Signatures:
    """By number of keys: one number for every row, sorted, which other rows don't have."""
    found: dict[int, list[Tensor]] = defaultdict(list)
    for probs in maps:
        keys = probs.shape[-1]
        rows = probs.reshape(-1, keys).double().nan_to_num(nan=-7.0)
        generator = torch.Generator().manual_seed(keys)
        found[keys].append(rows @ (torch.rand(keys, generator=generator, dtype=torch.float64) * 2 - 1))
    return {keys: torch.cat(parts).sort().values for keys, parts in found.items()}


def same(left: Signatures, right: Signatures, tolerance: float = TOLERANCE) -> str | None:
    """None if both hold the same rows, else how they differ."""
    if {k: len(v) for k, v in left.items()} != {k: len(v) for k, v in right.items()}:
        return f"rows by keys: true {_sizes(left)}, captured {_sizes(right)}"
    worst = max((float((left[keys] - right[keys]).abs().max()) for keys in left), default=0.0)
    return None if worst <= tolerance else f"rows differ by {worst:.2g}"


def _sizes(found: Signatures) -> dict[int, int]:
    return {keys: len(rows) for keys, rows in found.items()}


def stripped(maps: list[Tensor]) -> list[Tensor]:
    """The rows without the zeros before and after them: tiles may be cut to what a mask leaves."""
    rows = [row for probs in maps for row in probs.reshape(-1, probs.shape[-1]).double()]
    width = max((len(row) for row in rows), default=0)
    found = torch.zeros(len(rows), width, dtype=torch.float64)
    for i, row in enumerate(rows):
        seen = (row.nan_to_num(nan=1.0) > NOTHING).nonzero()
        if len(seen):
            kept = row[int(seen[0]) : int(seen[-1]) + 1]
            found[i, : len(kept)] = kept
    return [found[:, : int((found != 0).any(0).sum())]]


def distinct(maps: list[Tensor]) -> list[Tensor]:
    """The maps less those that equal an earlier one."""
    kept: list[Tensor] = []
    for probs in maps:
        if not any(probs.shape == other.shape and torch.equal(probs, other) for other in kept):
            kept.append(probs)
    return kept
