"""A head's slice is right if changing it changes that head and no other."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import headprobe
from headprobe.errors import InputError, UsageError
from headprobe.outputs import Outputs
from headprobe.tile import AttentionTile, Site
from headprobe.train.projections import Block
from headprobe.train.slices import HeadParameters, sliced
from tests.capture.models import GPT2, LLAMA, SIZE
from tests.train.families import FAMILIES, batch, build

OFTEN = ("bert", "llama", "gpt2", "bart", "t5")  # the other families take long: with make test-slow

# What reads the heads of attention that capture sees by its softmax alone; "" where the module gives them.
READERS = {"mpnet": "o", "bloom": "dense", "gptj": "out_proj", "mpt": "out_proj", "deberta-v2": ""}


class Watched:
    """A forward pass: each site's probabilities, and what its heads give [batch, head, query, feature]."""

    def __init__(self, family: str, model: nn.Module, given: dict[str, Tensor]) -> None:
        self.sites: dict[str, Site] = {}
        self.probs: dict[str, Tensor] = {}
        self.gives: dict[str, Tensor] = {}
        with torch.no_grad(), headprobe.observing(model, self._see, outputs=True):
            model(**given)
        if family in READERS:
            with torch.no_grad(), self._reading(model, READERS[family]):
                model(**given)

    def _see(self, tile: AttentionTile) -> None:
        path = tile.site.path
        if path in self.sites:  # ALBERT's one module is several sites
            return
        self.sites[path], self.probs[path] = tile.site, tile.probs.clone()
        if isinstance(tile.outputs, Outputs):
            self.gives[path] = tile.outputs.z.clone()

    @contextmanager
    def _reading(self, model: nn.Module, name: str) -> Iterator[None]:
        handles = []
        for path, site in self.sites.items():
            module = model.get_submodule(path)

            def read(_: Any, given: Any, output: Any, path: str = path, heads: int = site.heads) -> None:
                rows = given[0] if name else output[0]
                self.gives[path] = rows.unflatten(-1, (heads, -1)).transpose(1, 2).clone()

            handles.append((module.get_submodule(name) if name else module).register_forward_hook(read))
        yield
        for handle in handles:
            handle.remove()


def changed(before: Tensor, after: Tensor) -> list[int]:
    """The heads in axis 1 that are not the same; one that is hardly changed is neither."""
    apart = (before - after).abs().amax((0, 2, 3))
    assert all(value < 1e-5 or value > 1e-4 for value in apart.tolist()), apart
    return [head for head, value in enumerate(apart.tolist()) if value > 1e-4]


@contextmanager
def perturbed(blocks: tuple[Block, ...], unit: int) -> Iterator[None]:
    """One unit of some blocks is another while the context lasts."""
    kept = [block.parameter.detach().clone() for block in blocks]
    with torch.no_grad():
        for block in blocks:
            values = block.read(block.parameter)
            values[unit] += torch.randn(values[unit].shape)
            block.write(block.parameter.data, values)
    yield
    with torch.no_grad():
        for block, old in zip(blocks, kept, strict=True):
            block.parameter.copy_(old)


