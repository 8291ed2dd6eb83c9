"""Values that a configuration needs when its others are made small, or that its defaults leave out.

The key is a model type, or a model type and the name of a configuration in it.
"""

import dataclasses
from typing import Any

from transformers import PreTrainedConfig

Table = dict[str, dict[str, Any]]
SERIES = {"prediction_length": 8, "context_length": 16, "lags_sequence": [1, 2, 3], "num_time_features": 1}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
PINPOINTS = {"image_grid_pinpoints": [[32, 64], [64, 32]]}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}

# Configurations that the defaults leave out
ABSENT: dict[str, dict[str, str]] = {
    "gemma4": {"vision_config": "gemma4_vision", "audio_config": "gemma4_audio"},
    "embedding_gemma2": {"vision_config": "gemma4_vision"},
}
# Values that they leave out
MISSING: Table = {
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "autoformer": SERIES,
    "informer": SERIES,
    "time_series_transformer": SERIES,
    "moonshine": {"encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4},
    "moonshine_streaming": {"num_key_value_heads": 4},
    "t5gemma2_text": {"dropout_rate": 0.0},
    "t5gemma2_encoder": {"dropout_rate": 0.0},
    "t5gemma2_encoder.text_config": {"dropout_rate": 0.0},
    "t5gemma2_decoder": {"dropout_rate": 0.0},
    "pix2struct_text_model": {"initializer_range": 0.02},
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 48},
    "chameleon": {"vocabulary_map": {"<image>": 70, "IMGIMGAZ": 80}},
    "emu3": {"vocabulary_map": {"<image>": 70, "<|extra_200|>": 71, "<|visual token 000000|>": 80}},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "diffusion_gemma_text": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 48},
    "nemotron": {"num_key_value_heads": 2},
    "vitmatte": {"fusion_hidden_sizes": [32, 16, 8, 4]},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "xmod": {"default_language": "en_XX"},
    "step3p5": {"sliding_window": 4},
    "blip-2": {"image_token_index": 75},
    "voxtral": {"audio_token_id": 75},
    "minicpmv4_6": {"image_token_id": 75, "insert_layer_id": 0},
    "minicpmv4_6_vision": {"insert_layer_id": 0},
    "minicpmv4_7": {"image_token_id": 75, "insert_layer_id": 0},
    "minicpmv4_7_vision": {"insert_layer_id": 0},
    "minicpm_ocr": {"image_token_id": 75, "insert_layer_id": 0},
    "minicpm_ocr_vision": {"insert_layer_id": 0},
    "instructblip": {"image_token_index": 75},
    "instructblipvideo": {"video_token_index": 75},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "dbrx.attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_group": 1, "n_group": 1},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2},
    "qwen2_5_omni_thinker": {"vision_start_token_id": 90},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": 90},
}

