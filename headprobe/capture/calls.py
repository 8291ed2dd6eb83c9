"""One attention call, and which of its queries and keys belong to which sequence."""

from dataclasses import dataclass

from torch import Tensor, nn

from headprobe.capture.masks import Inputs


@dataclass(frozen=True)
class Call:
    """One attention call: the module at work, the shape [row, head, query, key], and what its own mask shows.

    `source` are the queries and keys where the call has them, to tell a call that is made twice.
    """

    path: str
    module: nn.Module
    shape: tuple[int, int, int, int]
    structure: Tensor | None
    kv_heads: int
    sink: bool = False
    window: int | None = None
    source: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Piece:
    """Queries and keys of a call that belong together, and the sequence of each row of the batch axis."""

    rows: tuple[int, ...]
    queries: slice
    keys: slice

    def cut(self, probs: Tensor, structure: Tensor | None, start: int) -> tuple[Tensor, Tensor | None, int]:
        """Of probabilities from query `start` on those of the piece, its structure, and the first query within it."""
        if self.keys == slice(0, probs.shape[3]) and self.queries.start == 0:
            return probs, structure, start
        first, last = max(start, self.queries.start), min(start + probs.shape[2], self.queries.stop)
        part = probs[:, :, first - start : max(last, first) - start, self.keys]
        if structure is not None:
            structure = structure[:, self.queries if structure.shape[1] > 1 else slice(None), self.keys]
        return part, structure, first - self.queries.start


def pieces(call: Call, inputs: Inputs, first: int, total: int, lengths: Tensor | None) -> list[Piece]:
    """The call as a whole, or the images that it holds one after the other in a single row.

    `first` of the layer's `total` positions came in calls before it; `lengths` is what the layer was told of them.
    """
    batch, _, queries, keys = call.shape
    ends = inputs.ends(queries, lengths) if batch == 1 < inputs.batch and queries == keys == total else None
    if ends is None:
        return [Piece(inputs.owners(batch, first, total, call.path, lengths), slice(0, queries), slice(0, keys))]
    images = len(ends) // inputs.batch
    spans = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    return [Piece((number // images,), span, span) for number, span in enumerate(spans)]
