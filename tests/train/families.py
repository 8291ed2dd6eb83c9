"""Tiny models of the families whose heads can be told apart, beyond those that capture is tested on."""

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import nn

from tests.capture.models import BART, CONFIGS, GPT2, LLAMA, SIZE, T5, inputs

MORE: dict[str, Callable[[], Any]] = {
    "phi3": lambda: hf.Phi3Config(**LLAMA),
    "mpt": lambda: hf.MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=97, max_seq_len=64),
    "persimmon": lambda: hf.PersimmonConfig(**SIZE, pad_token_id=0),
    "whisper": lambda: hf.WhisperConfig(**BART | {"max_position_embeddings": 97}, num_mel_bins=8,
                                        max_source_positions=12, max_target_positions=32, pad_token_id=0),
    "multi-query llama": lambda: hf.LlamaConfig(**LLAMA | {"num_key_value_heads": 1}),
    "gpt2 that crosses": lambda: hf.GPT2Config(**GPT2, add_cross_attention=True),
    "bert that crosses": lambda: hf.BertConfig(**SIZE, is_decoder=True, add_cross_attention=True),
    "t5 of uneven heads": lambda: hf.T5Config(**T5 | {"d_kv": 6}),
}  # fmt: skip
FAMILIES = {**CONFIGS, **MORE}


def build(family: str) -> Any:
    """A tiny random model in eval mode, its biases random too."""
    torch.manual_seed(0)
    model: Any = hf.AutoModel.from_config(FAMILIES[family](), attn_implementation="eager", dtype=torch.float32)
    for name, weight in model.named_parameters():
        if "norm" not in name.lower():
            nn.init.normal_(weight, std=0.25)
    return model.eval()


def batch(family: str) -> dict[str, torch.Tensor]:
    """What it takes."""
    torch.manual_seed(1)
    if family == "whisper":
        return {"input_features": torch.randn(2, 8, 24), "decoder_input_ids": torch.randint(5, 97, (2, 7))}
    if family == "t5 of uneven heads":
        family = "t5"
    given = inputs(family)
    if family.endswith("crosses"):
        given["encoder_hidden_states"] = torch.randn(3, 5, 32)
    return given
