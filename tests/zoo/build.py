"""A tiny random model of any model type that transformers knows."""

import importlib
import inspect
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from tests.zoo.shrink import NARROW, WIDE, Shrinker

TYPES: tuple[str, ...] = tuple(CONFIG_MAPPING.keys())
MOST_WEIGHTS = {NARROW: 150_000_000, WIDE: 60_000_000}

STD = 0.2  # of random weights
SMALLER = {"d_fine": 0.1, "deimv2": 0.1}  # where that many convolutions come before attention that values overflow


class NotBuiltError(Exception):
    """There is no tiny model of the type, and why."""


def config_of(model_type: str, level: int = NARROW) -> PreTrainedConfig:
    """The small configuration."""
    return Shrinker(level).shrink(CONFIG_MAPPING[model_type]())


def build(model_type: str, level: int = NARROW, name: str | None = None) -> PreTrainedModel:
    """A model with peaked attention, in eval mode, the same at every call; of the class `name` if given."""
    config = config_of(model_type, level)
    kind = getattr(transformers, name) if name else model_class(model_type, config)
    with torch.device("meta"):
        weights = sum(p.numel() for p in kind._from_config(config, attn_implementation="eager").parameters())
    if weights > MOST_WEIGHTS[level]:
        raise NotBuiltError(f"{weights / 1e6:.0f} million weights")
    torch.manual_seed(0)
    model: PreTrainedModel = kind._from_config(config, attn_implementation="eager", dtype=torch.float32)
    redraw(model, SMALLER.get(model_type, STD))
    model.eval()
    return model


def redraw(model: nn.Module, std: float = STD) -> None:
    """Weights large enough for attention to be peaked; norms as they are."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "norm" not in name.lower() and weight.is_floating_point():
            nn.init.normal_(weight, std=std)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])  # as training leaves it


def model_class(model_type: str, config: PreTrainedConfig) -> Any:
    """The class that AutoModel builds, or the most basic one in the type's own module."""
    if model_type in MODEL_MAPPING_NAMES:
        names = MODEL_MAPPING_NAMES[model_type]
        return getattr(transformers, names if isinstance(names, str) else names[0])
    candidates = classes_for(config)
    if not candidates:
        raise NotBuiltError("no model class takes this configuration alone")
    return candidates[0]


def classes_for(config: PreTrainedConfig) -> list[Any]:
    """Model classes of the configuration's package that are made from it, the most basic first."""
    package = type(config).__module__.rpartition(".")[0]
    tail = type(config).__module__.rpartition(".")[2].replace("configuration_", "modeling_")
    try:
        module = importlib.import_module(f"{package}.{tail}")
    except ModuleNotFoundError as error:
        raise NotBuiltError(f"no module {error.name}") from error
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, PreTrainedModel)
        and getattr(value, "config_class", None) is type(config)
        and not value.__name__.endswith("PreTrainedModel")
    ]
    return sorted(found, key=lambda kind: _rank(kind.__name__, type(config).__name__.removesuffix("Config")))


def _rank(name: str, base: str) -> tuple[int, int]:
    if name in (base, f"{base}Model"):
        return (0, len(name))
    return (2 if "For" in name else 1, len(name))
