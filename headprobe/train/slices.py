"""Which numbers of a model's parameters are one head's: the query, key and value blocks of every attention module."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from headprobe.capture.naming import Layers, attention_modules
from headprobe.errors import InputError, UsageError
from headprobe.tile import Kind
from headprobe.train.choice import ChosenKinds, ChosenLayers, chosen_kinds, chosen_layers
from headprobe.train.projections import Block, heads_of

CAUSAL_UNTOLD = ("BloomAttention", "MptAttention")  # masked, though no attribute of the module says so
CROSS = ("cross", "encoder_attn", "EncDec")  # in the path of cross-attention


@dataclass(frozen=True, eq=False)
class HeadParameters:
    """The parameters of one attention module by head: head h owns unit `h * units // heads` of every block."""

    path: str
    kind: Kind
    layer: int
    heads: int
    queries: tuple[Block, ...]
    keys: tuple[Block, ...]
    values: tuple[Block, ...]

    @classmethod
    def of(cls, path: str, module: nn.Module, kind: Kind, layer: int) -> HeadParameters:
        """Those of a module. Raises `InputError` where its heads can't be told apart."""
        heads, (queries, keys, values) = heads_of(path, module)
        return cls(path, kind, layer, heads, queries, keys, values)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All of them."""
        return (*self.queries, *self.keys, *self.values)


def sliced(model: nn.Module, layers: ChosenLayers = None, kinds: ChosenKinds = None) -> tuple[HeadParameters, ...]:
    """Every chosen attention module's parameters by head, in the order of the modules; a shared module once.

    `layers` as "0-3,7", a number or numbers; `kinds` of "encoder", "decoder" and "cross".
    Raises `InputError` for a module whose heads can't be told apart, `UsageError` where the choice finds nothing.
    """
    wanted, chosen = chosen_layers(layers), chosen_kinds(kinds)
    numbers = Layers()
    kinds_of = {path: _kind(path, module) for path, module in attention_modules(model).items()}
    places = [(path, kind, numbers.number(path, kind)) for path, kind in kinds_of.items()]
    if not places:
        raise InputError("E-NOATTN", f"{type(model).__name__} has no attention layers")
    _check(wanted, {layer for _, _, layer in places})
    found = tuple(
        HeadParameters.of(path, model.get_submodule(path), kind, layer)
        for path, kind, layer in places
        if (wanted is None or layer in wanted) and (chosen is None or kind in chosen)
    )
    if not found:
        known = ", ".join(sorted(set(kinds_of.values())))
        raise UsageError(
            "E-KIND", "no attention layer is of the kinds and layers asked for", f"The model has: {known}."
        )
    return _distinct(found)


def _check(wanted: list[int] | None, known: set[int]) -> None:
    absent = sorted(set(wanted or ()) - known)
    if absent:
        raise UsageError("E-LAYERS", f"the model has no layer {absent[0]}", f"Its layers are 0 to {max(known)}.")


def _kind(path: str, module: nn.Module) -> Kind:
    if getattr(module, "is_cross_attention", False) or any(word in path for word in CROSS):
        return "cross"
    causal = getattr(module, "is_causal", type(module).__name__ in CAUSAL_UNTOLD)
    return "decoder" if causal else "encoder"


def _distinct(found: tuple[HeadParameters, ...]) -> tuple[HeadParameters, ...]:
    """Modules that are tied as a whole once; a parameter that is tied otherwise has no head of its own."""
    owners: dict[int, HeadParameters] = {}
    kept = []
    for each in found:
        first = owners.get(id(each.blocks[0].parameter))
        if first is not None and [b.key for b in first.blocks] == [b.key for b in each.blocks]:
            continue
        kept.append(each)
        _own(each, owners)
    return tuple(kept)


def _own(each: HeadParameters, owners: dict[int, HeadParameters]) -> None:
    seen: set[tuple[int, int, tuple[int, ...]]] = set()
    for block in each.blocks:
        owner = owners.setdefault(id(block.parameter), each)
        if owner is not each or block.key in seen:
            other = owner.path if owner is not each else "another projection of it"
            raise InputError(
                "E-TIED", f"{each.path} shares a weight with {other}, so that its heads have none of their own"
            )
        seen.add(block.key)
