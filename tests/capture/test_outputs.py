"""Which module reads what heads give, in models whose makers never thought of it."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from headprobe.capture import observing
from headprobe.outputs import Outputs, Projection, Unknown
from headprobe.tile import AttentionTile
from tests.capture.models import CONFIGS, LEGACY, build, inputs
from tests.capture.watching import joined, make

SIZE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97,
}  # fmt: skip


def watch(model: nn.Module, tile_bytes: int = 2**28, /, **given: Any) -> list[AttentionTile]:
    tiles: list[AttentionTile] = []
    with torch.no_grad(), observing(model, tiles.append, tile_bytes=tile_bytes, outputs=True):
        model(**given)
    return tiles


def known(tile: AttentionTile) -> tuple[Tensor, Tensor, Projection]:
    """What a tile's heads give, of which values, and what reads it."""
    assert isinstance(tile.outputs, Outputs)
    assert isinstance(tile.outputs.values, Tensor)
    assert isinstance(tile.outputs.projection, Projection)
    return tile.outputs.z, tile.outputs.values, tile.outputs.projection


def why(tile: AttentionTile, *, of: str = "projection") -> str:
    found = tile.outputs if isinstance(tile.outputs, Unknown) else getattr(tile.outputs, of)
    assert isinstance(found, Unknown)
    return found.why


