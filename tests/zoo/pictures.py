"""Images and videos in the layouts that models take them in, the likeliest first."""

from collections.abc import Iterator
from typing import Any

import torch

from tests.zoo.facts import BATCH, Facts

Values = dict[str, Any]
GRIDS = ([1, 4, 4], [1, 4, 8])  # frames, rows and columns of patches


def pictures(facts: Facts, takes: set[str]) -> Iterator[Values]:
    """Every layout of images that the signature allows."""
    torch.manual_seed(2)
    if takes & {"image_grid_thw", "grid_thw"}:
        yield from _packed(facts, takes)
    if "flattened_patches" in takes:
        features = 2 + facts.picture("num_channels", 3) * facts.picture("patch_size", 16) ** 2
        for width in (features, 2 + 3 * 16 * 16):
            patches = torch.randn(BATCH, 12, width)
            patches[..., :2] = torch.stack([torch.arange(12) // 4, torch.arange(12) % 4], -1) + 1
            yield {"flattened_patches": patches, "attention_mask": torch.ones(BATCH, 12)}
    if "pixel_values" in takes:
        yield from _frames(facts, takes)
    if "pixel_values_videos" in takes and not takes & {"video_grid_thw"}:
        yield from ({"pixel_values_videos": video} for video in _videos(facts))


def _size(facts: Facts) -> list[tuple[int, int]]:
    size = facts.picture("image_size", None)
    if isinstance(size, dict):
        size = (size.get("height", 32), size.get("width", 32))
    if isinstance(size, int):
        size = (size, size)
    first = [tuple(size)] if isinstance(size, list | tuple) and len(size) == 2 else []
    return [*first, *((n, n) for n in (32, 64, 128, 224) if (n, n) not in first)]


def _channels(facts: Facts) -> int:
    for name in ("num_channels", "in_channels", "in_chans"):
        value = facts.picture(name, None)
        if isinstance(value, int):
            return value
    return 3


def _frames(facts: Facts, takes: set[str]) -> Iterator[Values]:
    channels, sizes = _channels(facts), _size(facts)
    for height, width in sizes:
        extra = _beside(facts, takes, height, width)
        images = torch.randn(BATCH, channels, height, width)
        yield {"pixel_values": images} | extra
        if (height, width) == sizes[0]:
            yield {"pixel_values": images[:, None]} | extra
            yield {"pixel_values": images[:, None].repeat(1, 3, 1, 1, 1)} | extra
            yield {"pixel_values": images}
    frames = facts.picture("num_frames", 2)
    if isinstance(frames, int):
        yield {"pixel_values": torch.randn(BATCH, frames, channels, *sizes[0])}


def _beside(facts: Facts, takes: set[str], height: int, width: int) -> Values:
    extra: Values = {}
    if "image_sizes" in takes:
        extra["image_sizes"] = torch.tensor([[height, width]] * BATCH)
    if "pixel_mask" in takes:
        extra["pixel_mask"] = torch.ones(BATCH, height, width, dtype=torch.long)
    return extra


def _packed(facts: Facts, takes: set[str]) -> Iterator[Values]:
    """All patches of all images one after the other, with the grid that each of them has."""
    patch, frames = facts.picture("patch_size", 8), facts.picture("temporal_patch_size", 1)
    merge = facts.picture("spatial_merge_size", 2)
    grid = torch.tensor([[t, max(h, merge), max(w, merge)] for t, h, w in GRIDS])
    number = int(grid.prod(-1).sum())
    names = ("pixel_values", "image_grid_thw") if "image_grid_thw" in takes else ("hidden_states", "grid_thw")
    if names[0] not in takes:
        names = ("pixel_values", names[1])
    channels = _channels(facts)
    for features in dict.fromkeys([channels * frames * patch**2, channels * patch**2, channels * 2 * patch**2]):
        yield {names[0]: torch.randn(number, features), names[1]: grid}
    yield {names[0]: torch.randn(number, channels, patch, patch), names[1]: grid}
    yield {names[0]: torch.randn(1, number, channels, patch, patch), names[1]: grid}


def _videos(facts: Facts) -> Iterator[torch.Tensor]:
    frames = facts.picture("num_frames", facts.picture("frames_per_clip", 4))
    for size in _size(facts)[:2]:
        yield torch.randn(BATCH, frames, _channels(facts), *size)
