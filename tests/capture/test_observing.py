"""What is captured is what the model computes, and the model computes what it would compute unwatched."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface
from transformers.models.bert.modeling_bert import eager_attention_forward

import headprobe
from headprobe.capture import observing
from headprobe.capture.interface import EagerCall
from headprobe.errors import InputError, UsageError
from headprobe.tile import AttentionTile, Site
from tests.capture.models import CONFIGS, ENCODER_DECODERS, LEGACY, attentions, build, inputs
from tests.capture.watching import full, joined


def watch(model: nn.Module, batch: dict[str, Tensor], **sizes: Any) -> tuple[Any, dict[Site, list[AttentionTile]]]:
    """One forward pass: what the model returned, and the tiles of every site."""
    tiles: dict[Site, list[AttentionTile]] = {}
    with (
        torch.inference_mode(),
        observing(model, lambda tile: tiles.setdefault(tile.site, []).append(tile), **sizes),
    ):
        out = model(**batch)
    return out, tiles


@pytest.mark.parametrize("family", CONFIGS)
def test_every_map_is_the_models_own(family: str) -> None:
    model, batch = build(family), inputs(family)
    with torch.inference_mode():
        plain = model(**batch, output_attentions=True)
    out, tiles = watch(model, batch)
    assert torch.equal(out[0], plain[0])
    expected = attentions(family, plain)
    assert len(tiles) == len(expected)
    for (site, (tile,)), own in zip(tiles.items(), expected, strict=True):
        assert torch.equal(tile.probs, own), site
        assert tile.whole
        assert float(tile.rows.masked_fill(tile.support[:, None], 0).sum()) < 1e-5
        assert torch.allclose(tile.rows.sum(-1)[:, 0], tile.query_mask.float(), atol=1e-5)


@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in LEGACY])
@pytest.mark.parametrize("rows", [1, 4, 22])
def test_tiles_of_some_rows_make_up_the_whole(family: str, rows: int) -> None:
    model, batch = build(family), inputs(family)
    out, whole = watch(model, batch)
    bytes_a_row = 4 * next(iter(whole.values()))[0].probs.shape[3] * 4
    tiled_out, tiled = watch(model, batch, tile_bytes=bytes_a_row * rows)
    assert torch.allclose(tiled_out[0], out[0], atol=1e-4)
    assert list(tiled) == list(whole)
    for site, tiles in tiled.items():
        assert len(tiles) > 1
        assert torch.allclose(joined(tiles, [full(tile) for tile in tiles], 2), whole[site][0].probs, atol=1e-4)
        assert torch.equal(joined(tiles, [full(tile, tile.support) for tile in tiles], 1), whole[site][0].support)
        assert torch.equal(joined(tiles, [tile.query_mask for tile in tiles], 1), whole[site][0].query_mask)


@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in LEGACY])
def test_sequences_by_themselves_are_what_they_are_together(family: str) -> None:
    model, batch = build(family), inputs(family)
    out, whole = watch(model, batch)
    apart_out, apart = watch(model, batch, cached_bytes=1)
    assert torch.allclose(apart_out[0], out[0], rtol=1e-4, atol=1e-4)
    for site, tiles in apart.items():
        assert all(tile.whole and len(tile.probs) == 1 for tile in tiles)
        assert torch.allclose(joined(tiles, [tile.probs for tile in tiles], 2), whole[site][0].probs, atol=1e-5)
        assert torch.equal(joined(tiles, [tile.support for tile in tiles], 1), whole[site][0].support)
        assert torch.equal(joined(tiles, [tile.key_positions for tile in tiles], 1), whole[site][0].key_positions)


def test_what_is_not_known_to_have_sequences_keeps_them_together() -> None:
    query, mask = torch.randn(4, 4, 5, 8), torch.zeros(4, 1, 5, 5)
    call = EagerCall(eager_attention_forward, nn.Identity(), query, query, query, mask, {"dropout": 0.0})
    assert call.separable
    for unclear in (torch.ones(4), torch.ones(4, 5, 5), (torch.ones(4, 5),), torch.ones(4, 7), torch.ones(3, 4, 5)):
        assert not replace(call, options={"extra": unclear}).separable
    for clear in (torch.ones(4, 1, 5, 5), torch.ones(1, 5), 3, None, torch.tensor(2.0)):
        assert replace(call, options={"extra": clear}).separable
    assert replace(call, options={"sinks": torch.ones(4)}).of(slice(1, 3)).options["sinks"].shape == (4,)
    part = replace(call, options={"extra": torch.arange(4.0).view(4, 1, 1, 1)}).of(slice(1, 3))
    assert part.options["extra"].flatten().tolist() == [1, 2]
    assert part.mask is not None
    assert len(part.query) == len(part.mask) == 2


@pytest.mark.parametrize("family", CONFIGS)
def test_kinds_layers_and_groups(family: str) -> None:
    _, tiles = watch(build(family), inputs(family))
    found = [(site.kind, site.layer) for site in tiles]
    decoders = {"gptj", "gpt2", "gpt-neox", "opt", "bloom", "llama", "mistral", "qwen3", "gemma2"}
    if family in ENCODER_DECODERS:
        assert found == [("encoder", 0), ("encoder", 1), ("decoder", 0), ("cross", 0), ("decoder", 1), ("cross", 1)]
    else:
        kind = "decoder" if family in decoders else "encoder"
        assert found == [(kind, 0), (kind, 1)]
    groups = 2 if family in ("llama", "mistral", "qwen3", "gemma2") else 4
    assert {site.kv_heads for site in tiles} == {groups}
    assert [site.index for site in tiles] == list(range(len(tiles)))


@pytest.mark.parametrize("family", ["bert", *LEGACY])
def test_gradients_may_be_recorded(family: str) -> None:
    model, batch = build(family), inputs(family)
    shown: list[Tensor] = []
    with observing(model, lambda tile: shown.append(tile.probs)):
        model(**batch)[0].sum().backward()
    expected = model(**batch, output_attentions=True).attentions
    assert all(torch.equal(mine, own) for mine, own in zip(shown, expected, strict=True))


def test_query_heads_share_key_value_heads_in_contiguous_groups() -> None:
    site = Site(0, "layers.0", "decoder", 0, 8, 4)
    assert [site.kv_group(head) for head in range(8)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_sliding_window_is_structure() -> None:
    _, tiles = watch(build("mistral"), inputs("mistral"))
    tile = next(iter(tiles.values()))[0]
    assert tile.support_size[0].tolist() == [1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4]
    assert tile.support_size[2].tolist() == [1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0]


def test_padding_alone_is_no_structure() -> None:
    _, tiles = watch(build("bert"), inputs("bert"))
    assert all(tile.structure is None for (tile,) in tiles.values())


def test_a_learned_sink_is_a_virtual_key() -> None:
    config = hf.GptOssConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, vocab_size=97, num_local_experts=2, num_experts_per_tok=1, sliding_window=4, pad_token_id=0,
    )  # fmt: skip
    model: Any = hf.AutoModel.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    for name, weight in model.named_parameters():
        nn.init.normal_(weight, std=1.0 if "sinks" in name else 0.1)
    batch = inputs("llama")
    out, tiles = watch(model, batch)
    with torch.inference_mode():
        plain = model(**batch, output_attentions=True)
    assert torch.equal(out[0], plain[0])
    for (site, (tile,)), own in zip(tiles.items(), plain.attentions, strict=True):
        assert site.sink
        assert torch.equal(tile.probs[..., :-1], own)
        assert torch.allclose(tile.probs.sum(-1), torch.ones(()))
        assert float(tile.rows[..., -1].max()) > 0.1
    report = headprobe.scan(model, batches=[batch])
    assert report.heads["sink_virtual"].between(0.01, 0.99).all()
    assert report.heads["row_error"].max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sink_that_takes_next_to_nothing_is_no_negative_mass(dtype: torch.dtype) -> None:
    config = hf.GptOssConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, vocab_size=97, num_local_experts=2, num_experts_per_tok=1, pad_token_id=0,
    )  # fmt: skip
    model: Any = hf.AutoModel.from_config(config, attn_implementation="eager", dtype=dtype).eval()
    for name, weight in model.named_parameters():
        nn.init.constant_(weight, -8.0) if "sinks" in name else nn.init.normal_(weight, std=0.4)
    report = headprobe.scan(model, batches=[{"input_ids": torch.randint(5, 97, (2, 60))}])
    assert report.heads["entropy"].notna().all()
    assert report.pairs["bc"].notna().all()


def test_a_decoders_mask_is_not_the_encoders() -> None:
    model: Any = hf.AutoModelForSeq2SeqLM.from_config(CONFIGS["bart"](), attn_implementation="eager").eval()
    batch = inputs("bart")
    labels = batch["input_ids"][:, :6].clone()
    _, tiles = watch(
        model, {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
    )
    queries = {site.kind: int(tile.query_mask.sum()) for site, (tile,) in tiles.items()}
    assert queries == {"encoder": 11 + 7 + 4, "decoder": 18, "cross": 18}


def test_positions_go_on_where_keys_come_from_a_cache() -> None:
    model, batch = build("llama"), inputs("llama")
    with torch.inference_mode():
        cache = model(**batch, use_cache=True).past_key_values
    mask = torch.cat([batch["attention_mask"], torch.ones(3, 1, dtype=torch.long)], 1)
    places = (mask.cumsum(-1) - 1)[:, -1:]
    step = {"input_ids": batch["input_ids"][:, :1], "attention_mask": mask, "position_ids": places}
    _, tiles = watch(model, {**step, "past_key_values": cache})
    (tile,) = next(iter(tiles.values()))
    assert tile.query_positions[:, 0].tolist() == [11, 7, 4]
    assert tile.site.kind == "decoder"


def test_a_part_of_a_model_is_not_observed_alone() -> None:
    model, batch = build("bart"), inputs("bart")
    with pytest.raises(UsageError, match="outside a forward pass"), observing(model, lambda tile: None):
        model.encoder(batch["input_ids"])


def test_nothing_is_left_behind() -> None:
    model, batch = build("bert"), inputs("bert")
    hooks = {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()}
    method = AttentionInterface.get_interface
    with pytest.raises(ZeroDivisionError), observing(model, lambda tile: 1 // 0):
        model(**batch)
    assert AttentionInterface.get_interface is method
    assert {name: (len(m._forward_hooks), len(m._forward_pre_hooks)) for name, m in model.named_modules()} == hooks
    _, tiles = watch(model, batch)
    assert len(tiles) == 2


def test_the_wrapped_method_has_the_shape_that_is_wrapped() -> None:
    assert list(inspect.signature(AttentionInterface.get_interface).parameters) == [
        "self",
        "attn_implementation",
        "default",
    ]


def test_another_model_passes_unwatched() -> None:
    model, other, batch = build("bert"), build("llama"), inputs("bert")
    seen: list[str] = []
    with observing(model, lambda tile: seen.append(tile.site.path)):
        other(**inputs("llama"))
        assert seen == []
        model(**batch)
    assert len(seen) == 2


def test_two_models_are_observed_side_by_side() -> None:
    bert, llama = build("bert"), build("llama")
    seen: list[str] = []
    with observing(bert, lambda tile: seen.append("bert")), observing(llama, lambda tile: seen.append("llama")):
        bert(**inputs("bert"))
        llama(**inputs("llama"))
    assert seen == ["bert"] * 2 + ["llama"] * 2


def test_a_model_is_observed_once_at_a_time() -> None:
    model = build("bert")
    with observing(model, print), pytest.raises(UsageError, match="observed already"), observing(model, print):
        pass
    with observing(model, print):
        pass


def test_attention_that_is_not_eager_is_refused() -> None:
    model = build("bert")
    model.set_attn_implementation("sdpa")
    with pytest.raises(UsageError, match="sdpa"), observing(model, print):
        model(**inputs("bert"))


class _Odd(nn.Module):
    """A model of one attention module that computes in some way of its own."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.block = attention

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.block(x)
        return out


class SilentAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class UnnormalisedAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x @ x.mT).softmax(-1)


class Half(nn.Module):
    """One of its parts is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.inner = UnnormalisedAttention(), SilentAttention()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.called(x)
        return out


class FlatAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (x[:, 0] @ x[:, 0].mT)[:, :, None].softmax(1)
        return out


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (SilentAttention(), "no softmax attention layers: block and its like take no softmax"),
        (Half(), "1 attention layers of _Odd were not seen: block.inner"),
        (FlatAttention(), "not \\[batch, head, query, key\\]"),
    ],
)
def test_attention_that_shows_no_probabilities_is_refused(module: nn.Module, message: str) -> None:
    model = _Odd(module).eval()
    with pytest.raises(InputError, match=message), observing(model, lambda tile: None):
        model(torch.randn(2, 3, 5, 8))


def test_a_model_without_attention_is_refused() -> None:
    model = _Odd(nn.Linear(8, 8)).eval()
    with pytest.raises(InputError, match="no softmax attention layers"), observing(model, print):
        model(torch.randn(2, 8))


def test_attention_that_is_not_finite_is_refused() -> None:
    model = _Odd(UnnormalisedAttention()).eval()
    with pytest.raises(InputError, match="not finite"), observing(model, lambda tile: None):
        model(torch.full((1, 2, 4, 8), float("nan")))


def test_half_precision_is_shown_in_float32() -> None:
    model = build("llama").to(torch.bfloat16)
    _, tiles = watch(model, inputs("llama"))
    assert {tile.probs.dtype for (tile,) in tiles.values()} == {torch.float32}
