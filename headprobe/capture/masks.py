"""Which positions are padding: read from what the model was called with, else from what the call's own mask hides."""

import inspect
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from headprobe.capture.structure import Structure
from headprobe.errors import InputError
from headprobe.masks import positions
from headprobe.tile import Kind

PADDING = ("attention_mask", "pixel_mask", "padding_mask", "features_mask")  # how names of padding masks end
TEXT = ("input_ids", "decoder_input_ids", "inputs_embeds", "attention_mask")  # whose first axis counts sequences
OTHERS = ("pixel_values", "input_values", "input_features", "audio_values", "image_embeds")
GRIDS = (
    "grid_thw",
    "grid_hw",
    "grid_hws",
    "spatial_shapes",
    "target_sizes",
    "image_sizes",
    "_lens",
    "_lengths",
)  # sizes of images packed into one row


@dataclass(frozen=True)
class Extent:
    """A call's size: rows of its batch axis, queries and keys."""

    rows: int
    queries: int
    keys: int


@dataclass(frozen=True, eq=False)
class Masks:
    """The padding of a call: `queries` [row, query] and `keys` [row, key] bool, False at padding.

    The same object for all calls of a forward pass that share it.
    """

    queries: Tensor
    keys: Tensor
    _parts: dict[tuple[int, int], "Masks"] = field(default_factory=dict, init=False, repr=False)

    def of(self, rows: slice) -> "Masks":
        """Those of some rows."""
        if len(self.queries[rows]) == len(self.queries):
            return self
        key = rows.start, rows.stop
        if key not in self._parts:
            self._parts[key] = Masks(self.queries[rows], self.keys[rows])
        return self._parts[key]

    @cached_property
    def query_positions(self) -> Tensor:
        """[row, query]: ranks among the valid queries."""
        return positions(self.queries)

    @cached_property
    def key_positions(self) -> Tensor:
        """[row, key]: ranks among the valid keys."""
        return positions(self.keys)


