"""Tiny random models of many families, to hold what is captured against what they return themselves."""

from collections.abc import Callable
from typing import Any

import torch
import transformers as hf
from torch import nn

SIZE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97,
}  # fmt: skip
GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 97, "n_positions": 64}
T5: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 97}
BART: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": 97, "max_position_embeddings": 64,
}  # fmt: skip
GEMMA: dict[str, Any] = {**SIZE, "head_dim": 8, "num_key_value_heads": 2, "sliding_window": 4, "pad_token_id": 0}
LLAMA: dict[str, Any] = {**SIZE, "num_key_value_heads": 2, "pad_token_id": 0}

IMAGE = {name: value for name, value in SIZE.items() if name != "vocab_size"} | {"image_size": 16, "patch_size": 4}

Config = Callable[[], Any]
CONFIGS: dict[str, Config] = {
    "bert": lambda: hf.BertConfig(**SIZE),
    "roberta": lambda: hf.RobertaConfig(**SIZE, pad_token_id=1),
    "xlm-roberta": lambda: hf.XLMRobertaConfig(**SIZE, pad_token_id=1),
    "electra": lambda: hf.ElectraConfig(**SIZE, embedding_size=16),
    "mpnet": lambda: hf.MPNetConfig(**SIZE),
    "albert": lambda: hf.AlbertConfig(**SIZE, embedding_size=16),
    "distilbert": lambda: hf.DistilBertConfig(dim=32, hidden_dim=48, n_layers=2, n_heads=4, vocab_size=97),
    "modernbert": lambda: hf.ModernBertConfig(**SIZE, local_attention=4, pad_token_id=0),
    "deberta-v2": lambda: hf.DebertaV2Config(**SIZE, relative_attention=True, pos_att_type=["c2p", "p2c"]),
    "gpt2": lambda: hf.GPT2Config(**GPT2),
    "gpt-neox": lambda: hf.GPTNeoXConfig(**SIZE),
    "opt": lambda: hf.OPTConfig(hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=97,
                                word_embed_proj_dim=32),
    "bloom": lambda: hf.BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=97),
    "llama": lambda: hf.LlamaConfig(**LLAMA),
    "mistral": lambda: hf.MistralConfig(**LLAMA, sliding_window=4),
    "qwen3": lambda: hf.Qwen3Config(**LLAMA, head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(**GEMMA),
    "mobilebert": lambda: hf.MobileBertConfig(**SIZE, embedding_size=16, intra_bottleneck_size=16),
    "gptj": lambda: hf.GPTJConfig(**GPT2, rotary_dim=4),
    "t5": lambda: hf.T5Config(**T5),
    "bart": lambda: hf.BartConfig(**BART),
    "marian": lambda: hf.MarianConfig(**BART, pad_token_id=0, decoder_start_token_id=0),
    "vit": lambda: hf.ViTConfig(**IMAGE),
    "deit": lambda: hf.DeiTConfig(**IMAGE),
}  # fmt: skip
LEGACY = ("mpnet", "deberta-v2", "bloom", "gptj")  # their code takes the softmax itself: whole layers only
ENCODER_DECODERS = ("t5", "bart", "marian")
IMAGES = ("vit", "deit")
LENGTHS = (11, 7, 4)


def build(family: str) -> Any:
    """A tiny random model, its weights large enough for attention to be peaked."""
    torch.manual_seed(0)
    model: Any = hf.AutoModel.from_config(CONFIGS[family](), attn_implementation="eager", dtype=torch.float32)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "norm" not in name.lower():
            nn.init.normal_(weight, std=0.25)
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            nn.init.zeros_(module.weight[module.padding_idx])  # as training leaves it: MobileBERT mixes neighbours
    return model.eval()


def inputs(family: str, lengths: tuple[int, ...] = LENGTHS) -> dict[str, torch.Tensor]:
    """A batch padded on the right; the decoder's texts are shorter than the encoder's."""
    if family in IMAGES:
        return {"pixel_values": torch.randn(len(lengths), 3, 16, 16)}
    longest = max(lengths)
    ids = torch.randint(5, 97, (len(lengths), longest))
    mask = (torch.arange(longest)[None] < torch.tensor(lengths)[:, None]).long()
    batch = {"input_ids": ids, "attention_mask": mask}
    if family in ENCODER_DECODERS:
        batch |= {"decoder_input_ids": ids[:, :-2].flip(1), "decoder_attention_mask": mask[:, 2:]}
    return batch


def attentions(family: str, out: Any) -> list[torch.Tensor]:
    """The model's own maps in order of execution."""
    if family in ENCODER_DECODERS:
        pairs = zip(out.decoder_attentions, out.cross_attentions, strict=True)
        return [*out.encoder_attentions, *(attention for pair in pairs for attention in pair)]
    return list(out.attentions)
