"""One attention call, and which of its queries and keys belong to which sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from headprobe.capture.masks import Inputs
from headprobe.capture.structure import Structure
from headprobe.outputs import Outputs, Unknown


@dataclass(frozen=True, eq=False)
class Made:
    """Some queries of a call: `z` [row, head, query, feature], and the `values` [row, kv head, key, feature]."""

    z: Tensor
    values: Tensor

    @classmethod
    def of(cls, output: Any, values: Tensor, heads: int) -> "Made | Unknown":
        """From what an attention function returned: [row, query, head, feature], or the last two as one."""
        width = heads * values.shape[-1]
        if not isinstance(output, Tensor) or output.dim() not in (3, 4) or output.shape[2:].numel() != width:
            return Unknown("what its attention function returns is no vector for every query and head")
        return cls(output.reshape(*output.shape[:2], heads, values.shape[-1]).transpose(1, 2), values)

    def queries(self, first: int, last: int) -> "Made":
        """Some of them."""
        return Made(self.z[:, :, first:last], self.values)


def joined_made(parts: Sequence[Made | Unknown | None]) -> Made | Unknown | None:
    """What queries that follow each other gave, as one."""
    made = [part for part in parts if isinstance(part, Made)]
    if len(made) < len(parts):
        return next(part for part in parts if not isinstance(part, Made))
    return Made(torch.cat([part.z for part in made], 2), made[0].values)


class Anew(Protocol):
    """A call that can be made again."""

    def again(self, first: int, last: int, reach: int | None) -> tuple[Tensor, Made | Unknown | None]:
        """Probabilities [row, head, query, key] of the queries `first` to `last`, and what they give where it is known.

        Over the first `reach` keys where that is given.
        """

    def of(self, sequences: slice) -> "Anew":
        """The same for some rows of its batch axis alone."""

    @property
    def separable(self) -> bool:
        """True if that can be done: it is known of all that the call is given where its sequences are in it."""

    @property
    def keys_together(self) -> bool:
        """True if it can't be made over some of its keys alone."""

    @property
    def bytes(self) -> int:
        """What it keeps alive."""


def kept_bytes(*tensors: Tensor, share: float = 1.0) -> int:
    """What is kept alive with these tensors: all that they are parts of, or their `share` of that."""
    storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in tensors}  # all at 0 on meta
    return round(share * sum(storage.nbytes() for storage in storages.values()))


@dataclass(frozen=True)
class Call:
    """One attention call: the module at work, the shape [row, head, query, key], and what its own mask shows.

    `source` are the queries and keys where the call has them, to tell a call that is made twice; with `anew` its
    probabilities can be computed again.
    """

    path: str
    module: nn.Module
    shape: tuple[int, int, int, int]
    structure: Structure | None
    kv_heads: int
    sink: bool = False
    window: int | None = None
    source: tuple[Tensor, Tensor] | None = None
    anew: Anew | None = None


@dataclass(frozen=True)
class Piece:
    """Queries and keys of a call that belong together, what its mask shows of them, and the sequence of each row."""

    rows: tuple[int, ...]
    queries: slice
    keys: slice
    structure: Structure | None

    def cut(self, probs: Tensor, start: int) -> tuple[Tensor, int]:
        """Of probabilities from query `start` on those of the piece, and the first query within it."""
        if self.keys == slice(0, probs.shape[3]) and self.queries.start == 0:
            return probs, start
        return self.own_queries(probs, start)[..., self.keys], max(start, self.queries.start) - self.queries.start

    def own_queries(self, values: Tensor, start: int) -> Tensor:
        """Of `values` [row, head, query, ...] from query `start` on those of the piece."""
        first, last = max(start, self.queries.start), min(start + values.shape[2], self.queries.stop)
        return values[:, :, first - start : max(last, first) - start]

    def outputs(self, made: Made) -> Outputs:
        """What its queries gave, of all that the call made; who reads it is not known."""
        z, values = self.own_queries(made.z, 0), made.values[:, :, self.keys]
        return Outputs(z, values, Unknown("nobody looked for what reads it"))


def pieces(call: Call, inputs: Inputs, first: int, total: int, lengths: Tensor | None) -> list[Piece]:
    """The call as a whole, or the images that it holds one after the other in a single row.

    `first` of the layer's `total` positions came in calls before it; `lengths` is what the layer was told of them.
    """
    batch, _, queries, keys = call.shape
    ends = inputs.ends(queries, lengths) if batch == 1 < inputs.batch and queries == keys == total else None
    if ends is None:
        owners = inputs.owners(batch, first, total, call.path, lengths)
        return [Piece(owners, slice(0, queries), slice(0, keys), call.structure)]
    images = len(ends) // inputs.batch
    spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    return [
        Piece((number // images,), span, span, None if call.structure is None else call.structure.cut(span, span))
        for number, span in enumerate(spans)
    ]
