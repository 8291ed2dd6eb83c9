"""Heads of different layers, or of two models, side by side: however each layer's calls were cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaAttention

import headprobe
from headprobe import budget
from headprobe.capture import observing
from headprobe.drift import Matching
from headprobe.errors import EnvironmentFailure
from headprobe.plan import plan
from tests.capture.models import LLAMA, build
from tests.capture.watching import make

QUERIES = 20


def batch(sequences: int = 4, *, padding: int = 0) -> dict[str, Tensor]:
    """Texts of other lengths, padded beyond the longest."""
    ids = torch.randint(5, 97, (sequences, QUERIES), generator=torch.Generator().manual_seed(0))
    lengths = QUERIES - padding - 3 * torch.arange(sequences)
    return {"input_ids": ids, "attention_mask": (torch.arange(QUERIES) < lengths[:, None]).long()}


def llama(**other: Any) -> Any:
    """Two layers, the second one's attention with other heads."""
    model = make(hf.LlamaConfig(**{**LLAMA, "num_key_value_heads": 4}))
    if other:
        config = hf.LlamaConfig(**{**LLAMA, **other})
        config._attn_implementation = "eager"
        model.layers[1].self_attn = LlamaAttention(config, 1).eval()
        for weight in model.layers[1].self_attn.parameters():
            nn.init.normal_(weight, std=0.3)
        model.layers[1].self_attn.config = model.config
    return model


def js(model: Any, given: dict[str, Tensor]) -> list[float]:
    """Of all pairs of heads of all layers, in order: by the definition, query by query."""
    with torch.no_grad():
        maps = torch.cat(model(**given, output_attentions=True).attentions, 1).double()
    rows = []
    for probs, mask in zip(maps, given["attention_mask"], strict=True):
        rows += [probs[:, query] for query in range(1, int(mask.sum()))]  # a first query sees one key
    p = torch.stack(rows)  # [row, head, key]
    one, other = torch.triu_indices(p.shape[1], p.shape[1], 1)
    halves = [torch.special.entr(each).sum(-1) / 2 for each in (p[:, one], p[:, other])]
    found = torch.special.entr((p[:, one] + p[:, other]) / 2).sum(-1) - halves[0] - halves[1]
    return found.mean(0).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("sequences", [1, 2, 3])  # of the layer of four heads that go together
def test_layers_of_other_numbers_of_heads_are_compared(
    sequences: int, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = llama(num_attention_heads=2, num_key_value_heads=2, head_dim=8), batch(padding=padding)
    monkeypatch.setattr(budget, "CACHED", sequences * 4 * QUERIES**2 * 4 // torch.get_num_threads())
    pairs = headprobe.scan(model, batches=[given], pairs="model", metrics=["js"]).pairs
    assert len(pairs) == 6 * 5 // 2
    assert pairs["js"].tolist() == pytest.approx(js(model, given), abs=1e-6)


def test_attention_that_is_held_is_compared_with_attention_that_is_computed_again() -> None:
    model, given = llama(num_attention_heads=4, num_key_value_heads=1, head_dim=8), batch(1)
    given = {name: values[:, :12] for name, values in given.items()}  # of 12 queries one layer's keys are smaller
    for memory in ("1GiB", "24KiB", "16KiB"):
        pairs = headprobe.scan(model, batches=[given], pairs="model", metrics=["js"], max_memory=memory).pairs
        assert pairs["js"].tolist() == pytest.approx(js(model, given), abs=1e-6), memory


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "bart"])  # of GPT-2 queries and keys are parts of one tensor
def test_what_is_kept_is_forecast(family: str, dtype: str, tmp_path: Path) -> None:
    model = build(family).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path)
    chosen: dict[str, Any] = {"pairs": "model", "dtype": dtype}
    kept = plan(str(tmp_path), batch_size=1, max_length=48, **chosen).kept_bytes
    given: dict[str, Any] = {"input_ids": torch.full((1, 48), 7), "use_cache": False}  # which would copy the keys
    given |= {"decoder_input_ids": given["input_ids"]} if family == "bart" else {}
    headprobe.scan(model, batches=[given], max_memory=2 * kept, **chosen)
    with pytest.raises(EnvironmentFailure, match=f"over {2 * kept:,} bytes"):
        headprobe.scan(model, batches=[given], max_memory=2 * kept - 1, **chosen)


class TwoTowers(nn.Module):
    """The second runs on some inputs alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = llama(), llama()
        self.config = self.first.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor, both: bool = False) -> None:
        for tower in (self.first, self.second)[: 1 + both]:
            tower(input_ids=input_ids, attention_mask=attention_mask)


def test_a_tower_that_runs_later_is_compared_too() -> None:
    given = batch(2)
    late = headprobe.scan(TwoTowers().eval(), batches=[given, {**given, "both": True}], pairs="model", metrics=["js"])
    assert set(late.heads["tower"]) == {"first", "second"}
    apart = late.pairs[late.pairs["site_a"] >= 2].reset_index(drop=True)
    assert len(apart) == 8 * 7 // 2
    assert apart["js"].tolist() == pytest.approx(js(llama(), given), abs=1e-6)


def test_models_of_other_numbers_of_heads_are_matched_in_any_parts() -> None:
    base, other, given = llama(), make(hf.LlamaConfig(**{**LLAMA, "num_attention_heads": 2})), batch()

    def matched(cached: int) -> Tensor:
        between = Matching(2**20)
        sides: list[tuple[Any, Callable[..., None]]] = [(base, between.before), (other, between.after)]
        for model, receive in sides:
            with torch.no_grad(), observing(model, receive, cached_bytes=cached):
                model(**given)
        between.end()
        return torch.tensor(between.tables()[0].to_numpy())

    whole = matched(2**20)
    assert whole.shape == (8, 4)
    for sequences in (1, 2, 3):
        torch.testing.assert_close(matched(sequences * 4 * QUERIES**2 * 4), whole)
