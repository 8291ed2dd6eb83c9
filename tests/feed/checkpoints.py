"""Tiny random checkpoints of every modality with their real processors, and files to feed them."""

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

WORDS = ("a", "cat", "sat", "on", "the", "mat", "why", "river", "runs", "to", "sea", "what", "is", "in", "it", "?", ".")
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>", "<audio>")
VOCABULARY = len(WORDS) + len(SPECIAL)
PLACE = SPECIAL.index("<image>")
STACK: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION: dict[str, Any] = {**STACK, "image_size": 16, "patch_size": 4}
IDS: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
BART: dict[str, Any] = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "decoder_start_token_id": 2, **IDS,
}  # fmt: skip


def tokenizer() -> Any:
    """One token a word, <s> and </s> around the text."""
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate((*SPECIAL, *WORDS))}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit()])
    raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>", "audio_token": "<audio>"}, model_max_length=64,
    )  # fmt: skip


def image_processor(cls: Any = hf.ViTImageProcessorPil) -> Any:
    if "CLIP" in cls.__name__:
        return cls(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    return cls(size={"height": 16, "width": 16})


def vit(folder: Path) -> None:
    _save(folder, hf.ViTModel(hf.ViTConfig(**VISION), add_pooling_layer=False), image_processor())


def swin(folder: Path) -> None:
    config = hf.SwinConfig(image_size=32, patch_size=4, window_size=4, embed_dim=16, depths=[2, 2], num_heads=[2, 4])
    _save(
        folder, hf.SwinModel(config, add_pooling_layer=False), hf.ViTImageProcessorPil(size={"height": 32, "width": 32})
    )


def segformer(folder: Path) -> None:
    config = hf.SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[16, 16, 32, 32], num_attention_heads=[1, 2, 2, 4], sr_ratios=[8, 4, 2, 1]
    )
    _save(folder, hf.SegformerModel(config), hf.SegformerImageProcessorPil(size={"height": 64, "width": 64}))


def detr(folder: Path) -> None:
    """A model that takes images of any size."""
    conv: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
                            "out_features": ["stage4"]}  # fmt: skip
    sizes: dict[str, Any] = {name: value for name, value in BART.items() if not name.endswith(("id", "layers"))}
    other: dict[str, Any] = {"use_timm_backbone": False, "backbone": None, "encoder_layers": 1, "decoder_layers": 1}
    config = hf.DetrConfig(backbone_config=hf.ResNetConfig(**conv), num_queries=5, **sizes, **other)
    _save(folder, hf.DetrModel(config), hf.DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 128}))


def clip(folder: Path) -> None:
    text: dict[str, Any] = {**STACK, "vocab_size": VOCABULARY, "max_position_embeddings": 24, **IDS}
    config = hf.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=16)
    _save(folder, hf.CLIPModel(config), hf.CLIPProcessor(image_processor(hf.CLIPImageProcessorPil), tokenizer()))


def llava(folder: Path) -> None:
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=hf.LlamaConfig(**STACK, vocab_size=VOCABULARY, max_position_embeddings=128, **IDS),
        image_token_index=PLACE,
    )
    processor = hf.LlavaProcessor(
        image_processor(hf.CLIPImageProcessorPil), tokenizer(), patch_size=4, image_token="<image>",
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    _save(folder, hf.LlavaForConditionalGeneration(config), processor)


def llava_next(folder: Path) -> None:
    """A model that cuts an image into as many patches as its shape asks for."""
    shapes = [[16, 32], [32, 16], [32, 32]]
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION),
        text_config=hf.LlamaConfig(**STACK, vocab_size=VOCABULARY, max_position_embeddings=256, **IDS),
        image_token_index=PLACE, image_grid_pinpoints=shapes,
    )  # fmt: skip
    images = hf.LlavaNextImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_grid_pinpoints=shapes
    )
    processor = hf.LlavaNextProcessor(
        images, tokenizer(), patch_size=4, image_token="<image>", vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )  # fmt: skip
    _save(folder, hf.LlavaNextForConditionalGeneration(config), processor)


def flava(folder: Path) -> None:
    """A model whose part for images has a name of its own."""
    parts: dict[str, Any] = {
        "text_config": {**STACK, "vocab_size": VOCABULARY}, "image_config": VISION, "multimodal_config": STACK,
        "image_codebook_config": {"hidden_size": 8, "num_groups": 2, "num_blocks_per_group": 1, "vocab_size": 8},
    }  # fmt: skip
    _save(folder, hf.FlavaModel(hf.FlavaConfig(hidden_size=32, **parts)))


