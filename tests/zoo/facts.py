"""What the inputs of a model need to know of its configuration."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

BATCH = 2
TEXT = ("text_config", "language_config", "llm_config", "decoder", "thinker_config", "text", "qformer_config")
VISION = ("vision_config", "visual_config", "vision", "vision_tower_config", "vit_config", "encoder", "backbone_config")
AUDIO = ("audio_config", "audio_encoder", "speech_config", "audio_encoder_config", "encoder_config", "encoder")


class Facts:
    """Looks names up in a model's configuration and in the configurations below it."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.config = model.config
        self._signature = inspect.signature(model.forward).parameters

    def takes(self, name: str) -> bool:
        """True if the model's forward names the argument."""
        return name in self._signature

    @property
    def vocab(self) -> int:
        """How many token ids there are."""
        embedding = None
        with contextlib.suppress(NotImplementedError, AttributeError):
            embedding = self.model.get_input_embeddings()
        rows = getattr(embedding, "num_embeddings", None)
        return rows if isinstance(rows, int) else int(self.text("vocab_size", 100))

    @property
    def pad(self) -> int:
        """The token that texts are padded with."""
        pad = self.text("pad_token_id", 0)
        return pad if isinstance(pad, int) and 0 <= pad < self.vocab else 0

    @property
    def width(self) -> int:
        """Features of the residual stream of the text side."""
        width = self.text("hidden_size", None) or self.text("d_model", 32)
        return width if isinstance(width, int) else 32

    def token(self, kind: str) -> int | None:
        """The token that stands for a part of an image or a sound."""
        for name in (f"{kind}_token_id", f"{kind}_token_index", f"{kind}_token"):
            value = self.find(name, None, ())
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        return None

    def around(self, kind: str) -> tuple[list[int], list[int]]:
        """The tokens before and after an image, where the model knows such."""
        if kind != "image":
            return [], []
        pair = (self.find(f"vision_{where}_token_id", None, ()) for where in ("start", "end"))
        before, after = ([value] if isinstance(value, int) else [] for value in pair)
        return before, after

    def text(self, name: str, default: Any) -> Any:
        """A value of the text side."""
        return self.find(name, default, TEXT)

    def picture(self, name: str, default: Any) -> Any:
        """A value of the image side."""
        return self.find(name, default, VISION)

    def sound(self, name: str, default: Any) -> Any:
        """A value of the audio side."""
        return self.find(name, default, AUDIO)

    def find(self, name: str, default: Any, below: tuple[str, ...]) -> Any:
        """The value from the configurations named `below` first, else from the nearest that has it."""
        for config in _configs(self.config, below):
            value = getattr(config, name, None)
            if value is not None:
                return value
        return default


def _configs(config: PreTrainedConfig, below: tuple[str, ...]) -> Iterator[PreTrainedConfig]:
    parts = {name: part for name, part in vars(config).items() if isinstance(part, PreTrainedConfig)}
    for name in below:
        if name in parts:
            yield from _configs(parts[name], below)
    yield config
    for name, part in parts.items():
        if name not in below:
            yield from _configs(part, below)
