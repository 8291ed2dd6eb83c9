"""What a site is, told from the call and its mask: kind, layer, groups of heads."""

from collections.abc import Callable
from itertools import takewhile

from torch import Tensor, nn

from headprobe import devices
from headprobe.capture.frames import Frame, is_attention
from headprobe.capture.layout import merged
from headprobe.capture.structure import HIDDEN, Structure
from headprobe.tile import Kind

UNREACHED = -1e8


def tower(path: str) -> str:
    """The part of the model that a module's stack belongs to: `vision_model.encoder`, or "" for a bare stack."""
    parts = path.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: max(at - 1, 0)])


def first_number(path: str) -> int:
    """The layer that a module's path names, 0 where it names none."""
    return next((int(part) for part in path.split(".") if part.isdigit()), 0)


def shared_parts(one: str, other: str) -> int:
    """How many modules two paths have in common, from the model on."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def key_value_heads(module: nn.Module, heads: int) -> int:
    """How many key-value heads a module says its query heads share."""
    groups = getattr(module, "num_key_value_groups", None)
    if isinstance(groups, int) and groups > 0 and heads % groups == 0:
        return heads // groups
    for name in ("num_key_value_heads", "num_kv_heads", "kv_heads"):
        count = getattr(module, name, None)
        if isinstance(count, int) and 0 < count <= heads and heads % count == 0:
            return count
    return heads


def kind_of(
    frame: Frame | None, structure: Structure | None, call: tuple[int, int, int], valid: Callable[[], Tensor | None]
) -> Kind:
    """Encoder, decoder or cross: from where the keys came, and from what the mask hides.

    `call` is the call's rows, queries and keys; `valid` gives the padding mask of a text of so many positions,
    if there is one.
    """
    rows, queries, keys = call
    if frame is not None and (frame.reads_elsewhere(rows, keys) or merged(frame.module)):
        return "cross"
    declared = getattr(frame.module, "is_causal", None) if frame else None
    if structure is not None and structure.is_meta and declared is not True:
        raise NotImplementedError("whether attention is masked can't be told from shapes")
    if structure is None or structure.is_meta or queries != keys or queries == 1:
        return "decoder" if declared and (structure is not None or queries == 1) else "encoder"
    mask = valid()
    mask = structure.seen_keys if mask is None else mask
    if int(mask.sum(-1).max()) < 2:  # single tokens: no mask shows in them
        return "decoder" if declared else "encoder"
    return "decoder" if structure.one_directional(mask) else "encoder"


def unhidden(scores: Tensor) -> Tensor:
    """Bool: the scores that no mask was added to. A NaN is one of them.

    A score can be low by itself where a whole row is low; only what no score reaches is hidden there, and may be all
    of a row of padding.
    """
    low = scores <= HIDDEN
    if devices.at_hand(scores) and not bool(low.any()):
        return ~low
    return ~(low & ((scores <= scores.amax(-1, keepdim=True) + HIDDEN / 2) | (scores <= UNREACHED)))


def without_filling(seen: Tensor, batch: int, positions: int) -> Tensor:
    """What is seen [block, query, key] by the queries of blocks, of which the last is filled up past the positions.

    `positions` counts those of all sequences.
    """
    filling = seen.shape[0] * seen.shape[1] - positions
    if filling > 0 and filling % batch == 0:
        seen.view(batch, -1, seen.shape[2])[:, -filling // batch :] = False
    return seen


class Layers:
    """Numbers sites within their stacks: by the number in the module's path, else in order of execution."""

    def __init__(self) -> None:
        self._taken: dict[tuple[Kind, str], list[int]] = {}

    def number(self, path: str, kind: Kind) -> int:
        """The layer of a site seen for the first time.

        `encoder.layer.3.attention` is layer 3 of `encoder.layer` even if the layers before it have no attention; a
        module that is called again, and blocks nested in stages, follow in order.
        """
        parts = path.split(".")
        at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        stack, wanted = (path, 0) if at is None else (".".join(parts[:at]), int(parts[at]))
        taken = self._taken.setdefault((kind, stack), [])
        layer = wanted if not taken or wanted > max(taken) else max(taken) + 1
        taken.append(layer)
        return layer


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The innermost modules that call themselves attention, by path: each must be seen at work, or the scan refused."""
    named = {
        path: module
        for path, module in model.named_modules()
        if is_attention(module)
        and not type(module).__name__.endswith("Output")
        and type(module).forward is not nn.Module.forward  # a helper that is never called as a module
    }
    return {
        path: module
        for path, module in named.items()
        if not any(other.startswith(f"{path}." if path else "") and other != path for other in named)
    }
