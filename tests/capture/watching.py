"""Tiny random models, and their tiles by site."""

from typing import Any

import torch
import transformers as hf
from torch import nn

from headprobe.capture import observing
from headprobe.tile import AttentionTile, Site


def watch(
    model: nn.Module, tile_bytes: int = 2**28, /, **inputs: Any
) -> tuple[dict[Site, list[AttentionTile]], list[str]]:
    tiles: dict[Site, list[AttentionTile]] = {}
    with (
        torch.inference_mode(),
        observing(model, lambda tile: tiles.setdefault(tile.site, []).append(tile), tile_bytes=tile_bytes) as observer,
    ):
        model(**inputs)
    return tiles, observer.notes


def make(config: Any) -> Any:
    torch.manual_seed(0)
    model = hf.AutoModel.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            nn.init.normal_(weight, std=0.2)
    return model
