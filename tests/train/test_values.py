"""What penalties measure: golden values, what a scan measures, a slow second implementation, finite differences."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

import headprobe
from headprobe import devices
from headprobe.metrics.penalty import Penalty
from headprobe.tile import AttentionTile, Site
from headprobe.train import DiversityPenalty
from headprobe.train.terms import TERMS
from tests.capture.models import inputs
from tests.train.making import gradients, measured, ready, value

FAMILIES = ("bert", "llama", "gpt2", "bart", "t5")
SCANNED = {"lin": "aat_heads", "cosine": "rcos_heads", "kl": "kl_mean", "js": "js_mean", "within": "aat_sq"}
P, Q, R = [0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 0.0], [0.25] * 4


def heads_of_a_query(*rows: list[float]) -> Tensor:
    return torch.tensor(rows)[None, :, None, :].requires_grad_()


def test_golden_lin() -> None:
    probs = heads_of_a_query(P, Q, R)
    assert float(value("lin", probs).detach()) == 1.4375
    shares = Penalty().compute(Penalty().observe(AttentionTile.of(probs))).heads["aat_heads_share"]
    assert shares.tolist() == [3 / 8, 3 / 8, 11 / 16]
    assert float(value("cosine", probs).detach()) == pytest.approx(5 / 12)


def test_golden_within() -> None:
    a = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]])
    causal = torch.ones(1, 3, 3, dtype=torch.bool).tril()
    assert float(value("within", a[None, None].requires_grad_(), structure=causal).detach()) == 9 / 8
    assert float(value("within", torch.full((1, 2, 4, 4), 0.25))) == 3
    assert float(value("within", torch.eye(4)[None, None])) == 0


def test_golden_divergences() -> None:
    assert float(value("js", heads_of_a_query(P, Q)).detach()) == pytest.approx(math.log(2) / 2)
    assert float(value("js", heads_of_a_query(P, R)).detach()) == pytest.approx(0.75 * math.log(4 / 3))
    disjoint = float(value("kl", heads_of_a_query([1.0, 0], [0, 1.0])).detach())
    assert disjoint == pytest.approx(0.999 * math.log(1 + 2 * 0.999 / 0.001), rel=1e-5)  # bounded by smoothing


def test_golden_disagreements() -> None:
    same, swapped = torch.eye(2).expand(1, 2, 2, 2), torch.stack([torch.eye(2), torch.eye(2).flip(0)])[None]
    assert float(value("position", same)) == 2
    assert float(value("position", swapped)) == 1
    for name in ("subspace", "output"):
        assert float(value(name, same, same, same)) == pytest.approx(1)
        assert float(value(name, same, swapped, swapped)) == pytest.approx(0.5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SCANNED)
def test_equals_what_a_scan_measures(family: str, name: str) -> None:
    model, batch = ready(family)
    penalty = DiversityPenalty(name)
    with penalty.watching(model):
        model(**batch)
        total = penalty()
    report = headprobe.scan(model, batches=[batch], metrics=[SCANNED[name]])
    table = report.heads.groupby("site", as_index=False).mean(numeric_only=True) if name == "within" else report.layers
    scanned = table.set_index("site")[SCANNED[name]].to_dict()
    found = {site.index: float(each) for site, each in penalty.values.items()}
    assert found == pytest.approx(scanned, rel=1e-5, abs=1e-5)
    assert len(found) == (6 if family in ("bart", "t5") else 2)
    sign = -1 if name in ("kl", "js") else 1
    assert float(total.detach()) == pytest.approx(sign * sum(scanned.values()) / len(scanned), abs=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_padding_and_batches_change_nothing(name: str) -> None:
    model, batch = ready("bert")
    together = measured(name, model, batch)
    lengths = [int(length) for length in batch["attention_mask"].sum(-1)]
    rows = [{key: tensor[i : i + 1, :n] for key, tensor in batch.items()} for i, n in enumerate(lengths)]
    penalty = DiversityPenalty(name, weight=0)
    with penalty.watching(model):
        for row in rows:  # the sums over several forward passes are one
            model(**row)
        penalty()
    assert {site: float(each) for site, each in penalty.values.items()} == pytest.approx(together, rel=1e-4)


def slow_disagreements(attention: Tensor, vectors: Tensor, outputs: Tensor, length: int) -> dict[str, float]:
    """Li et al.'s terms of one sequence, pair by pair, as their formulas stand."""
    heads = range(attention.shape[0])
    sums = dict.fromkeys(("position", "subspace", "output"), 0.0)
    for g, h in product(heads, heads):
        sums["position"] += float((attention[g, :length] * attention[h, :length]).abs().sum())
        for name, each in (("subspace", vectors), ("output", outputs)):
            a, b = each[g, :length].flatten(), each[h, :length].flatten()
            sums[name] += float(a @ b / (a.norm() * b.norm()))
    return {name: total / len(heads) ** 2 for name, total in sums.items()}


