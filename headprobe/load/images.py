"""Images to run a model on: files, or built-in patterns of edges, gradients and blobs, drawn at the model's size."""

import json
import math
import struct
import warnings
import zlib
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headprobe.errors import EnvironmentFailure, InputError
from headprobe.load.checkpoint import LOADING_FAULTS, first_line
from headprobe.load.collate import Encoded, Input
from headprobe.load.preflight import read_json

BUILT_IN = "patterns-1"
COUNT = 32
DAMAGED: tuple[type[Exception], ...] = (*LOADING_FAULTS, SyntaxError, struct.error, zlib.error)  # what Pillow raises
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def built_in_images(config: Any, folder: Path, limit: int | None) -> Encoded:
    """`COUNT` images [channel, height, width], normalised as the checkpoint's preprocessor says (else to [-1, 1])."""
    channels, height, width = image_shape(config)
    mean, std = _normalisation(folder, channels)
    images = [_pattern(i, channels, height, width) for i in range(min(limit or COUNT, COUNT))]
    return Encoded([Input(i, (image - mean) / std) for i, image in enumerate(images)], [])


def read_image(given: Any, channels: int, name: str) -> Any:
    """A Pillow image from a file or from Python, upright and with the model's channels.

    Raises `InputError` for what is no image. Formats that Pillow would start other programs for are not among them.
    """
    image, image_ops = _pillow(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", image.DecompressionBombWarning)
            is_file = isinstance(given, str | Path)
            with image.open(given, formats=FORMATS) if is_file else nullcontext(_picture(given, image)) as opened:
                return _in_bytes(image_ops.exif_transpose(opened), name).convert("L" if channels == 1 else "RGB")
    except (FileNotFoundError, UnicodeEncodeError) as fault:
        raise InputError("E-DATA", f"no image at {name}") from fault
    except IsADirectoryError as fault:
        raise InputError("E-DATA", f"{name} is a folder", "Give the files in it.") from fault
    except (image.DecompressionBombError, image.DecompressionBombWarning) as fault:
        raise InputError("E-IMAGE", f"{name} has too many pixels", f"Most: {image.MAX_IMAGE_PIXELS:,}.") from fault
    except image.UnidentifiedImageError as fault:
        raise InputError("E-IMAGE", f"{name} is no image that can be read", f"Valid: {', '.join(FORMATS)}.") from fault
    except DAMAGED as fault:
        if isinstance(fault, OSError) and fault.errno is not None:  # of the system, not of the content
            raise InputError("E-DATA", f"{name} can't be read: {fault.strerror}") from fault
        raise InputError("E-IMAGE", f"{name} is damaged: {first_line(fault)}") from fault


def built_in_image(index: int, size: int = 224) -> Any:
    """A pattern as a Pillow image, for processors that take images and no tensors."""
    image, _ = _pillow("the built-in image")
    pixels = (_pattern(index, 3, size, size) * 255).round().to(torch.uint8)
    return image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _pillow(name: str) -> tuple[ModuleType, ModuleType]:
    try:
        from PIL import Image, ImageOps
    except ImportError as fault:
        raise EnvironmentFailure(
            "E-PACKAGE", f'{name} needs the package "pillow"', 'Run: pip install "headprobe[images]"'
        ) from fault
    return Image, ImageOps


def _in_bytes(picture: Any, name: str) -> Any:
    """Pixels of 16 bits as bytes; Pillow itself would make everything brighter than 255 white."""
    if picture.mode.startswith("I"):
        pixels = np.asarray(picture).astype(np.int64)
        if pixels.min() < 0 or pixels.max() >= 2**16:
            raise InputError("E-IMAGE", f"{name} has pixels of more than 16 bits", "Convert it to 8 bits.")
        deep = picture.mode != "I" or pixels.max() > 255
        return _pillow(name)[0].fromarray((pixels >> 8 if deep else pixels).astype(np.uint8))
    if picture.mode == "F":
        raise InputError("E-IMAGE", f"{name} has pixels of floating point", "Convert it to 8 bits.")
    return picture


def _picture(given: Any, image: Any) -> Any:
    return given if isinstance(given, image.Image) else image.fromarray(np.asarray(given))


def image_shape(config: Any) -> tuple[int, int, int]:
    """Channels, height and width of the images that a config speaks of: its own, or those of its vision part."""
    names = ("vision_config", "image_config", "encoder", "backbone_config")
    parts = [config, *(getattr(config, name, None) for name in names)]

    def first(*names: str, default: Any) -> Any:
        values = (getattr(part, name, None) for part in parts for name in names)
        return next((value for value in values if isinstance(value, int | list | tuple)), default)

    size = first("image_size", "input_size", default=224)
    channels = first("num_channels", "in_channels", "in_chans", default=3)
    height, width = (size[0], size[1]) if isinstance(size, list | tuple) else (size, size)
    return channels if isinstance(channels, int) else 3, height, width


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
