"""A checkpoint's own image processor, feature extractor or processor of pairs: what its inputs were trained with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headprobe.errors import InputError, RefusedError
from headprobe.load.checkpoint import quiet, told
from headprobe.load.preflight import read_json

FILES = ("preprocessor_config.json", "processor_config.json")
TRAINED_FROM = "Copy it from the model that it was trained from."


def image_processor(folder: Path, trust_remote_code: bool) -> Any:
    """The image processor, which computes with Pillow: torchvision's results differ a little."""
    from transformers import AutoImageProcessor

    return _load(AutoImageProcessor.from_pretrained, "image processor", folder, trust_remote_code, backend="pil")


def feature_extractor(folder: Path, trust_remote_code: bool) -> Any:
    """What makes a sound's samples the model's features."""
    from transformers import AutoFeatureExtractor

    return _load(AutoFeatureExtractor.from_pretrained, "feature extractor", folder, trust_remote_code)


def pair_processor(folder: Path, trust_remote_code: bool) -> Any:
    """What makes a text and its image or sound the model's inputs."""
    from transformers import AutoProcessor

    found = _load(AutoProcessor.from_pretrained, "processor", folder, trust_remote_code, backend="pil")
    if not hasattr(found, "tokenizer"):
        raise InputError("E-PROCESSOR", f"{folder} has no processor for texts with images or sounds", TRAINED_FROM)
    return found


def _load(load: Callable[..., Any], what: str, folder: Path, trust_remote_code: bool, **extra: Any) -> Any:
    if not any((folder / name).is_file() for name in FILES):
        raise InputError("E-PROCESSOR", f"no {FILES[0]} in {folder}", TRAINED_FROM)
    try:
        with quiet(), told("E-PROCESSOR", f"the {what} in {folder} can't be loaded"):
            return load(folder, trust_remote_code=trust_remote_code, local_files_only=True, **extra)
    except InputError as fault:
        if trust_remote_code or not _ships_code(folder):
            raise
        raise RefusedError(
            "E-REMOTE",
            f"the {what} in {folder} is of a type of its own and ships the code for it",
            "Review the code, then pass --trust-remote-code.",
        ) from fault


def _ships_code(folder: Path) -> bool:
    settings = [read_json(folder / name, "E-PROCESSOR") for name in FILES if (folder / name).is_file()]
    return any("auto_map" in found for found in settings if isinstance(found, dict))
