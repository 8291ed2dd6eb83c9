"""Attention that torch computes in one call: its probabilities are recomputed from the call's own arguments."""

import copy
import math
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from headprobe.capture.calls import Made, kept_bytes
from headprobe.capture.lazy import LazyMask, of_sequences
from headprobe.outputs import Unknown


class FusedCall:
    """The arguments of one of torch's scaled-dot-product operators, by the names of its schema.

    `query` is [batch, head, query, feature], `shape` [batch, head, query, key]. `result` is what the operator returned;
    without it nobody asks what the heads gave.
    """

    def __init__(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any = None) -> None:
        names = [argument.name for argument in operator._schema.arguments]
        given = dict(zip(names, args, strict=False)) | kwargs
        self.query, self.key = (_four(given[name]) for name in ("query", "key"))
        self.mask: Tensor | None = given.get("attn_mask", given.get("attn_bias"))
        self.is_causal = bool(given.get("is_causal"))
        scale = given.get("scale")
        self.scale = 1 / math.sqrt(self.query.shape[-1]) if scale is None else float(scale)
        self.shape = (*self.query.shape[:3], self.key.shape[2])
        self.made = None if result is None else self._made(result, _four(given["value"]))
        self.share = 1.0

    @property
    def kv_heads(self) -> int:
        """Key-value heads of the call."""
        return self.key.shape[1]

    @property
    def bytes(self) -> int:
        """What a call that is kept holds on to."""
        outputs = (self.made.z, self.made.values) if isinstance(self.made, Made) else ()
        return kept_bytes(self.query, self.key, *outputs, share=self.share)

    @property
    def keys_together(self) -> bool:
        """True if it can't be made over some of its keys alone."""
        return False

    @property
    def separable(self) -> bool:
        """True if each sequence has queries and keys, and a mask if not all have one."""
        batch = self.shape[0]
        return len(self.key) == batch and (self.bias is None or len(self.bias) in (1, batch))

    def of(self, sequences: slice) -> "FusedCall":
        """The call for some of its sequences, where it is separable."""
        part = copy.copy(self)
        part.query, part.key = self.query[sequences], self.key[sequences]
        part.shape = (len(part.query), *self.shape[1:])
        part.share = self.share * len(part.query) / len(self.query)
        if self.bias is not None:
            part.bias = of_sequences(self.bias, sequences)
        if isinstance(self.made, Made):
            part.made = Made(self.made.z[sequences], self.made.values[sequences])
        return part

    @cached_property
    def bias(self) -> Tensor | None:
        """What is added to the scores, or a bool mask: None where every key is visible."""
        queries, keys = self.shape[2:]
        if self.mask is not None:
            return self.mask.expand(*[1] * (4 - self.mask.dim()), *self.mask.shape)
        if not self.is_causal:
            return None
        return causal(queries, keys, self.query.device)

    def again(self, first: int, last: int, reach: int | None) -> tuple[Tensor, Made | Unknown | None]:
        """The probabilities of some queries, and what they gave."""
        made = self.made.queries(first, last) if isinstance(self.made, Made) else self.made
        return self.probabilities(first, last, reach), made

    def probabilities(self, first: int, last: int, reach: int | None) -> Tensor:
        """[batch, head, row, key] of the queries `first` to `last`, over all keys or the first `reach`."""
        heads, keys = self.shape[1], slice(0, self.shape[3] if reach is None else reach)
        dtype = torch.promote_types(self.query.dtype, torch.float32)  # in which the one call adds up
        key = self.key[:, :, keys].to(dtype).repeat_interleave(heads // self.kv_heads, 1).mT
        scores = self.query[:, :, first:last].to(dtype) @ key * self.scale
        bias = self.bias
        if isinstance(bias, LazyMask):
            bias = bias.part(slice(first, last), keys)
        elif bias is not None:
            bias = (bias[:, :, first:last] if bias.shape[2] > 1 else bias)[..., keys]
        if bias is not None:
            scores = scores.masked_fill(~bias, -math.inf) if bias.dtype == torch.bool else scores + bias
        return torch.softmax(scores, -1)

    def _made(self, result: Any, values: Tensor) -> Made | Unknown:
        z = _four(result[0] if isinstance(result, tuple) else result)
        if z.shape != (*self.shape[:3], values.shape[3]):
            return Unknown("what its one call returns is no vector for every query and head")
        return Made(z, values)


@lru_cache(maxsize=8)
def causal(queries: int, keys: int, device: torch.device) -> LazyMask:
    """[1, 1, query, key] bool: every query sees the keys up to its own; the same mask for all layers."""

    def make(rows: slice, columns: slice) -> Tensor:
        at = torch.arange(rows.start, rows.stop, device=device)[:, None]
        return (torch.arange(columns.start, columns.stop, device=device) <= at)[None, None]

    return LazyMask(make, torch.empty(0, dtype=torch.bool, device=device), (1, 1, queries, keys))


def _four(tensor: Tensor) -> Tensor:
    """[batch, head, position, feature] also for a call without an axis of heads."""
    return tensor if tensor.dim() == 4 else tensor[:, None]
