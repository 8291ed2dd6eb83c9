"""The shapes of images, sounds and series that a model's config speaks of, filled at random."""

from typing import Any

import torch
from torch import Tensor

from headprobe.feed.takes import parameters, sound_name, takes_videos
from headprobe.load.images import image_shape

SECOND = 16_000  # samples
FRAMES = 200  # of features, where the config names no length
PARTS = ("audio_config", "vision_config", "encoder")
GRID = 4  # patches a side, of which a model that packs images merges some
REGIONS = 10  # of an image, where a detector's features stand for it


def named(config: Any, *names: str) -> Any:
    """The first whole number that a config, or the part of it for images or sounds, has under one of the names."""
    parts = (config, *(getattr(config, part, None) for part in PARTS))
    values = (getattr(part, name, None) for part in parts for name in names)
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool)), None)


def pixels(model: Any, rng: torch.Generator) -> dict[str, Tensor]:
    """One image, or one video where the config counts frames."""
    if "image_grid_thw" in parameters(model):
        return _packed(model.config, rng)
    channels, height, width = image_shape(model.config)
    if "image_sizes" in parameters(model) and getattr(model.config, "image_grid_pinpoints", None):
        return _cut_up(model.config, (channels, height, width), rng)
    if "image_sizes" in parameters(model) and named(model.config, "spatial_merge_size"):
        image = torch.randn(1, channels, height, width, generator=rng)
        return {"pixel_values": image, "image_sizes": torch.tensor([[height, width]])}
    frames = (model.config.num_frames,) if takes_videos(model) else ()
    return {"pixel_values": torch.randn(1, *frames, channels, height, width, generator=rng)}


def sound(model: Any, rng: torch.Generator) -> dict[str, Tensor]:
    """One sound: samples, or features as the config counts them."""
    config, name = model.config, sound_name(model)
    bins, longest = named(config, "num_mel_bins"), named(config, "max_source_positions")
    shape: tuple[int, ...] = (SECOND,)
    if getattr(getattr(config, "audio_config", None), "spec_size", None):
        spec = config.audio_config.spec_size
        shape = (1, min(FRAMES, spec * (spec // bins)), bins)
    elif bins and longest and name == "input_features" and not named(config, "input_feat_per_channel"):
        shape = (bins, 2 * longest)
    elif bins:
        shape = (named(config, "max_length") or FRAMES, bins)
    elif name == "input_features":
        shape = (FRAMES, named(config, "feature_projection_input_dim", "input_feat_per_channel", "input_dim") or 80)
    made = {str(name): torch.randn(1, *shape, generator=rng)}
    if "is_longer" in parameters(model):
        made["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)
    return made


def series(model: Any, rng: torch.Generator) -> dict[str, Tensor]:
    """A time series, or the numbers that a model of anything takes; nothing where the config doesn't tell."""
    config, names = model.config, parameters(model)
    if "past_values" in names and "past_time_features" not in names and named(config, "context_length"):
        shape = (named(config, "context_length"), named(config, "num_input_channels") or 1)
        return {"past_values": torch.randn(1, *shape, generator=rng)}
    if "past_time_features" in names and named(config, "context_length"):
        return _dated_series(config, rng)
    if "inputs" in names and named(config, "d_model"):
        return {"inputs": torch.randn(1, FRAMES, named(config, "d_model"), generator=rng)}
    return {}


def visual_features(model: Any, rng: torch.Generator) -> dict[str, Tensor]:
    """What a detector found in an image, for models that take that instead of the image."""
    sizes = {
        name: named(model.config, f"{name.replace('feats', 'feat')}_dim") for name in ("visual_feats", "visual_pos")
    }
    return {
        name: torch.rand(1, REGIONS, size, generator=rng)
        for name, size in sizes.items()
        if size and name in parameters(model)
    }


def _dated_series(config: Any, rng: torch.Generator) -> dict[str, Tensor]:
    past = config.context_length + max(getattr(config, "lags_sequence", None) or [0])
    values = () if config.input_size == 1 else (config.input_size,)
    dates = max(config.num_time_features, 1)

    def made(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=rng)

    return {
        "past_values": made(past, *values),
        "past_time_features": made(past, dates),
        "past_observed_mask": torch.ones(1, past, *values),
        "future_values": made(config.prediction_length, *values),
        "future_time_features": made(config.prediction_length, dates),
    }


def _cut_up(config: Any, shape: tuple[int, int, int], rng: torch.Generator) -> dict[str, Tensor]:
    """An image whole and in pieces, in the first of the shapes that the config names."""
    height, width = config.image_grid_pinpoints[0]
    pieces = (height // shape[1]) * (width // shape[2])
    return {
        "pixel_values": torch.randn(1, 1 + pieces, *shape, generator=rng),
        "image_sizes": torch.tensor([[height, width]]),
    }


def _packed(config: Any, rng: torch.Generator) -> dict[str, Tensor]:
    """An image as rows of patches, for models that pack images of all sizes into one sequence."""
    channels = named(config, "in_channels", "in_chans", "num_channels") or 3
    patch, frames = named(config, "patch_size") or 14, named(config, "temporal_patch_size") or 1
    side = GRID * (named(config, "spatial_merge_size") or 1)
    return {
        "pixel_values": torch.randn(side * side, channels * frames * patch * patch, generator=rng),
        "image_grid_thw": torch.tensor([[1, side, side]]),
    }
