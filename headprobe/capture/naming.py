"""What a site is, told from the call and its mask: kind, layer, groups of heads."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headprobe.tile import Kind

HIDDEN = -9e3  # additive masks hide with -1e4, -1e9, finfo.min or -inf; no bias of a key that some head can see is less


@dataclass
class Frame:
    """A module that is running: what it was given beside its first argument, and which of that its parts read."""

    module: nn.Module
    path: str
    others: list[Tensor]
    read: list[Tensor]

    @property
    def calls_itself_attention(self) -> bool:
        """True if the module's class has attention in its name."""
        return "attention" in type(self.module).__name__.lower()

    def was_given(self, tensor: Tensor) -> bool:
        """True if the module was called with this very tensor beside its first argument."""
        return any(tensor is other for other in self.others)

    def reads_elsewhere(self, batch: int, keys: int) -> bool:
        """True if keys were made from another source than the queries: a projection read a second input.

        One that came down to the layer, that is: some layers hand their own queries and keys on separately.
        """
        shapes = ((batch, keys), (keys, batch))
        return any(source.dim() == 3 and source.shape[:2] in shapes for source in self.read)


def visible(mask: Tensor) -> Tensor:
    """[batch or 1, query, key] bool from an additive or boolean mask [batch or 1, head or 1, query or 1, key].

    A key counts as visible if any head sees it: masks with an axis of heads carry biases, not other supports.
    """
    seen = mask if mask.dtype == torch.bool else mask > HIDDEN
    return seen.any(dim=1)


def one_directional(structure: Tensor, valid: Tensor) -> bool:
    """True if some query may see a key whose query may not see it back: what masked self-attention is.

    Causal, sliding causal, chunked and prefix masks are so; bidirectional windows and packed documents are not.
    """
    seen = structure & (valid[:, :, None] & valid[:, None, :])
    return not torch.equal(seen, seen.mT)


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
        if "attention" in type(module).__name__.lower() and not type(module).__name__.endswith("Output")
    }
    return {
        path: module
        for path, module in named.items()
        if not any(other.startswith(f"{path}." if path else "") and other != path for other in named)
    }
