"""Sounds, as waves or as features, and series of numbers, in the layouts that models take them in."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests.zoo.facts import BATCH, Facts

Values = dict[str, Any]
MASKS = ("input_features_mask", "feature_attention_mask", "attention_mask", "padding_mask")


def sounds(facts: Facts, takes: set[str]) -> Iterator[Values]:
    """Every layout of sounds that the signature allows."""
    torch.manual_seed(3)
    if "input_features" in takes:
        for features, length in _features(facts):
            yield {"input_features": features} | _mask(takes, length)
            yield {"input_features": features}
            yield {"input_features": features[:, None]}
    bins, frames = facts.find("num_mel_bins", None, ()), facts.find("max_length", None, ())
    if "input_values" in takes and isinstance(bins, int) and isinstance(frames, int):
        yield {"input_values": torch.randn(BATCH, frames, bins)}
    if "input_values" in takes:
        for wave in _waves():
            yield {"input_values": wave} | _mask(takes, wave.shape[-1])
            yield {"input_values": wave}
    if "past_values" in takes:
        yield from _series(facts, takes)


def _mask(takes: set[str], length: int) -> Values:
    """The second sound is shorter; where a text takes the plain name, the mask has another one."""
    taken = {"attention_mask"} if "input_ids" in takes else set()
    name = next((name for name in MASKS if name in takes - taken), "")
    mask = (torch.arange(length)[None] < torch.tensor([length, length * 3 // 4])[:, None]).long()
    return {name: mask} if name else {}


def _features(facts: Facts) -> Iterator[tuple[Tensor, int]]:
    names = (
        "num_mel_bins",
        "input_feat_per_channel",
        "feature_projection_input_dim",
        "feature_size",
        "input_dim",
        "input_size",
    )
    bins = [facts.sound(name, None) for name in names]
    linear = next((m.in_features for m in facts.model.modules() if isinstance(m, nn.Linear)), 80)
    widths = dict.fromkeys([*(n for n in bins if isinstance(n, int)), 80, 128, linear])
    exact = facts.sound("max_source_positions", None)
    for length in dict.fromkeys([*([2 * exact] if isinstance(exact, int) else []), 64, 200]):
        for width in widths:
            yield torch.randn(BATCH, width, length), length
            yield torch.randn(BATCH, length, width), length


def _waves() -> Iterator[Tensor]:
    for length in (2000, 8000, 16000):
        yield torch.randn(BATCH, length)
        yield torch.randn(BATCH, 1, length)


def _series(facts: Facts, takes: set[str]) -> Iterator[Values]:
    length = facts.find("context_length", 32, ())
    if "past_time_features" in takes:
        past, coming = length + max(facts.find("lags_sequence", [0], ())), facts.find("prediction_length", 8, ())
        yield {
            "past_values": torch.randn(BATCH, past),
            "past_time_features": torch.randn(BATCH, past, facts.find("num_time_features", 1, ())),
            "past_observed_mask": torch.ones(BATCH, past),
            "future_values": torch.randn(BATCH, coming),
            "future_time_features": torch.randn(BATCH, coming, facts.find("num_time_features", 1, ())),
        }
    channels = facts.find("num_input_channels", 1, ())
    values = torch.randn(BATCH, length, channels)
    observed = {"past_observed_mask": torch.ones_like(values)} if "past_observed_mask" in takes else {}
    yield {"past_values": values} | observed
    yield {"past_values": torch.randn(BATCH, length)}
    yield {"past_values": list(torch.randn(BATCH, length))}
