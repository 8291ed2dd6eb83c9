"""Which positions are padding, read from what the model was called with."""

from typing import Any

import torch
from torch import Tensor

from headprobe.errors import InputError
from headprobe.tile import Site

Masks = tuple[Tensor, Tensor]


class InputMasks:
    """The padding masks [batch, length] of one forward pass, by the names that transformers' models use."""

    def __init__(self, arguments: dict[str, Any], *, decodes: bool = False) -> None:
        tensors = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
        self.batch = next((value.shape[0] for value in tensors.values() if value.dim() >= 1), 1)
        self._decodes = decodes
        self._masks: dict[str, Tensor] = {
            name: _checked(name, tensors[name])
            for name in ("attention_mask", "decoder_attention_mask", "encoder_attention_mask")
            if name in tensors
        }

    def for_self_attention(self, length: int, device: torch.device) -> Tensor:
        """[batch, length] bool: the mask of the stack whose sequences are `length` long, to tell its kind by."""
        for name in ("attention_mask", "decoder_attention_mask"):
            mask = self._masks.get(name)
            if mask is not None and mask.shape[1] == length:
                return mask.to(device)
        return torch.ones(1, length, dtype=torch.bool, device=device)

    def of(self, site: Site, queries: int, keys: int, device: torch.device) -> Masks:
        """The query mask [batch, queries] and the key mask [batch, keys] of a site."""
        if site.kind == "cross":
            own, source = "attention_mask", "encoder_attention_mask"
            if self._decodes:
                own, source = "decoder_attention_mask", "attention_mask"
            return self._mask(own, queries, site, device), self._mask(source, keys, site, device)
        name = "decoder_attention_mask" if self._decodes and site.kind == "decoder" else "attention_mask"
        key_mask = self._mask(name, keys, site, device)
        if keys < queries:
            raise InputError(
                "E-LAYOUT", f"{site.path} has {queries} queries on {keys} keys", "This architecture is not supported."
            )
        return key_mask[:, keys - queries :], key_mask

    def _mask(self, name: str, length: int, site: Site, device: torch.device) -> Tensor:
        mask = self._masks.get(name)
        if mask is None:
            return torch.ones(self.batch, length, dtype=torch.bool, device=device)
        if mask.shape != (self.batch, length):
            raise InputError(
                "E-LAYOUT",
                f"{site.path} attends over [{self.batch}, {length}] positions, {name} covers {list(mask.shape)}",
                "Models that add positions of their own are not supported.",
            )
        return mask.to(device)


def _checked(name: str, mask: Tensor) -> Tensor:
    if mask.dim() != 2:
        raise InputError("E-MASK", f"{name} has shape {list(mask.shape)}", "Give it as [batch, length].")
    return mask.bool()