@pytest.mark.parametrize(
    "family", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_a_slice_is_one_heads(family: str) -> None:
    model, given = build(family), batch(family)
    plain = Watched(family, model, given)
    assert set(plain.gives) == set(plain.sites)
    last = {layer.kind: layer for layer in sliced(model)}
    for layer in last.values():
        check(family, model, given, plain, layer)


def check(family: str, model: nn.Module, given: dict[str, Tensor], plain: Watched, layer: HeadParameters) -> None:
    shared = layer.heads // layer.keys[0].units
    for head in range(layer.heads):
        with perturbed(layer.queries, head):
            now = Watched(family, model, given)
        assert changed(plain.probs[layer.path], now.probs[layer.path]) == [head]
    for group in range(layer.keys[0].units):
        heads = list(range(group * shared, (group + 1) * shared))
        with perturbed(layer.keys, group):
            now = Watched(family, model, given)
        assert changed(plain.probs[layer.path], now.probs[layer.path]) == heads
        with perturbed(layer.values, group):
            now = Watched(family, model, given)
        assert changed(plain.probs[layer.path], now.probs[layer.path]) == []
        assert changed(plain.gives[layer.path], now.gives[layer.path]) == heads


@pytest.mark.parametrize("family", FAMILIES)
def test_no_layer_is_missing(family: str) -> None:
    model = build(family)
    found = {layer.path: layer for layer in sliced(model)}
    sites = Watched("", model, batch(family)).sites
    assert set(found) == set(sites)
    for path, site in sites.items():
        layer = found[path]
        assert (layer.heads, layer.keys[0].units, layer.values[0].units) == (site.heads, site.kv_heads, site.kv_heads)
        assert (layer.kind, layer.layer) == (site.kind, site.layer)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_projection_is_owned_whole_and_once(family: str) -> None:
    for layer in sliced(build(family)):
        rows: dict[int, list[int]] = {}
        for block in layer.blocks:
            rows.setdefault(id(block.parameter), []).extend(block.rows.flatten().tolist())
            untouched = torch.randn(block.parameter.shape)
            written = untouched.clone()
            block.write(written, block.read(untouched))
            assert torch.equal(written, untouched)
        for block in layer.blocks:
            assert sorted(rows[id(block.parameter)]) == list(range(block.parameter.shape[block.axis]))


def test_layers_and_kinds_are_chosen() -> None:
    model = build("bart")
    chosen = [(each.kind, each.layer) for each in sliced(model, "1", ["cross", "encoder"])]
    assert chosen == [("encoder", 1), ("cross", 1)]
    assert [each.layer for each in sliced(model, [0], ["decoder"])] == [0]
    assert len(sliced(model, 0)) == 3


def test_a_choice_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no layer 7. Its layers are 0 to 1"):
        sliced(build("bert"), 7)
    with pytest.raises(UsageError, match=r"no attention layer is of the kinds.*The model has: encoder"):
        sliced(build("bert"), None, ["cross"])
    with pytest.raises(UsageError, match='"crossing"'):
        sliced(build("bert"), None, "crossing")
    with pytest.raises(InputError, match="Linear has no attention layers"):
        sliced(nn.Linear(2, 2))


def test_a_fused_projection_of_unknown_order_is_refused_by_name() -> None:
    model = hf.AutoModel.from_config(hf.CodeGenConfig(**GPT2, rotary_dim=4))
    with pytest.raises(InputError, match=r"h\.0\.attn \(CodeGenAttention\) can't be cut into heads.*Leave it out"):
        sliced(model)


def test_queries_that_come_with_gates_are_refused() -> None:
    model = build("llama")
    attention = model.layers[1].self_attn
    attention.q_proj = nn.Linear(32, 64)
    with pytest.raises(InputError, match=r"layers\.1\.self_attn .*would have 16 features, and it says 8"):
        sliced(model)
    assert [each.layer for each in sliced(model, 0)] == [0]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_is_no_plain_projection() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(build("llama"), peft.LoraConfig(target_modules=["q_proj"], r=2))
    with pytest.raises(InputError, match=r"its q_proj is a Linear"):
        sliced(model)


class Packed(nn.Parameter):
    """What quantised and sharded weights look like."""


def test_a_packed_weight_is_no_plain_matrix() -> None:
    model = hf.AutoModel.from_config(hf.LlamaConfig(**LLAMA))
    projection = model.layers[1].self_attn.k_proj
    projection.weight = Packed(projection.weight.detach())
    with pytest.raises(InputError, match=r"layers\.1\.self_attn .* the weight of its k_proj is a Packed"):
        sliced(model)


def test_tied_layers_are_one_and_half_tied_ones_refused() -> None:
    model = hf.AutoModel.from_config(hf.BertConfig(**SIZE))
    first, second = (model.encoder.layer[i].attention.self for i in (0, 1))
    for name in ("query", "key", "value"):
        for part in ("weight", "bias"):
            setattr(getattr(second, name), part, getattr(getattr(first, name), part))
    assert [each.layer for each in sliced(model)] == [0]
    second.query.weight = nn.Parameter(torch.zeros(32, 32))
    with pytest.raises(InputError, match=r"layer\.1.* shares a weight with .*layer\.0"):
        sliced(model)


def test_queries_and_keys_of_one_weight_are_refused() -> None:
    model = hf.AutoModel.from_config(hf.LlamaConfig(**LLAMA | {"num_key_value_heads": 4}))
    model.layers[0].self_attn.k_proj.weight = model.layers[0].self_attn.q_proj.weight
    with pytest.raises(InputError, match=r"layers\.0\.self_attn shares a weight with another projection of it"):
        sliced(model)