def named(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, also those that a wrapper takes together to pass them on."""
    arguments: dict[str, Any] = {}
    for name, value in signature.bind_partial(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= value
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            arguments |= {f"{name}[{at}]": each for at, each in enumerate(value)}
        else:
            arguments[name] = value
    return arguments


class Inputs:
    """The sequences of one forward pass and their padding masks, by the names that transformers' models use."""

    def __init__(self, arguments: dict[str, Any], *, decodes: bool = False) -> None:
        tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor) and value.dim()}
        self._grids = [value for name, value in tensors.items() if name.endswith(GRIDS)]
        other = any(name.startswith(OTHERS) for name in tensors)
        self._several = other and any(name in tensors for name in ("input_ids", "inputs_embeds"))
        self._decodes = decodes
        padding = {name: value for name, value in tensors.items() if name.endswith(PADDING)}
        self._masks = {name: value.bool() for name, value in padding.items() if value.dim() == 2}
        self._padded = any(not bool(value.all()) for value in padding.values() if not value.is_meta)
        self.batch = self._batch(tensors)
        # what was made is kept beside what it was made of, so that ids stay their own
        self._made: dict[tuple[Kind, Extent, int, torch.device], tuple[Structure | None, Masks]] = {}
        self._ends: dict[tuple[int, int], tuple[Tensor | None, list[int] | None]] = {}

    def _batch(self, tensors: dict[str, Tensor]) -> int:
        counted = [tensors[name] for name in TEXT if name in tensors] or self._grids or list(tensors.values())
        return counted[0].shape[0] if counted else 1

    def text_mask(self, length: int, device: torch.device) -> Tensor | None:
        """[batch, length] bool: the mask of the stack whose sequences are `length` long, to tell its kind by."""
        for name in ("attention_mask", "decoder_attention_mask"):
            mask = self._masks.get(name)
            if mask is not None and mask.shape[1] == length:
                return mask.to(device)
        return None if self._padded else torch.ones(1, length, dtype=torch.bool, device=device)

    def owners(self, rows: int, first: int, total: int, path: str, lengths: Tensor | None) -> tuple[int, ...]:
        """The sequence of each row of a call's batch axis, of which `first` of `total` positions came before.

        Windows and frames of a sequence follow each other. A single row is of the image that its positions belong to
        where the images' sizes are known.
        """
        if rows % self.batch == 0:
            return tuple(row // (rows // self.batch) for row in range(rows))
        if rows == 1:
            ends = self.ends(total, lengths)
            if ends is not None:
                return (sum(end <= first for end in ends) * self.batch // len(ends),)
        raise InputError(
            "E-LAYOUT",
            f"{path} has {rows} rows for {self.batch} sequences, and nothing says which row is whose",
            "Scan one sequence at a time: --batch-size 1.",
        )

    def ends(self, total: int, lengths: Tensor | None) -> list[int] | None:
        """Where each packed image ends among `total` positions, None where neither the layer nor the inputs say it.

        The layer was given `lengths`, cumulative: of images or sounds if there is one for each sequence, else perhaps
        of their windows or chunks.
        """
        key = id(lengths), total
        if key not in self._ends:
            self._ends[key] = lengths, self._read_ends(total, lengths)
        return self._ends[key][1]

    def _read_ends(self, total: int, lengths: Tensor | None) -> list[int] | None:
        if lengths is not None and not lengths.is_meta and len(lengths) == self.batch + 1 and int(lengths[-1]) == total:
            return [int(end) for end in lengths[1:]]
        for grid in self._grids:
            sizes = (grid.prod(-1) if grid.dim() == 2 else grid.reshape(-1)).tolist()
            if sum(sizes) and all(size * total % sum(sizes) == 0 for size in sizes) and len(sizes) % self.batch == 0:
                return [sum(sizes[: i + 1]) * total // sum(sizes) for i in range(len(sizes))]
        return None

    def of(self, kind: Kind, extent: Extent, structure: Structure | None, device: torch.device) -> Masks:
        """The masks of a call whose own mask shows `structure`, made once for all calls like it."""
        if structure is not None and structure.of_one_call:
            return Masks(*self._padding(kind, extent, structure, device))
        key = kind, extent, id(structure), device
        if key not in self._made:
            self._made[key] = structure, Masks(*self._padding(kind, extent, structure, device))
        return self._made[key][1]

    def _padding(
        self, kind: Kind, extent: Extent, structure: Structure | None, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        rows, queries, keys = extent.rows, extent.queries, extent.keys
        if not self._padded or (structure is None and self._several):  # a tower of another kind of input
            every = torch.ones(rows, max(queries, keys), dtype=torch.bool, device=device)
            # a query that sees nothing is padding of the model's own making: the rest of a last block, say
            seeing = every[:, :queries] if structure is None or structure.is_meta else structure.seeing
            return every[:, :queries] & seeing, every[:, :keys]
        key_mask = self._named(self._name(kind, of_keys=True), rows, keys, device)
        query_mask = self._named(self._name(kind, of_keys=False), rows, queries, device)
        if kind != "cross" and key_mask is not None and queries <= keys:
            query_mask = key_mask[:, keys - queries :]
        if key_mask is not None and query_mask is not None:
            return query_mask, key_mask
        return self._shown(kind, extent, structure, (query_mask, key_mask), device)

    def _shown(
        self,
        kind: Kind,
        extent: Extent,
        structure: Structure | None,
        known: tuple[Tensor | None, Tensor | None],
        device: torch.device,
    ) -> tuple[Tensor, Tensor]:
        """Padding as the call's own mask has it: a key that nobody sees, and in self-attention its query."""
        rows, queries, keys = extent.rows, extent.queries, extent.keys
        query_mask, key_mask = known
        every = torch.ones(rows, max(queries, keys), dtype=torch.bool, device=device)
        seen = every[:, :keys] if structure is None else structure.seen_keys.expand(rows, keys)
        seeing = every[:, :queries] if structure is None else structure.seeing.expand(rows, queries)
        if key_mask is None:
            key_mask = seen
        if query_mask is None:
            same = kind != "cross" and queries == keys
            query_mask = (key_mask if same else seeing) & seeing
        return query_mask, key_mask

    def _name(self, kind: Kind, *, of_keys: bool) -> str:
        if kind == "cross" and of_keys:
            return "attention_mask" if self._decodes else "encoder_attention_mask"
        return "decoder_attention_mask" if self._decodes and kind != "encoder" else "attention_mask"

    def _named(self, name: str, rows: int, length: int, device: torch.device) -> Tensor | None:
        mask = self._masks.get(name)
        if mask is None and name == "decoder_attention_mask":  # targets of one length need none
            return torch.ones(rows, length, dtype=torch.bool, device=device)
        return mask.to(device) if mask is not None and mask.shape == (rows, length) else None