# What fits to small widths
FITTING: Table = {
    "gemma3": {"mm_tokens_per_image": 4},
    "shieldgemma2": {"mm_tokens_per_image": 4},
    "idefics3_vision": {"patch_size": 8},
    "smolvlm_vision": {"patch_size": 8},
    "granite_docling_vision": {"patch_size": 8},
    "aria": {"projector_patch_to_query_dict": {16: 4}},
    "llava_next": PINPOINTS,
    "llava_next_video": PINPOINTS,
    "llava_onevision": PINPOINTS,
    "vipllava": {"vision_feature_layers": [-1, -2, -1, -2, 0]},
    "llama4_vision_model": {"intermediate_size": 128},
    "voxtral_encoder": {"intermediate_size": 128},
    "glmasr_encoder": {"intermediate_size": 128},
    "mllama_vision_model": {"intermediate_layers_indices": [0, 1], "vision_output_dim": 96, "num_global_layers": 1},
    "xlnet": {"d_head": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "gpt_neo": {
        "num_layers": 2,
        "attention_types": [[["global", "local"], 1]],
        "attention_layers": ["global", "local"],
    },
    "esmc": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4},
    "dots3_note_audio_encoder": {"adapter_input_size": 32},
    "lw_detr_vit": {"image_size": 64},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "hunyuan_vl_text": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "bridgetower": {"hidden_size": 128},
    "bridgetower_vision_model": {"hidden_size": 128},
    "bridgetower_text_model": {"hidden_size": 128},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [4, 4]},
    "pix2struct_vision_model": {"patch_embed_hidden_size": 768},
    "kosmos_2_5_vision_model": {"patch_embed_hidden_size": 768},
    "unlimited_ocr_text": {"num_key_value_heads": 4},
    "zamba": {"num_hidden_layers": 6, "layers_block_type": ["mamba", "mamba", "hybrid"] * 2},
    "mimi": {"hidden_size": 512, "codebook_dim": 256, "num_filters": 8},
    "lilt": {"hidden_size": 96},
    "glm5_next_text": {"num_key_value_heads": 4, "index_topk": 4, "index_block_size": 4},
    "gptj": {"rotary_dim": 4, "n_positions": 128},
    "codegen": {"rotary_dim": 4},
    "nemotron_h": {"n_groups": 1},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "moshi_depth": {"num_codebooks": 32},
    "deepseek_ocr2_encoder": {"hidden_size": 32},
    "unlimited_ocr_vision": {"hidden_size": 32},
    "rt_detr_resnet": {"depths": [1, 1, 1, 1]},
    "granite4_vision": PINPOINTS | {"deepstack_layer_map": [[-1, 0]]},
    "align": {"projection_dim": 640},
    "ernie4_5_vl_moe_text": {"rope_parameters": ROPE | {"mrope_section": [1, 1, 2]}},
    "granite_speech": {"window_size": 10, "downsample_rate": 5},
    "granite_speech_plus": {"window_size": 10, "downsample_rate": 5},
    "modernvbert": {"pixel_shuffle_factor": 2},
    "ultravbert": {"pixel_shuffle_factor": 2},
    "kimi_k25": {"mm_hidden_size": 32, "projection_hidden_size": 32, "projector_hidden_size": 32},
    "deepseek_vl_hybrid.high_res_vision_config": {"global_attn_indexes": [0]},
    "t5gemma2_encoder": {"mm_tokens_per_image": 4},
    "nemotron3_diarization_audio": {"num_key_value_heads": 4},
    "nemotron3_5_transcribe_audio": {"num_key_value_heads": 4},
    "nemotron3_5_transcribe_asr_audio": {"num_key_value_heads": 4},
    "nemotron3_5_transcribe_word_timestamp": {"num_key_value_heads": 4},
    "superpoint": {"keypoint_decoder_dim": 65},
    "seggpt": {"image_size": [64, 32], "patch_size": 8, "pretrain_image_size": 32},
    "decision_transformer": {"n_embd": 32, "max_ep_len": 64},
    "sam2_hiera_det_model": {"hidden_size": 96, "global_attention_blocks": [4, 6], "image_size": [256, 256]},
    "sam2_vision_model": {"backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]]},
    "sam2_prompt_encoder": {"image_size": 256},
    "yolos": {"image_size": [64, 96]},
    "perceiver": {"d_latents": 32, "d_model": 32, "num_latents": 8, "image_size": 56},
}


def with_overrides(config: PreTrainedConfig, small: dict[str, Any], place: str, wide: bool) -> PreTrainedConfig:
    """A configuration of the same class; what its class does not know is set afterwards."""
    values: dict[str, Any] = {}
    for table in (MISSING,) if wide else (MISSING, FITTING):
        values |= table.get(config.model_type, {}) | table.get(place, {})
    fields = {f.name for f in dataclasses.fields(config)}
    result = type(config)(**(small | {name: value for name, value in values.items() if name in fields}))
    for name, value in values.items():
        if name not in fields:
            setattr(result, name, value)
    return result
