"""Attention that doesn't come as one [batch, head, query, key] call a layer: windows, images in a row, fused calls."""

import math
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from headprobe.capture import observing
from headprobe.capture.layout import layout
from headprobe.errors import InputError
from headprobe.tile import AttentionTile
from tests.capture.watching import full, joined, make, watch


@pytest.mark.parametrize(
    ("shape", "batch", "heads", "expected"),
    [
        ((2, 4, 7, 7), 2, 4, (2, 4, 7, 7)),
        ((18, 4, 7, 7), 2, 4, (18, 4, 7, 7)),  # windows in the batch axis
        ((8, 7, 7), 2, 4, (2, 4, 7, 7)),  # heads in the batch axis
        ((72, 7, 7), 2, 4, (18, 4, 7, 7)),  # both
        ((8, 7, 7), 2, None, (2, 4, 7, 7)),
        ((2, 9, 4, 7, 7), 2, 4, (18, 4, 7, 7)),
        ((2, 4, 9, 7, 7), 2, 4, (18, 4, 7, 7)),
        ((2, 12, 4, 5), 2, 4, (2, 12, 4, 5)),  # which only the table of classes can tell
        ((3, 4, 7, 7), 2, 4, None),
        ((7, 7), 1, 1, None),
        ((2, 9, 5, 7, 7), 2, 4, None),
    ],
)
def test_axes_are_read_by_their_sizes(
    shape: tuple[int, ...], batch: int, heads: int | None, expected: tuple[int, ...] | None
) -> None:
    found = layout(shape, -1, batch, heads)
    assert (found and found.shape) == expected


def test_blocks_keep_their_rows() -> None:
    scores = torch.randn(2, 4, 9, 7, 7)  # head before block
    found = layout((2, 4, 9, 7, 7), -1, 2, 4)
    assert found is not None
    assert torch.equal(found.apply(scores)[9 + 3, 1], scores[1, 1, 3])


def test_windows_are_parts_of_their_image() -> None:
    size: dict[str, Any] = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4]}
    model = make(hf.SwinConfig(**size, window_size=4))
    tiles, _ = watch(model, pixel_values=torch.randn(3, 3, 32, 32))
    assert [(site.layer, site.heads, site.window) for site in tiles] == [(0, 2, 16), (1, 2, 16), (2, 4, None)]
    for (site, (tile,)), windows in zip(tiles.items(), (4, 4, 1), strict=True):
        assert tile.probs.shape == (3 * windows, site.heads, 16, 16)
        assert tile.sequences == tuple(image for image in range(3) for _ in range(windows))


@pytest.mark.parametrize("tile_bytes", [2**28, 1])
def test_images_packed_into_one_row_are_told_apart(tile_bytes: int) -> None:
    """Qwen-style towers call their attention once for each image."""
    config = hf.AutoConfig.for_model("qwen2_vl").vision_config.__class__(
        depth=2, embed_dim=32, hidden_size=32, num_heads=4, patch_size=4, temporal_patch_size=1, mlp_ratio=2
    )
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel as Tower

    torch.manual_seed(0)
    tower: Any = Tower._from_config(config, attn_implementation="eager").eval()
    grid = torch.tensor([[1, 4, 4], [1, 2, 6]])
    tiles, _ = watch(tower, tile_bytes, hidden_states=torch.randn(28, 48), grid_thw=grid)
    assert [(site.layer, site.kind, site.heads) for site in tiles] == [(0, "encoder", 4), (1, "encoder", 4)]
    for parts in tiles.values():
        shown = [(tile.sequences, tile.probs.shape[3]) for tile in parts if tile.start == 0]
        assert shown == [((0,), 16), ((1,), 12)]
        assert sum(tile.probs.shape[2] for tile in parts) == 28


def test_chunks_of_a_layer_are_one_site() -> None:
    """CANINE calls the same module for each chunk of the text."""
    size: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    chunks: dict[str, Any] = {"local_transformer_stride": 8, "downsampling_rate": 4, "upsampling_kernel_size": 4}
    model = make(hf.CanineConfig(**size, **chunks))
    mask = torch.ones(2, 32, dtype=torch.long)
    mask[1, 24:] = 0
    tiles, _ = watch(model, input_ids=torch.randint(0, 90, (2, 32)), attention_mask=mask)
    first, parts = next(iter(tiles.items()))
    assert first.path == "initial_char_encoder.layer.0.attention.self"
    assert [tile.probs.shape[2:] for tile in parts] == [(8, 8)] * 4
    assert [int(tile.query_mask.sum()) for tile in parts] == [16, 16, 16, 8]


