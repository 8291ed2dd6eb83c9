"""What a model takes, told from its forward and its config: there is no list of architectures."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal

Modality = Literal["text", "image", "audio", "image-text", "audio-text", "other"]
SOUNDS = ("input_features", "input_values")
TOWERS = {"image-text": ("vision_config",), "audio-text": ("audio_config", "audio_encoder")}


def parameters(model: Any) -> Mapping[str, inspect.Parameter]:
    """The parameters of a model's forward."""
    return inspect.signature(model.forward).parameters


def names_taken(model: Any) -> set[str]:
    """Their names, and that of the model's main input."""
    return {*parameters(model), getattr(model, "main_input_name", "input_ids")}


def modality(model: Any) -> Modality:
    """The kind of a model's inputs; "other" for what only random inputs or batches from Python can be."""
    names = names_taken(model)
    has_text, has_image = "input_ids" in names, "pixel_values" in names
    has_sound = sound_name(model) is not None
    if has_text:
        return "image-text" if has_image else "audio-text" if has_sound else "text"
    if has_image and not takes_videos(model):
        return "image"
    return "audio" if has_sound and not has_image else "other"


def needs_both(model: Any) -> bool:
    """True if a model of texts with images or sounds has a tower for them, which texts alone would leave unseen."""
    return any(hasattr(model.config, name) for name in TOWERS.get(modality(model), ()))


def runs_on_texts(model: Any) -> bool:
    """True if images or sounds stand at placeholders in the text, so that a text without any is a whole input."""
    return hasattr(model, "get_placeholder_mask")


def sound_name(model: Any) -> str | None:
    """The name of a model's input of sound."""
    names = names_taken(model)
    return next((name for name in SOUNDS if name in names), None)


def takes_videos(model: Any) -> bool:
    """True if pixels come in frames."""
    return isinstance(getattr(model.config, "num_frames", None), int)


def reads(model: Any) -> bool:
    """True if there is a decoder that reads ids of its own."""
    return "decoder_input_ids" in parameters(model)


def takes_words(model: Any) -> str:
    """What the model takes, in words."""
    words = {
        "text": "texts", "image": "images", "audio": "sounds", "image-text": "images with texts",
        "audio-text": "sounds with texts", "other": str(getattr(model, "main_input_name", "unknown inputs")),
    }  # fmt: skip
    return "videos" if modality(model) == "other" and takes_videos(model) else words[modality(model)]
