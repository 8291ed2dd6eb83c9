"""Inputs by hand for the types whose forward takes what nothing else takes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.zoo.facts import BATCH, Facts

Values = dict[str, Any]


def _ids(length: int, *more: int) -> Tensor:
    return torch.randint(5, 60, (BATCH, length, *more), generator=torch.Generator().manual_seed(length))


def _image(facts: Facts) -> Tensor:
    size = facts.picture("image_size", 32)
    return torch.randn(BATCH, 3, *(size if isinstance(size, list | tuple) else (size, size)))


def _decisions(facts: Facts) -> list[Values]:
    """States, what was done in them and what is still to come."""
    return [
        {
            "states": torch.randn(BATCH, 7, facts.find("state_dim", 17, ())),
            "actions": torch.randn(BATCH, 7, facts.find("act_dim", 4, ())),
            "rewards": torch.randn(BATCH, 7, 1),
            "returns_to_go": torch.randn(BATCH, 7, 1),
            "timesteps": torch.arange(7).expand(BATCH, -1),
            "attention_mask": torch.ones(BATCH, 7, dtype=torch.long),
        }
    ]


def _regions(facts: Facts) -> list[Values]:
    """A text and features of regions of an image."""
    features = torch.randn(BATCH, 6, facts.find("visual_feat_dim", 2048, ()))
    return [{"input_ids": _ids(13), "visual_feats": features, "visual_pos": torch.rand(BATCH, 6, 4)}]


def _protein(facts: Facts) -> list[Values]:
    """A text and the letters of a protein."""
    letters = torch.randint(4, 24, (BATCH, 9))
    ones = torch.ones_like(letters)
    return [{"input_ids": _ids(13), "attention_mask": torch.ones(BATCH, 13, dtype=torch.long)}
            | {"protein_input_ids": letters, "protein_attention_mask": ones}]  # fmt: skip


def _prompted(facts: Facts) -> list[Values]:
    """An image, and one that shows with its mask what is wanted."""
    image = _image(facts)
    image = image[..., : image.shape[-2] // 2, :]
    return [{"pixel_values": image, "prompt_pixel_values": image.flip(0), "prompt_masks": image.flip(1)}]


def _task(facts: Facts) -> list[Values]:
    return [{"pixel_values": torch.randn(BATCH, 3, 128, 128), "task_inputs": _ids(facts.find("task_seq_len", 77, ()))}]


def _questions(facts: Facts) -> list[Values]:
    """A text with as many places for an image as there are queries, and the question again."""
    token = facts.token("image") or facts.token("video") or 75
    ids = torch.cat([torch.full((BATCH, 4), token), _ids(9)], 1)
    image = _image(facts)
    common = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "qformer_input_ids": _ids(7)}
    return [common | {"pixel_values": image}, common | {"pixel_values": image[:, None]}]


def _channels(facts: Facts) -> list[Values]:
    """A text, and sounds as several codes a step."""
    width = facts.find("num_channels", 9, ())
    codes = torch.randint(5, 60, (BATCH, 7, width))
    if facts.takes("decoder_input_ids"):
        return [{"input_ids": _ids(13), "decoder_input_ids": codes}]
    return [{"input_ids": codes, "encoder_hidden_states": torch.randn(BATCH, 11, 32)}]


def _clips(facts: Facts) -> list[Values]:
    """Texts, and videos of as many frames as the model has places for."""
    ids, frames = _ids(13), facts.picture("num_frames", 2)
    clips = torch.stack([_image(facts) for _ in range(frames)], 1)
    return [{"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": clips}]


def _pairs(facts: Facts) -> list[Values]:
    return [{"pixel_values": torch.randn(BATCH, 2, 3, 64, 64)}]


def _forecast(facts: Facts) -> list[Values]:
    length = facts.find("context_length", 64, ())
    values = torch.randn(BATCH, length)
    freq = torch.zeros(BATCH, 1, dtype=torch.long)
    return [{"past_values": values, "past_values_padding": torch.zeros(BATCH, length), "freq": freq}]


def _states(facts: Facts) -> list[Values]:
    """Vectors for an encoder and a decoder without the nets before them."""
    return [{"input_values": torch.randn(BATCH, 13, 32), "decoder_input_values": torch.randn(BATCH, 7, 32)}]


def _pieces(facts: Facts) -> list[Values]:
    """Sounds one after the other, with their lengths."""
    lengths = torch.tensor([64, 48])
    shorter = ((lengths - 1) // 2 + 1 - 2) // 2 + 1
    return [
        {"input_features": torch.randn(128, 112), "feature_lens": lengths, "aftercnn_lens": after}
        for after in ((lengths - 1) // 2 + 1, shorter)
    ]


def _masked(facts: Facts) -> list[Values]:
    mask = torch.ones(BATCH, 64, dtype=torch.bool)
    return [{"hidden_states": torch.randn(BATCH, 64, 80), "mask": mask}]


SPECIAL: dict[str, Callable[[Facts], list[Values]]] = {
    "decision_transformer": _decisions,
    "lxmert": _regions,
    "evolla": _protein,
    "EvollaModel": _protein,
    "seggpt": _prompted,
    "oneformer": _task,
    "instructblip": _questions,
    "instructblipvideo": _questions,
    "xclip": _clips,
    "dia": _channels,
    "dia_decoder": _channels,
    "superglue": _pairs,
    "lightglue": _pairs,
    "efficientloftr": _pairs,
    "timesfm": _forecast,
    "speecht5": _states,
    "phi4_multimodal_audio": _masked,
    "qwen2_5_omni_audio_encoder": _pieces,
    "qwen3_omni_moe_audio_encoder": _pieces,
}