def text(model: Any) -> dict[str, Tensor]:
    ids = torch.arange(18).view(2, 9) + 5
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("family", [name for name in CONFIGS if name not in LEGACY])
@pytest.mark.parametrize("tile_bytes", [2**28, 700])
def test_heads_add_up_to_what_their_layer_writes(family: str, tile_bytes: int) -> None:
    model, given = build(family), inputs(family)
    made: dict[str, list[Tensor]] = {}
    for path, module in model.named_modules():
        module.register_forward_hook(
            lambda _, args, out, path=path: made.setdefault(path, []).append(out) if torch.is_tensor(out) else None
        )
    with torch.no_grad():
        model(**given)
    expected = {path: [each.clone() for each in outputs] for path, outputs in made.items()}
    written: dict[tuple[int, str], list[tuple[AttentionTile, Tensor]]] = {}
    for tile in watch(model, tile_bytes, **given):
        z, values, projection = known(tile)
        shared = values.repeat_interleave(tile.site.heads // tile.site.kv_heads, 1)
        mean = tile.probs[..., : shared.shape[2]] @ shared
        assert torch.allclose(z[tile.query_mask.nonzero()[:, 0]], mean[tile.query_mask.nonzero()[:, 0]], atol=1e-5)
        together = torch.einsum("bhqf,hfd->bqd", z.double(), projection.weights())
        bias = getattr(model.get_submodule(projection.path), "bias", None)
        together = together if bias is None else together + bias
        written.setdefault((tile.site.index, projection.path), []).append((tile, together))
    calls: dict[str, int] = {}
    for (_, path), parts in sorted(written.items()):
        call = calls[path] = calls.get(path, -1) + 1  # a shared layer's projection writes more than once
        tiles, outputs = (list(each) for each in zip(*parts, strict=True))
        assert torch.allclose(joined(tiles, outputs, 1).float(), expected[path][call], atol=1e-4)


@pytest.mark.parametrize("family", LEGACY)
def test_values_behind_a_softmax_of_their_own_are_unknown(family: str) -> None:
    tiles = watch(build(family), **inputs(family))
    assert tiles
    assert {why(tile) for tile in tiles} == {"it computes its attention by itself, so that its values are not seen"}


def test_outputs_are_not_there_unasked() -> None:
    tiles: list[AttentionTile] = []
    model = build("bert")
    with torch.no_grad(), observing(model, tiles.append):
        model(**inputs("bert"))
    assert {tile.outputs for tile in tiles} == {None}


def test_the_first_pass_alone_runs_twice_and_changes_nothing() -> None:
    model = build("llama")
    runs: list[int] = []
    model.register_forward_hook(lambda *_: runs.append(1))
    given = inputs("llama")
    cache = hf.DynamicCache()
    with torch.no_grad():
        plain = model(**given, past_key_values=hf.DynamicCache()).last_hidden_state
    before = torch.get_rng_state()
    with torch.no_grad(), observing(model, lambda tile: None, outputs=True) as observer:
        watched = model(**given, past_key_values=cache).last_hidden_state
        assert (len(runs), observer.passes, observer.sequences) == (3, 1, len(given["input_ids"]))
        model(**given)
    assert len(runs) == 4
    assert torch.equal(watched, plain)
    assert cache.get_seq_length() == given["input_ids"].shape[1]  # of one pass, not of two
    assert torch.equal(torch.get_rng_state(), before)


class Adapted(nn.Module):
    """A linear module that holds its weights in two places, as adapters do."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, 3, bias=False)
        self.up = nn.Linear(3, base.out_features, bias=False)

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.base(x) + self.up(self.down(x))
        return made


def test_after_a_first_pass_that_failed_the_next_is_seen() -> None:
    model, tiles = build("llama"), []
    given = text(model)

    def fails(*_: Any) -> None:
        raise ValueError("out of order")

    with torch.no_grad(), observing(model, lambda tile: tiles.append(tile), outputs=True):
        handle = model.layers[1].mlp.register_forward_pre_hook(fails)
        with pytest.raises(ValueError, match="out of order"):
            model(**given)
        handle.remove()
        model(**given)
    assert [tile.site.index for tile in tiles] == [0, 1]
    assert all(known(tile) for tile in tiles)


def test_an_adapter_is_a_part_of_what_reads() -> None:
    model = build("bert")
    output = model.encoder.layer[0].attention.output
    output.dense = Adapted(output.dense).eval()
    merged = output.dense.base.weight + output.dense.up.weight @ output.dense.down.weight
    *_, projection = known(watch(model, **inputs("bert"))[0])
    assert projection.path == "encoder.layer.0.attention.output.dense"
    assert torch.allclose(projection.read().float(), merged.T, atol=1e-6)


class Packed(nn.Module):
    """Weights of 8 bits with a scale a row."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.scale = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.weight = nn.Parameter((linear.weight / self.scale).round().to(torch.int8), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


def test_quantised_weights_are_read_by_what_they_do() -> None:
    model = build("bert")
    output = model.encoder.layer[0].attention.output
    output.dense = Packed(output.dense).eval()
    *_, projection = known(watch(model, **inputs("bert"))[0])
    assert torch.allclose(projection.read().float(), (output.dense.weight * output.dense.scale).T, atol=1e-6)


class Changing(nn.Module):
    """Something between heads and their projection."""

    def __init__(self, dense: nn.Module, how: str) -> None:
        super().__init__()
        self.dense, self.how = dense, how
        self.gate = nn.Parameter(torch.rand(32) + 0.5)
        self.norm = nn.LayerNorm(32)
        self.rest = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Any:
        if self.how == "in place":
            x.mul_(self.gate)
        elif self.how == "normed":
            x = self.norm(x)
        elif self.how == "rests":
            x = self.rest(x)
        elif self.how == "rolled":
            x = x.roll(1, -1)
        return self.dense(x)


@pytest.mark.parametrize("how", ["in place", "normed"])
def test_heads_that_are_changed_before_they_are_written_have_no_projection(how: str) -> None:
    model = build("bert")
    output = model.encoder.layer[0].attention.output
    output.dense = Changing(output.dense, how).eval()
    first, second = watch(model, **inputs("bert"))
    assert "gated, normed or moved" in why(first)
    assert isinstance(first.outputs, Outputs)
    assert isinstance(first.outputs.values, Tensor)  # what they give is known all the same
    assert known(second)[2].path == "encoder.layer.1.attention.output.dense"


def test_dropout_that_rests_changes_nothing() -> None:
    model = build("bert")
    output = model.encoder.layer[0].attention.output
    output.dense = Changing(output.dense, "rests").eval()
    assert known(watch(model, **inputs("bert"))[0])[2].path == "encoder.layer.0.attention.output.dense"


def test_a_linear_module_may_do_more_than_multiply() -> None:
    model = build("bert")
    output = model.encoder.layer[0].attention.output
    output.dense = Changing(output.dense, "rolled").eval()
    *_, projection = known(watch(model, **inputs("bert"))[0])
    assert projection.path == "encoder.layer.0.attention.output.dense"
    assert torch.allclose(projection.read().float(), output.dense.dense.weight.T.roll(-1, 0), atol=1e-6)


def test_a_learned_sink_writes_nothing() -> None:
    config = hf.GptOssConfig(
        **SIZE, num_key_value_heads=2, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=4
    )
    model = make(config)
    for tile in watch(model, **text(model)):
        z, values, _ = known(tile)
        assert tile.site.sink
        assert values.shape[2] == tile.probs.shape[3] - 1
        shared = values.repeat_interleave(2, 1)
        assert torch.allclose(z, tile.probs[..., :-1] @ shared, atol=1e-6)


def test_attention_that_is_more_than_a_mean_has_no_values() -> None:
    """Sinks that the model applies to its output, and does not show in its probabilities."""
    model = make(hf.GraniteMoeSWAConfig(**SIZE, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2))
    for tile in watch(model, **text(model)):
        assert why(tile, of="values") == "its attention is more than a mean of values"
        assert isinstance(tile.outputs, Outputs)
        assert isinstance(tile.outputs.projection, Projection)


def test_attention_in_one_call_gives_what_it_returned() -> None:
    model = Fused().eval()
    given = torch.randn(2, 9, 32)
    for tile_bytes in (2**28, 4 * 2 * 4 * 9 * 4):
        parts, tiles = [], watch(model, tile_bytes, inputs_embeds=given)
        for tile in tiles:
            z, values, projection = known(tile)
            assert torch.allclose(z, tile.probs @ values, atol=1e-6)
            parts.append(torch.einsum("bhqf,hfd->bqd", z.double(), projection.weights()).float())
            assert projection.path == "attention.out"
        with torch.no_grad():
            assert torch.allclose(joined(tiles, parts, 1) + model.attention.out.bias, model(given), atol=1e-5)


class FusedAttention(nn.Module):
    """Attention in one call, whose output may be gated by what its heads give."""

    def __init__(self, gate: nn.Module | None) -> None:
        super().__init__()
        self.qkv, self.out, self.gate = nn.Linear(32, 96), nn.Linear(32, 32), gate

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        z = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        made: Tensor = self.out(z) if self.gate is None else self.out(z) * self.gate(z)
        return made


class Fused(nn.Module):
    """A model of one layer."""

    def __init__(self, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.config = hf.BertConfig()
        self.attention = FusedAttention(gate)

    def forward(self, inputs_embeds: Tensor) -> Tensor:
        made: Tensor = self.attention(inputs_embeds)
        return made


def test_two_modules_that_read_the_same_are_not_chosen_from() -> None:
    tile, *_ = watch(Fused(nn.Linear(32, 32)).eval(), inputs_embeds=torch.randn(2, 9, 32))
    assert why(tile) == "attention.out and attention.gate both read what its heads give"