class _One(nn.Module):
    """A model of one module."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        out: Tensor = self.block(x, attention_mask)
        return out


class FusedAttention(nn.Module):
    """Torch's own attention with grouped heads, from queries [batch, 4, position, feature]."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        self.is_causal = causal

    def forward(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        seen = None if attention_mask is None else attention_mask.bool()[:, None, None]
        out: Tensor = nn.functional.scaled_dot_product_attention(
            x, x[:, :2], x[:, 2:], attn_mask=seen, is_causal=self.is_causal, scale=0.7, enable_gqa=True
        )
        return out


@pytest.mark.parametrize("inference", [True, False])
@pytest.mark.parametrize("tile_bytes", [2**28, 1])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_in_one_call_is_computed_again(causal: bool, tile_bytes: int, inference: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6, 8)
    mask = None if causal else torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    model = _One(FusedAttention(causal=causal)).eval()
    tiles: list[AttentionTile] = []
    with torch.inference_mode(inference), observing(model, tiles.append, tile_bytes=tile_bytes):
        out = model(x, attention_mask=mask)
    assert torch.equal(out, model(x, attention_mask=mask))
    seen = torch.ones(2, 6, 6, dtype=torch.bool).tril() if causal else mask.bool()[:, None].expand(2, 6, 6)  # type: ignore[union-attr]
    scores = x.double() @ x[:, :2].double().repeat_interleave(2, 1).mT * 0.7
    expected = scores.masked_fill(~seen[:, None], -math.inf).softmax(-1)
    got = joined(tiles, [full(tile) for tile in tiles], 2)
    assert torch.allclose(got.double(), expected, atol=1e-6)
    assert {(tile.site.kind, tile.site.kv_heads) for tile in tiles} == {("decoder" if causal else "encoder", 2)}
    assert torch.allclose(got @ x[:, 2:].repeat_interleave(2, 1), out, atol=1e-5)


class TwiceAttention(nn.Module):
    """The same attention for two halves of the values."""

    def forward(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        fused = nn.functional.scaled_dot_product_attention
        halves = [fused(x, x, value) for value in x.chunk(2, -1)]
        return torch.cat(halves, -1)


def test_attention_that_is_applied_twice_is_seen_once() -> None:
    tiles, _ = watch(_One(TwiceAttention()).eval(), x=torch.randn(2, 4, 6, 8))
    assert [len(parts) for parts in tiles.values()] == [1]


class TwoAttention(nn.Module):
    """Two different attentions in one module."""

    def forward(self, x: Tensor, attention_mask: Tensor | None) -> Tensor:
        return (x @ x.mT).softmax(-1) @ (x @ x.mT * 2).softmax(-1) @ x


def test_two_attentions_of_one_module_are_two_sites() -> None:
    tiles, _ = watch(_One(TwoAttention()).eval(), x=torch.randn(2, 4, 6, 8))
    assert [(site.path, site.layer) for site in tiles] == [("block", 0), ("block", 1)]


def test_layers_without_softmax_attention_are_told() -> None:
    size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 97}
    linear: dict[str, Any] = {f"linear_{name}": 2 for name in ("num_value_heads", "num_key_heads")}
    linear |= {f"linear_{name}_head_dim": 8 for name in ("key", "value")}
    experts: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    model = make(hf.Qwen3NextConfig(**size, **linear, **experts, head_dim=8, num_key_value_heads=2))
    tiles, notes = watch(model, input_ids=torch.randint(0, 97, (2, 9)))
    assert [site.layer for site in tiles] == [3]
    assert notes == ["layers 0, 1, 2 of layers have no softmax attention"]


def test_a_window_is_told_from_the_call() -> None:
    size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97}
    model = make(hf.MistralConfig(**size, num_key_value_heads=2, sliding_window=4))
    tiles, _ = watch(model, input_ids=torch.randint(0, 97, (2, 9)))
    assert [site.window for site in tiles] == [4, 4]


def test_a_chunk_is_told_from_the_mask() -> None:
    size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 97}
    rest: dict[str, Any] = {
        "head_dim": 8,
        "num_key_value_heads": 2,
        "intermediate_size_mlp": 48,
        "intermediate_size": 48,
    }
    model = make(hf.Llama4TextConfig(**size, **rest, num_local_experts=2, attention_chunk_size=4, pad_token_id=0))
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    tiles, _ = watch(model, input_ids=torch.randint(1, 97, (2, 9)), attention_mask=mask)
    assert [site.window for site in tiles] == [4, 4, 4, None]
    assert {site.kind for site in tiles} == {"decoder"}


def test_what_no_tile_can_hold_is_refused_by_name() -> None:
    size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97}
    model = make(hf.LongformerConfig(**size, attention_window=4))
    with pytest.raises(InputError, match=r"encoder.layer.0.attention.self .* a band of keys for each query"):
        watch(model, input_ids=torch.randint(3, 97, (2, 8)))


class Tower(nn.Module):
    """A part of a model with an attention layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([TwoAttention(), TwoAttention()])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, None)
        return x


class Towers(nn.Module):
    """Two towers, of which the second is for inputs that may be left out; `skip` passes over a layer."""

    def __init__(self, *, skip: bool) -> None:
        super().__init__()
        self.text, self.vision, self.skip = Tower(), Tower(), skip

    def forward(self, x: Tensor, pixel_values: Tensor | None = None) -> Tensor:
        out: Tensor = self.text.layers[0](x, None) if self.skip else self.text(x)
        return out if pixel_values is None else out + self.vision(pixel_values)


def test_a_tower_without_an_input_is_told() -> None:
    x = torch.randn(2, 4, 6, 8)
    tiles, notes = watch(Towers(skip=False).eval(), x=x)
    assert {site.tower for site in tiles} == {"text"}
    assert notes == ["vision (2 attention layers) did not run on these inputs and is not in the report"]
    tiles, notes = watch(Towers(skip=False).eval(), x=x, pixel_values=x)
    assert ({site.tower for site in tiles}, notes) == ({"text", "vision"}, [])


def test_a_layer_that_is_passed_over_is_refused() -> None:
    with pytest.raises(InputError, match=r"1 attention layers of Towers were not seen: text.layers.1"):
        watch(Towers(skip=True).eval(), x=torch.randn(2, 4, 6, 8))
