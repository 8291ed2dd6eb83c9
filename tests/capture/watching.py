"""Tiny random models, and their tiles by site."""

from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from headprobe.capture import observing
from headprobe.capture.structure import Structure
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


def full(tile: AttentionTile, values: torch.Tensor | None = None) -> torch.Tensor:
    """A tile's probabilities, or other values of its keys, over all keys: with those that none of its queries sees."""
    values = tile.probs if values is None else values
    keys = values.shape[-1] - tile.site.sink
    every = tile.hides.shape[2] if isinstance(tile.hides, Structure) else keys
    unseen = max(0, every - keys) if tile.site.kind == "decoder" else 0
    padding = torch.zeros(*values.shape[:-1], unseen, dtype=values.dtype)
    return torch.cat([values[..., :keys], padding, values[..., keys:]], -1)


def joined(tiles: list[AttentionTile], parts: list[Tensor], rows: int) -> Tensor:
    """`parts`, one of each of a site's tiles, as one: along `rows` for the same sequences, then these one by one."""
    groups: dict[tuple[int, ...], list[tuple[AttentionTile, Tensor]]] = {}
    for tile, part in zip(tiles, parts, strict=True):
        groups.setdefault(tile.sequences, []).append((tile, part))
    for group in groups.values():
        ends = [0, *(tile.start + tile.probs.shape[2] for tile, _ in group)]
        assert [tile.start for tile, _ in group] == ends[:-1]
        assert [tile.ends for tile, _ in group] == [end == group[0][0].queries for end in ends[1:]]
    assert [number for group in groups for number in group] == list(range(sum(map(len, groups))))
    return torch.cat([torch.cat([part for _, part in group], rows) for group in groups.values()])
