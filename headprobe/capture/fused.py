"""Attention that torch computes in one call: its probabilities are recomputed from the call's own arguments."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class FusedCall:
    """The arguments of one of torch's scaled-dot-product operators, by the names of its schema.

    `query` is [batch, head, query, feature], `shape` [batch, head, query, key].
    """

    def __init__(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        names = [argument.name for argument in operator._schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        self.query, self.key = (_four(given[name]) for name in ("query", "key"))
        self.mask: Tensor | None = given.get("attn_mask", given.get("attn_bias"))
        self.is_causal = bool(given.get("is_causal"))
        scale = given.get("scale")
        self.scale = 1 / math.sqrt(self.query.shape[-1]) if scale is None else float(scale)
        self.shape = (*self.query.shape[:3], self.key.shape[2])

    @property
    def kv_heads(self) -> int:
        """Key-value heads of the call."""
        return self.key.shape[1]

    def bias(self) -> Tensor | None:
        """What is added to the scores, or a bool mask: None where every key is visible."""
        queries, keys = self.shape[2:]
        if self.mask is not None:
            return self.mask.expand(*[1] * (4 - self.mask.dim()), *self.mask.shape)
        if not self.is_causal:
            return None
        seen = torch.ones(queries, keys, dtype=torch.bool, device=self.query.device).tril()
        return seen[None, None]

    def tiles(self, rows: int) -> Iterator[tuple[int, Tensor]]:
        """The first row and the probabilities [batch, head, row, key] of so many query rows at a time."""
        heads, queries = self.shape[1:3]
        key = self.key.repeat_interleave(heads // self.kv_heads, 1).mT
        bias = self.bias()
        for start in range(0, queries, rows):
            part = slice(start, start + rows)
            scores = self.query[:, :, part] @ key * self.scale
            if bias is not None:
                own = bias[:, :, part] if bias.shape[2] > 1 else bias
                scores = scores.masked_fill(~own, -math.inf) if own.dtype == torch.bool else scores + own
            yield start, torch.softmax(scores, -1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _four(tensor: Tensor) -> Tensor:
    """[batch, head, position, feature] also for a call without an axis of heads."""
    return tensor if tensor.dim() == 4 else tensor[:, None]
