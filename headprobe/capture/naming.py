"""What a site is, told from the call and its mask: kind, layer, groups of heads."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from headprobe.capture.frames import Frame, is_attention
from headprobe.capture.layout import merged
from headprobe.tile import Kind

UNREACHED = -1e8
HIDDEN = -9e3  # additive masks hide with -1e4, -1e9, finfo.min or -inf; no bias of a key that some head can see is less


def tower(path: str) -> str:
    """The part of the model that a module's stack belongs to: `vision_model.encoder`, or "" for a bare stack."""
    parts = path.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return ".".join(parts[: max(at - 1, 0)])


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
    frame: Frame | None, structure: Tensor | None, call: tuple[int, int, int], valid: Callable[[], Tensor | None]
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
    mask = structure.any(1) if mask is None else mask
    if int(mask.sum(-1).max()) < 2:  # single tokens: no mask shows in them
        return "decoder" if declared else "encoder"
    return "decoder" if one_directional(structure, mask) else "encoder"


def visible(mask: Tensor) -> Tensor:
    """[batch or 1, query, key] bool from an additive or boolean mask [batch or 1, head or 1, query or 1, key].

    A key counts as visible if any head sees it: masks with an axis of heads carry biases, not other supports.
    """
    seen = mask if mask.dtype == torch.bool else mask > HIDDEN
    return seen.any(dim=1)


def unhidden(scores: Tensor) -> Tensor:
    """Bool: the scores that no mask was added to. A NaN is one of them.

    A score can be low by itself where a whole row is low; only what no score reaches is hidden there, and may be all
    of a row of padding.
    """
    low = scores <= HIDDEN
    if not scores.is_meta and not bool(low.any()):
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


def one_directional(structure: Tensor, valid: Tensor) -> bool:
    """True if some query sees nothing after it that others see back: what masked self-attention is.

    Causal, sliding causal, chunked and prefix masks are so. Packed documents are not, since what their last tokens do
    not see does not see them; nor are windows that reach less far forward than back.
    """
    seen = structure & (valid[:, :, None] & valid[:, None, :])
    if torch.equal(seen, seen.mT):
        return False
    followed = valid.flip(-1).cumsum(-1).flip(-1) > 1  # not the last of its sequence
    return bool((valid & followed & ~seen.triu(1).any(-1)).any())


def widest(structure: Tensor | None) -> int | None:
    """The most keys that a query sees, where none sees all that others see: a window or a chunk; else None."""
    if structure is None or structure.is_meta or structure.shape[1] == 1:
        return None
    most, all_seen = structure.sum(-1).amax(-1), structure.any(1).sum(-1)
    return int(most.max()) if bool((most < all_seen).any()) else None


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
