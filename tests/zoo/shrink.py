"""The default configuration of a model type, made small: every width, depth and vocabulary down to what shows."""

import dataclasses
import importlib
import importlib.util
import inspect
import re
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.zoo.overrides import ABSENT, with_overrides

WIDTH, HEADS, KV_HEADS, HEAD_DIM, INNER, VOCAB, LAYERS = 32, 4, 2, 8, 48, 100, 2
SPECIAL = 70  # special tokens are moved to ids from here on: texts use smaller ones
IMAGE = 32

NARROW, WIDE = 0, 1  # widths small too; or as they are, for configurations that are only valid with them
KEPT_WIDE = re.compile(
    r".*(heads?|dim|size|rank|d_\w+|window\w*|n_embd|kv_channels|positions|groups|group_num|width|d_ff)"
)

# First match of the whole field name wins. None: leave as it is.
RULES: tuple[tuple[str, int | None], ...] = (
    (r"(initializer|projection)_hidden_size|num_labels|hidden_sizes|.*_dropout|.*chunk_size_feed_forward", None),
    (r"vocab_size|.*_vocab_size|n_vocab|vocab_size_per_layer_input", VOCAB),
    (r"type_vocab_size", None),
    (r"max_position_embeddings|n_positions|max_target_positions|n_ctx|max_seq_len|max_sequence_length", 128),
    (r"num_(key_value|kv)_heads|num_key_value_attention_heads|n_kv_heads|.*_num_key_value_heads", KV_HEADS),
    (r"num_global_key_value_heads|num_attention_groups|multi_query_group_num", KV_HEADS),
    (r"linear_num_(key|value)_heads", 2),
    (r"(.*_)?(num_)?attention_heads|num_heads|n_heads?|.*_num_(attention_)?heads|index_n_heads", HEADS),
    (r"linear_num_heads", HEADS),
    (r"num_attention_heads_.*|.*_n_heads|num_heads_.*|nhead", HEADS),
    (r"qk_rope_head_dim|qk_nope_head_dim", 4),
    (r"(.*_)?(head_dim|dim_head|d_kv|head_size|kv_channels|attention_head_size)", HEAD_DIM),
    (r"(kv|q|o)_lora_rank|.*_low_rank_dim|.*lora_rank", HEAD_DIM),
    (r"index_topk|.*_topk", 2),
    (r"(num_)?(routed_|local_)?experts_per_tok(en)?|moe_topk|moe_k|top_k_experts|num_selected_experts", 2),
    (r"topk_group|n_group|num_expert_group", 1),
    (r"(n_routed|num|num_local|moe_num|n|num_routed)_experts|n_shared_experts", 4),
    (r"first_k_dense_replace", 1),
    (r"(.*_)?(intermediate_size|ffn_dim|d_ff|mlp_dim|ffn_hidden_size|feedforward_dim|dim_feedforward|d_inner)", INNER),
    (r"intermediate_size_.*|ffn_size|mlp_hidden_size|n_inner|.*_inner_dim|hidden_dim_ff", INNER),
    (r"(num_)?(hidden_|encoder_|decoder_|text_|vision_)?layers", LAYERS),
    (r"n_layers?|num_.*_layers|.*_num_(hidden_)?layers|depth|num_blocks|.*_depth|n_encoder_layers", LAYERS),
    (r"hidden_size_per_layer_input|.*_proj_size", HEAD_DIM),
    (r"(.*_)?(hidden_size|d_model|n_embd|embed_dim|emb_dim|embedding_dim|embedding_size|hidden_dim)", WIDTH),
    (r"(.*_)?(projection_dim|projector_dim|proj_dim|text_embed_dim|word_embed_proj_dim|output_dim|dim)", WIDTH),
    (r"projection_size|output_channels", WIDTH),
    (r"num_query_tokens|latent_query_num", 4),
    (r"num_pos_feats", WIDTH // 2),
    (r"rotary_dim|rotary_ndims", 4),
    (r"image_size|img_size|.*_image_size", IMAGE),
    (r"(sliding|local_attention|attention)_window|sliding_window_size|local_attention|attention_window_size", 4),
    (r"attention_chunk_size|window_attention_size", 4),
    (r"num_frames", 2),
    (r"max_source_positions", 32),
    (r"window_size|window_size_\w+", 4),
)  # fmt: skip
COMPILED = [(re.compile(pattern), value) for pattern, value in RULES]
LAYER_LISTS = ("layer_types", "layers_block_type", "block_types", "hybrid_override_pattern", "attn_layer_types")
DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_layers")
SKIPPED = {f.name for f in dataclasses.fields(PreTrainedConfig)} - {"pad_token_id", "bos_token_id", "eos_token_id"}


class Shrinker:
    """Shrinks one configuration and all below it; the same special token gets the same id everywhere."""

    def __init__(self, level: int = NARROW) -> None:
        self._ids: dict[str, int] = {}
        self._wide = level == WIDE

    def shrink(self, config: PreTrainedConfig, place: str = "") -> PreTrainedConfig:
        """A new configuration of the same class."""
        values = {
            name: value
            for name, value in vars(config).items()
            if not name.startswith("_") and name not in SKIPPED and value is not None
        }
        values |= {name: CONFIG_MAPPING[kind]() for name, kind in ABSENT.get(config.model_type, {}).items()}
        fields = {f.name for f in dataclasses.fields(config)}
        small: dict[str, Any] = {
            name: self._value(name, value, config.model_type) for name, value in values.items() if name in fields
        }
        small |= _layer_lists(values, fields)
        if not self._wide:
            small |= _consistent(config, small, fields)
        small |= _stages(config, small, fields)
        return with_overrides(config, small, place, self._wide)

    def _value(self, name: str, value: Any, parent: str) -> Any:
        if isinstance(value, PreTrainedConfig):
            return self.shrink(value, f"{parent}.{name}")
        if isinstance(value, dict) and value and all(isinstance(v, PreTrainedConfig) for v in value.values()):
            return {key: self.shrink(v, f"{parent}.{name}") for key, v in value.items()}
        if isinstance(value, dict):
            return value if self._wide else _rotary(value)
        if name in ("depths", "blocks_per_stage") and isinstance(value, list | tuple):
            return type(value)(min(v, LAYERS) for v in value)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            return value
        if re.search(r"_token_(id|index)$|^(image|audio|video)_token$", name):
            return self._token(name, value)
        if self._wide and re.fullmatch(r"image_size|img_size|.*_image_size", name):
            return min(value, 224)
        if self._wide and KEPT_WIDE.fullmatch(name) and "vocab" not in name:
            return value
        return _number(name, value)

    def _token(self, name: str, value: int) -> int:
        if value < 5:
            return value
        plain = re.sub("_(id|index)$", "", name)
        return self._ids.setdefault(plain, SPECIAL + len(self._ids))


def _consistent(config: PreTrainedConfig, small: dict[str, Any], fields: set[str]) -> dict[str, Any]:
    """What has to fit to other values that were made small."""
    fitting: dict[str, Any] = {}
    if isinstance(heads := small.get("num_heads"), list | tuple) and isinstance(small.get("embed_dim"), int):
        fitting["embed_dim"] = HEAD_DIM * heads[0]  # stages double both
    if {"depths", "window_size", "image_size"} <= small.keys() and isinstance(small["image_size"], int):
        fitting["image_size"] = IMAGE * 2 ** (len(small["depths"]) - 2)  # the last stage has one window left
    if "rope_parameters" in fields and "mrope_section" in inspect.getsource(_modeling(config)):
        rope = small.get("rope_parameters") or {"rope_type": "default", "rope_theta": 10000.0}
        nested = all(isinstance(part, dict) for part in rope.values())
        parts = rope if nested else {"": rope}
        parts = {k: _rotary({"mrope_section": [2, 1, 1], "partial_rotary_factor": 1.0} | v) for k, v in parts.items()}
        fitting["rope_parameters"] = parts if nested else parts[""]
    if "head_dim" in fields and "qk_rope_head_dim" in small:
        fitting["head_dim"] = small["qk_rope_head_dim"]  # what is rotated
    if "kv_lora_rank" in small and "num_key_value_heads" in fields:
        fitting["num_key_value_heads"] = HEADS  # its keys are made per head
    if {"mamba_expand", "mamba_n_heads", "mamba_d_head"} <= fields:
        inner = WIDTH * int(small["mamba_expand"])
        fitting |= {"mamba_n_heads": inner // HEAD_DIM, "mamba_d_head": HEAD_DIM}
        fitting |= {"mamba_d_ssm": inner} if "mamba_d_ssm" in fields else {}
    if {"spatial_merge_size", "window_size", "patch_size"} <= small.keys():
        fitting["window_size"] = 2 * small["spatial_merge_size"] * small["patch_size"]
    return fitting


def _stages(config: PreTrainedConfig, small: dict[str, Any], fields: set[str]) -> dict[str, Any]:
    """As many of a backbone's stages as its default gives on; of a plain stack of layers, that many layers."""
    names = getattr(config, "out_features", None)
    if not names or len(names) < 2:
        return {}
    if "depths" in fields or "num_hidden_layers" not in fields:
        return {"out_features": list(names)}
    return {"num_hidden_layers": len(names), "out_features": [f"stage{i + 1}" for i in range(len(names))]}


def _modeling(config: PreTrainedConfig) -> Any:
    name = type(config).__module__.replace(".configuration_", ".modeling_")
    return importlib.import_module(name if importlib.util.find_spec(name) else type(config).__module__)


def _rotary(value: dict[str, Any]) -> dict[str, Any]:
    """Rotary parameters: the sections of the positions' axes must sum to half of what is rotated."""
    if all(isinstance(part, dict) for part in value.values()):
        return {key: _rotary(part) for key, part in value.items()}
    if "mrope_section" not in value:
        return value
    sections, half = value["mrope_section"], HEAD_DIM // 2
    small = [half // len(sections)] * len(sections)
    rest = half - sum(small)
    return value | {"mrope_section": [small[0] + rest, *small[1:]], "partial_rotary_factor": 1.0}


def _number(name: str, value: int) -> int:
    for pattern, small in COMPILED:
        if pattern.fullmatch(name):
            return value if small is None else min(value, small)
    return value


def _layer_lists(values: dict[str, Any], fields: set[str]) -> dict[str, Any]:
    """Lists that name something for each layer, cut to the shortest selection of layers that shows every entry."""
    depth = next((values[name] for name in DEPTHS if isinstance(values.get(name), int)), None)
    if depth is None:
        return {}
    lists = {n: v for n, v in values.items() if isinstance(v, list | tuple) and len(v) == depth and n in fields}
    if not lists:
        return {}
    rows = list(zip(*(map(str, v) for v in lists.values()), strict=True))
    first = [i for i, row in enumerate(rows) if row not in rows[:i]]
    chosen = (first if len(first) > 1 else list(range(min(depth, LAYERS))))[:8]
    name = next(name for name in DEPTHS if isinstance(values.get(name), int))
    return {n: type(v)(v[i] for i in chosen) for n, v in lists.items()} | {name: len(chosen)}