def clap(folder: Path) -> None:
    """A model of sounds with texts, whose extractor cuts long sounds at random places."""
    audio: dict[str, Any] = {
        "spec_size": 128, "num_mel_bins": 64, "patch_size": 4, "patch_stride": [4, 4], "window_size": 4,
        "hidden_size": 32, "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2],
    }  # fmt: skip
    text: dict[str, Any] = {**STACK, "vocab_size": VOCABULARY, **IDS}
    config = hf.ClapConfig(text_config=text, audio_config=audio, projection_dim=16)
    extractor = hf.ClapFeatureExtractor(max_length_s=1, truncation="rand_trunc")
    _save(folder, hf.ClapModel(config), hf.ClapProcessor(extractor, tokenizer()))


def trocr(folder: Path) -> None:
    """A decoder of texts behind an encoder of images."""
    decoder = hf.TrOCRConfig(
        vocab_size=VOCABULARY, d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48,
        max_position_embeddings=64, cross_attention_hidden_size=32, **IDS,
    )  # fmt: skip
    config = hf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(hf.ViTConfig(**VISION), decoder)
    model: Any = hf.VisionEncoderDecoderModel(config=config)
    for name, token in (("decoder_start_token_id", 3), ("pad_token_id", 0), ("eos_token_id", 3)):
        setattr(model.config, name, token)
        setattr(model.generation_config, name, token)
    _save(folder, model, image_processor(), tokenizer())


def qwen(folder: Path) -> None:
    """A model whose vision tower packs the patches of all images into one sequence."""
    config = hf.Qwen2VLConfig(
        text_config={**STACK, "num_key_value_heads": 2, "vocab_size": VOCABULARY, **IDS,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4},
        image_token_id=PLACE, video_token_id=1, vision_start_token_id=1, vision_end_token_id=1,
    )  # fmt: skip
    _save(folder, hf.Qwen2VLForConditionalGeneration(config))


def whisper(folder: Path, *, head: bool = True) -> None:
    config = hf.WhisperConfig(
        **BART, vocab_size=VOCABULARY, max_source_positions=50, max_target_positions=32, num_mel_bins=16,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    model: Any = hf.WhisperForConditionalGeneration(config) if head else hf.WhisperModel(config)
    _save(folder, model, hf.WhisperFeatureExtractor(feature_size=16, chunk_length=1), tokenizer())


def wav2vec2(folder: Path) -> None:
    layers: dict[str, Any] = {
        "conv_dim": [16, 16, 16], "conv_kernel": [10, 8, 4], "conv_stride": [10, 8, 4], "num_feat_extract_layers": 3,
        "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    }  # fmt: skip
    config = hf.Wav2Vec2Config(**STACK, **layers, vocab_size=VOCABULARY, mask_time_prob=0.0)
    _save(folder, hf.Wav2Vec2Model(config), hf.Wav2Vec2FeatureExtractor())


def bart(folder: Path, *, head: bool = True) -> None:
    config = hf.BartConfig(**BART, vocab_size=VOCABULARY, max_position_embeddings=64, forced_eos_token_id=None)
    _save(folder, hf.BartForConditionalGeneration(config) if head else hf.BartModel(config), tokenizer())


def bert(folder: Path) -> None:
    _save(folder, hf.BertModel(hf.BertConfig(**STACK, vocab_size=VOCABULARY), add_pooling_layer=False), tokenizer())


def layoutlm(folder: Path) -> None:
    """A model that takes images beside texts and can do without."""
    config = hf.LayoutLMv3Config(
        **STACK, vocab_size=VOCABULARY, coordinate_size=4, shape_size=8, input_size=16, patch_size=4, **IDS
    )
    _save(folder, hf.LayoutLMv3Model(config), tokenizer())


def patchtst(folder: Path) -> None:
    """A model of time series."""
    config = hf.PatchTSTConfig(
        num_input_channels=1, context_length=32, patch_length=4, patch_stride=4, d_model=32, num_hidden_layers=2,
        num_attention_heads=4, ffn_dim=32,
    )  # fmt: skip
    _save(folder, hf.PatchTSTModel(config))


BUILDERS: dict[str, Callable[[Path], None]] = {
    builder.__name__: builder
    for builder in (
        vit, swin, segformer, detr, clip, llava, llava_next, qwen, flava, clap, trocr,
        whisper, wav2vec2, bart, bert, layoutlm, patchtst,
    )
}  # fmt: skip


def _save(folder: Path, model: Any, *processors: Any) -> None:
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and "norm" not in name.lower():
            nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    for part in processors:
        part.save_pretrained(folder)


def picture(path: Path, size: tuple[int, int], seed: int = 0) -> Path:
    """An image file of noise, [width, height]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def waveform(seconds: float, rate: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * rate))


def recording(path: Path, seconds: float, rate: int = 16_000, channels: int = 1, width: int = 2, seed: int = 0) -> Path:
    """A plain WAV file of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.repeat(waveform(seconds, rate, seed)[:, None], channels, 1)
    whole = (samples * 2**31).astype("<i4").view(np.uint8).reshape(*samples.shape, 4)[..., 4 - width :]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes((whole ^ 0x80 if width == 1 else whole).tobytes())
    return path


def lines(path: Path, *rows: object) -> Path:
    """A .jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