def test_disagreements_equal_a_slow_implementation() -> None:
    model, batch = ready("bert")
    kept: list[Tensor] = []
    layer = model.encoder.layer[0].attention.self
    handle = layer.value.register_forward_hook(lambda module, args, output: kept.append(output.detach()))
    attention = model(**batch, output_attentions=True).attentions[0].detach()
    handle.remove()
    vectors = kept[0].unflatten(-1, (4, 8)).transpose(1, 2)
    lengths = batch["attention_mask"].sum(-1).tolist()
    slow = [slow_disagreements(*each) for each in zip(attention, vectors, attention @ vectors, lengths, strict=True)]
    for name in ("position", "subspace", "output"):
        found = measured(name, model, batch, layers=0)
        assert list(found.values()) == pytest.approx([sum(each[name] for each in slow) / len(slow)], rel=1e-5)


def test_shared_values_count_for_every_head() -> None:
    values = torch.randn(2, 2, 5, 3)
    probs, z = torch.full((2, 4, 5, 5), 0.2), torch.zeros(2, 4, 5, 3)
    repeated = value("subspace", probs, z, values.repeat_interleave(2, 1))
    assert float(value("subspace", probs, z, values)) == pytest.approx(float(repeated))


@pytest.mark.parametrize("name", TERMS)
def test_gradients_are_finite_differences(name: str) -> None:
    valid = torch.tensor([[True] * 5, [True] * 4 + [False]])
    causal = torch.ones(1, 5, 5, dtype=torch.bool).tril()

    def of(scores: Tensor, values: Tensor) -> Tensor:
        hidden = ~(causal & valid[:, None])[:, None]
        probs = scores.masked_fill(hidden, -1e4).softmax(-1)
        return value(name, probs, probs @ values, values, query_mask=valid, key_mask=valid, structure=causal)

    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 5, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 3, 5, 2, generator=draw, dtype=torch.float64, requires_grad=True)
    given = (scores, values) if name in ("subspace", "output") else (scores, values.detach())
    assert torch.autograd.gradcheck(of, given)


@pytest.mark.parametrize("name", TERMS)
def test_gradients_through_a_model_are_finite_differences(name: str) -> None:
    model, batch = ready("bert")
    model.double()
    penalty = DiversityPenalty(name, weight=0.5)
    mask = batch["attention_mask"][1:, :7]

    def of(weight: Tensor) -> Tensor:
        with penalty.watching(model):
            model(inputs_embeds=states * weight, attention_mask=mask)
        return penalty()

    states = torch.randn(2, 7, 32, dtype=torch.float64)
    weight = torch.rand(32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(of, (weight,))


@pytest.mark.parametrize("name", TERMS)
def test_extreme_attention_has_finite_gradients(name: str) -> None:
    """Rows that put all on one key, one-token sequences, identical heads, and a layer of padding alone."""
    scores = torch.zeros(3, 3, 4, 4)
    scores[0] = 1e3 * torch.eye(4)
    scores.requires_grad_()
    valid = torch.tensor([[True] * 4, [True] + [False] * 3, [False] * 4])
    probs = scores.masked_fill(~valid[:, None, None], -1e4).softmax(-1)
    values = torch.zeros(3, 3, 4, 2, requires_grad=True)
    found = value(name, probs, probs @ values, values, query_mask=valid, key_mask=valid)
    (found + 0 * scores.sum()).backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_rows_that_a_device_keeps_change_no_gradient(family: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an accelerator padding is not picked out, but has no part in sums: nor in gradients, where 0 · ∞ is NaN."""
    found = []
    for picked in (True, False):
        model, _ = ready(family)
        torch.manual_seed(1)
        batch, penalty = inputs(family), DiversityPenalty(name)
        if not picked:
            monkeypatch.setattr(devices, "at_hand", lambda _: False)
        with penalty.watching(model):
            model(**batch)
            penalty().backward()
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys()
    for weight, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][weight], rtol=1e-5, atol=1e-8), weight


def test_undefined_sites_add_nothing() -> None:
    model, _ = ready("bert", training=True)
    penalty = DiversityPenalty("lin")
    with penalty.watching(model):
        model(input_ids=torch.tensor([[5, 6, 7]]))  # fewer keys than heads
        total = penalty()
    total.backward()
    assert float(total.detach()) == 0
    assert all(bool(each.isnan()) for each in penalty.values.values())
    assert all(w.grad is None or not w.grad.any() for w in model.parameters())


def test_layers_and_kinds_are_chosen() -> None:
    model, batch = ready("bart")

    def sites(**choice: Any) -> set[tuple[str, int]]:
        return {(site.kind, site.layer) for site in measured("lin", model, batch, **choice)}

    assert sites(layers="1") == {("encoder", 1), ("decoder", 1), ("cross", 1)}
    assert sites(layers=[0, 1], kinds="cross") == {("cross", 0), ("cross", 1)}
    assert sites(kinds=["encoder", "decoder"], layers=0) == {("encoder", 0), ("decoder", 0)}
    assert all(isinstance(site, Site) for site in measured("lin", model, inputs("bart")))
