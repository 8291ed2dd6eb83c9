"""Built-in images: seeded patterns of edges, gradients, blobs and strokes, drawn at the model's own size."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headprobe.errors import InputError
from headprobe.load.collate import Batch, Encoded, Input
from headprobe.load.preflight import read_json

BUILT_IN = "patterns-1"
COUNT = 32


def built_in_images(config: Any, folder: Path, limit: int | None) -> Encoded:
    """`COUNT` images [channel, height, width], normalised as the checkpoint's preprocessor says (else to [-1, 1])."""
    height, width = _size(config)
    channels = getattr(config, "num_channels", 3)
    mean, std = _normalisation(folder, channels)
    images = [_pattern(i, channels, height, width) for i in range(min(limit or COUNT, COUNT))]
    return Encoded([Input(i, (image - mean) / std) for i, image in enumerate(images)], [])


def image_batches(images: list[Input], model: Any, size: int | None) -> Iterator[Batch]:
    """The images in batches of `size`, in the model's own precision."""
    parameter = next(model.parameters())
    for start in range(0, len(images), size or COUNT):
        group = images[start : start + (size or COUNT)]
        pixels = torch.stack([image.ids for image in group]).to(parameter)
        yield Batch({"pixel_values": pixels}, tuple(image.number for image in group))


def _size(config: Any) -> tuple[int, int]:
    size = getattr(config, "image_size", 224)
    return (size[0], size[1]) if isinstance(size, list | tuple) else (size, size)


def _normalisation(folder: Path, channels: int) -> tuple[Tensor, Tensor]:
    path = folder / "preprocessor_config.json"
    settings = read_json(path, "E-PROCESSOR") if path.is_file() else {}
    if not isinstance(settings, dict):
        raise InputError("E-PROCESSOR", f"{path} is not a JSON object")
    return _per_channel(settings, "image_mean", path, channels), _per_channel(settings, "image_std", path, channels)


def _per_channel(settings: dict[str, Any], name: str, path: Path, channels: int) -> Tensor:
    """[channel, 1, 1], from one number or one a channel; 0.5 where the settings have none."""
    given = settings.get(name)
    values = [0.5] if given is None else given if isinstance(given, list) else [given]
    if not all(isinstance(value, int | float) for value in values) or len(values) not in (1, channels):
        raise InputError("E-PROCESSOR", f"{path}: {name} is {json.dumps(given)}, not {channels} numbers")
    return torch.tensor([float(value) for value in values]).expand(channels)[:, None, None]


def _pattern(index: int, channels: int, height: int, width: int) -> Tensor:
    """One image with values in [0, 1]; its kind is given by the index, its details by a generator seeded with it."""
    rng = torch.Generator().manual_seed(index)
    y = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width)[None, :].expand(height, width)
    u = torch.rand(8, generator=rng)
    angle = float(u[0]) * math.pi
    along = x * math.cos(angle) + y * math.sin(angle)
    kinds = (
        lambda: along * 0.5 + 0.5,  # gradient
        lambda: (torch.sin(along * (4 + 16 * float(u[1]))) > 0).float(),  # stripes
        lambda: ((torch.sin(x * 9 * float(u[1] + 0.3)) * torch.sin(y * 9 * float(u[2] + 0.3))) > 0).float(),  # checks
        lambda: torch.exp(-((x - u[1] + 0.5) ** 2 + (y - u[2] + 0.5) ** 2) * (4 + 20 * u[3])),  # blob
        lambda: (((x * x + y * y).sqrt() - 0.3 - 0.4 * u[1]).abs() < 0.12).float(),  # ring
        lambda: ((along.abs() < 0.1) | ((x * math.sin(angle) - y * math.cos(angle)).abs() < 0.1)).float(),  # cross
        lambda: (along > float(u[1]) - 0.5).float(),  # edge
        lambda: torch.rand(height, width, generator=rng),  # noise
    )
    gray = kinds[index % len(kinds)]()
    tint = 0.4 + 0.6 * torch.rand(channels, generator=rng)
    noise = 0.03 * torch.randn(channels, height, width, generator=rng)
    return (gray[None] * tint[:, None, None] + noise).clamp(0, 1)
