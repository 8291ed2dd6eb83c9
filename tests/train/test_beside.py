"""Attention that models compute by themselves, beside transformers' attention interface: seen above autograd."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import _get_current_function_mode_stack

import headprobe
from headprobe.train import DiversityPenalty
from tests.capture.models import LEGACY, build, inputs
from tests.train.making import checkpointed, gradients, loss_of, ready, trained

COLUMNS = {"lin": "aat_heads", "cosine": "rcos_heads", "kl": "kl_mean", "js": "js_mean"}


@pytest.mark.parametrize("family", LEGACY)
def test_equals_what_a_scan_measures(family: str) -> None:
    model, batch = ready(family)
    report = headprobe.scan(model, batches=[batch], metrics=[*COLUMNS.values(), "aat_sq"])
    scanned = report.layers.assign(aat_sq=report.heads.groupby("site").aat_sq.mean()).set_index("site")
    for name, column in {**COLUMNS, "within": "aat_sq"}.items():
        penalty = DiversityPenalty(name)
        with penalty.watching(model):
            model(**batch)
            penalty().backward()
        assert [site.kind for site in penalty.values] == list(report.layers["kind"])
        found = {site.index: float(each) for site, each in penalty.values.items()}
        assert found == pytest.approx(scanned[column].to_dict(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("family", LEGACY)
def test_weight_zero_is_training_without(family: str) -> None:
    plain, measured, lower = (
        trained(family, 4, None if weight is None else DiversityPenalty("lin", weight=weight))
        for weight in (None, 0.0, 0.1)
    )
    for name, weight in plain.named_parameters():
        assert torch.equal(weight, measured.get_parameter(name)), name
    assert any(not torch.equal(weight, lower.get_parameter(name)) for name, weight in plain.named_parameters())


@pytest.mark.parametrize("name", ["lin", "js", "position"])
def test_gradients_are_finite_differences(name: str) -> None:
    model, batch = ready("deberta-v2")
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


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("family", ["deberta-v2", "bloom"])
def test_gradient_checkpointing_changes_no_gradient(family: str, inside: bool) -> None:
    def run(checkpointing: bool) -> dict[str, Tensor]:
        model, batch = ready(family, training=True)
        if checkpointing:
            checkpointed(model)
        penalty = DiversityPenalty("lin")
        torch.manual_seed(3)
        with penalty.watching(model):
            loss = loss_of(model, batch) + penalty()
            if inside:
                loss.backward()
                with pytest.raises(Exception, match="no forward pass was watched"):
                    penalty()
        if not inside:
            loss.backward()
        return gradients(model)

    plain, again = run(False), run(True)
    assert plain.keys() == again.keys()
    for weight, found in again.items():
        assert torch.allclose(found, plain[weight], rtol=1e-4, atol=1e-6), weight


@pytest.mark.parametrize("family", ["deberta-v2", "bert"])
def test_a_part_that_runs_by_itself_is_no_forward_pass(family: str) -> None:
    model, batch = ready(family, training=True)
    penalty, states = DiversityPenalty("lin"), torch.randn(2, 5, 32)
    mask, relative = None, {}
    if family == "deberta-v2":
        mask, relative = torch.ones(2, 1, 5, 5).bool(), {"rel_embeddings": model.encoder.get_rel_embedding()}
    with penalty.watching(model):
        model(**batch)
        penalty()
        model.encoder.layer[0](states, mask, **relative)
        with pytest.raises(Exception, match="no forward pass was watched"):
            penalty()


def test_dropout_is_left_out_and_layers_are_chosen() -> None:
    """What is seen is the softmax itself, before the dropout that follows it."""
    model, batch = build("gptj"), inputs("gptj")
    values: list[Any] = []
    for rate in (0.0, 0.5):
        model.train().h[0].attn.attn_dropout.p = rate
        model.drop.p = 0.0
        penalty = DiversityPenalty("lin", layers=0)
        with penalty.watching(model):
            model(**batch)
            penalty()
        values.append([float(each) for each in penalty.values.values()])
    assert len(values[0]) == 1
    assert values[0] == values[1]


@pytest.mark.parametrize(("family", "listens"), [("bert", False), ("gptj", True)])
def test_operations_are_looked_at_only_where_attention_is_beside(family: str, listens: bool) -> None:
    model, batch = ready(family, training=True)
    penalty = DiversityPenalty("lin")
    for first in (True, False):
        with penalty.watching(model):
            assert bool(_get_current_function_mode_stack()) == (first or listens)
            model(**batch)
            penalty()
        assert len(penalty.values) == 2
