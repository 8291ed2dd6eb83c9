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
    if {"spatial_shapes", "pixel_attention_mask"} <= takes:
        yield from _patches(facts)
    if takes & {"pixel_position_ids", "image_position_ids"}:
        yield from _placed(facts, takes)
    if "target_sizes" in takes:
        patch, sizes = facts.picture("patch_size", 14), torch.tensor([[4, 4], [4, 8]])
        yield {"pixel_values": torch.randn(1, 3, patch, patch * int(sizes.prod(-1).sum())), "target_sizes": sizes}
    if "image_grid_hw" in takes:
        patch, sizes = facts.picture("patch_size", 16), torch.tensor([[4, 4], [4, 8]])
        yield {"pixel_values": torch.randn(48, 3 * patch**2), "image_grid_hw": sizes}
        yield {"pixel_values": torch.randn(48, 3, patch, patch), "image_grid_hw": sizes}
    if "aspect_ratio_ids" in takes:
        yield from _tiles(facts, takes)
    if "flattened_patches" in takes:
        features = 2 + facts.picture("num_channels", 3) * facts.picture("patch_size", 16) ** 2
        for width in (features, 2 + 3 * 16 * 16):
            patches = torch.randn(BATCH, 12, width)
            patches[..., :2] = torch.stack([torch.arange(12) // 4, torch.arange(12) % 4], -1) + 1
            if "input_ids" in takes:
                yield {"flattened_patches": patches, "image_embeds_position_mask": _spots()}
            yield {"flattened_patches": patches, "attention_mask": torch.ones(BATCH, 12)}
    if "pixel_values" in takes:
        yield from _frames(facts, takes)
    if "pixel_values_videos" in takes and not takes & {"video_grid_thw"}:
        yield from ({"pixel_values_videos": video} for video in _videos(facts))


def _patches(facts: Facts) -> Iterator[Values]:
    """Patches in rows that are padded."""
    features = _channels(facts) * facts.picture("patch_size", 16) ** 2
    mask = (torch.arange(16)[None] < torch.tensor([[16], [8]])).long()
    shapes = torch.tensor([[4, 4], [2, 4]])
    yield {
        "pixel_values": torch.randn(BATCH, 16, features),
        "pixel_attention_mask": mask,
        "spatial_shapes": shapes,
    }


def _placed(facts: Facts, takes: set[str]) -> Iterator[Values]:
    """Patches with the place that each of them has."""
    pool = facts.picture("pooling_kernel_size", 1)
    side = 2 * (pool if isinstance(pool, int) else 1)
    places = torch.stack([torch.arange(side**2) % side, torch.arange(side**2) // side], -1)
    name = "pixel_position_ids" if "pixel_position_ids" in takes else "image_position_ids"
    for channels in dict.fromkeys([_channels(facts), 3]):
        patches = torch.rand(BATCH, side**2, channels * facts.picture("patch_size", 16) ** 2)
        yield {"pixel_values": patches, name: places.expand(BATCH, -1, -1).clone()}


def _tiles(facts: Facts, takes: set[str]) -> Iterator[Values]:
    """One image a row, cut into tiles."""
    tiles, (height, width) = facts.picture("max_num_tiles", 4), _size(facts)[0]
    values: Values = {
        "pixel_values": torch.randn(BATCH, 1, tiles, _channels(facts), height, width),
        "aspect_ratio_ids": torch.ones(BATCH, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(BATCH, 1, tiles, dtype=torch.long),
    }
    yield values


def _spots() -> torch.Tensor:
    """Where four tokens of a text are an image's."""
    return ((torch.arange(13) > 0) & (torch.arange(13) < 5)).expand(BATCH, -1).clone()


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
    if "high_res_pixel_values" in takes:
        size = facts.find("high_res_vision_config", None, ())
        side = getattr(size, "image_size", 32)
        extra["high_res_pixel_values"] = torch.randn(BATCH, 3, side, side)
    if "image_embeds_position_mask" in takes:
        extra["image_embeds_position_mask"] = _spots()
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
    sizes = next(({name: torch.tensor([merge] * BATCH)} for name in takes & {"merge_sizes", "image_merge_sizes"}), {})
    for features in dict.fromkeys([channels * frames * patch**2, channels * patch**2, channels * 2 * patch**2]):
        yield {names[0]: torch.randn(number, features), names[1]: grid} | sizes
    yield {names[0]: torch.randn(number, channels, patch, patch), names[1]: grid}
    yield {names[0]: torch.randn(1, number, channels, patch, patch), names[1]: grid}


def _videos(facts: Facts) -> Iterator[torch.Tensor]:
    frames = facts.picture("num_frames", facts.picture("frames_per_clip", 4))
    for size in _size(facts)[:2]:
        yield torch.randn(BATCH, frames, _channels(facts), *size)
