"""Steps of training with a penalty: what it changes, and what it leaves alone."""

from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import nn
from transformers.modeling_utils import AttentionInterface
from transformers.models.bert.modeling_bert import eager_attention_forward

from headprobe.train import DiversityPenalty
from headprobe.train.terms import TERMS
from tests.capture.models import inputs
from tests.train.making import checkpointed, gradients, loss_of, measured, ready, trained, value

FAMILIES = ("bert", "llama", "gpt2", "bart", "t5")


def parameters(model: nn.Module) -> list[torch.Tensor]:
    return [weight.detach() for weight in model.parameters()]


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(parameters(one), parameters(other), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_weight_zero_is_training_without(family: str) -> None:
    plain = trained(family, 10, None)
    assert equal(plain, trained(family, 10, DiversityPenalty("lin", weight=0)))
    assert not equal(plain, trained(family, 10, DiversityPenalty("lin", weight=0.1)))


@pytest.mark.parametrize(("name", "sign"), [("lin", -1), ("js", 1)])
def test_penalty_moves_the_chosen_layers(name: str, sign: int) -> None:
    batch = inputs("bert")
    for seed in range(5):
        plain = trained("bert", 15, None, seed=seed)
        kept_apart = trained("bert", 15, DiversityPenalty(name, weight=2.0, layers=1), seed=seed)
        without, with_it = (sum(measured(name, each, batch, layers=1).values()) for each in (plain, kept_apart))
        assert sign * (with_it - without) > 0.02 * without


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", TERMS)
def test_every_family_learns_from_every_penalty(family: str, name: str) -> None:
    """A small step along the gradient lowers the penalty of all kinds of attention."""
    model, batch = ready(family)
    penalty = DiversityPenalty(name)
    with penalty.watching(model):
        model(**batch)
        before = penalty()
    before.backward()
    assert len(penalty.values) == (6 if family in ("bart", "t5") else 2)
    norm = sum(float(w.grad.square().sum()) for w in model.parameters() if w.grad is not None) ** 0.5
    with torch.no_grad():
        for weight in model.parameters():
            if weight.grad is not None:
                weight -= 2e-3 * weight.grad / norm
    with penalty.watching(model):
        model(**batch)
        after = penalty()
    assert float(after.detach()) < float(before.detach())


@pytest.mark.parametrize("name", ["lin", "js", "output"])
def test_dropout_is_left_out_of_what_is_measured(name: str) -> None:
    model, batch = ready("bert", training=True)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.encoder.layer[0].attention.self.dropout.p = model.encoder.layer[1].attention.self.dropout.p = 0.5
    penalty = DiversityPenalty(name, layers=0)  # layer 1 has other inputs
    with penalty.watching(model):
        model(**batch)
        penalty()
    found = {site: float(each) for site, each in penalty.values.items()}
    assert found == pytest.approx(measured(name, model, batch, layers=0), rel=1e-5)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("family", "name"), [("bert", "lin"), ("llama", "js"), ("bart", "output"), ("gpt2", "within")])
def test_gradient_checkpointing_changes_no_gradient(family: str, name: str, inside: bool) -> None:
    """With dropout on, and with the backward pass inside and outside of what is watched."""

    def run(checkpointing: bool) -> tuple[dict[str, torch.Tensor], float]:
        model, batch = ready(family, training=True)
        if checkpointing:
            checkpointed(model)
        penalty = DiversityPenalty(name)
        torch.manual_seed(3)
        with penalty.watching(model):
            loss = loss_of(model, batch) + penalty()
            if inside:
                loss.backward()
                with pytest.raises(Exception, match="no forward pass was watched"):
                    penalty()  # what was computed again is no new call
        if not inside:
            loss.backward()
        return gradients(model), float(loss.detach())

    (plain, loss), (again, same) = run(False), run(True)
    assert same == pytest.approx(loss, rel=1e-6)
    assert plain.keys() == again.keys()
    for weight, found in again.items():
        assert torch.allclose(found, plain[weight], rtol=1e-4, atol=1e-6), weight


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_checkpointed_layers_keep_no_probabilities(rate: float) -> None:
    """Of a chosen layer nothing of the size of its attention waits for the backward pass."""

    def largest(checkpointing: bool) -> int:
        model, _ = ready("bert", training=True)
        for layer in model.encoder.layer:
            layer.attention.self.dropout.p = rate
        batch = inputs("bert", (60, 50))
        model.config.max_position_embeddings = 64
        if checkpointing:
            checkpointed(model)
        sizes: list[int] = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        penalty = DiversityPenalty("lin")
        with penalty.watching(model), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(**batch)
            assert penalty._observer is not None
            kept: list[Any] = [call.compute for call in penalty._observer.kept]
            assert [call.given is None for call in kept] == [checkpointing or rate > 0] * 2
            kept.clear()
            total = penalty()
        del total
        return max(sizes)

    attention = 2 * 4 * 60 * 60
    assert largest(True) < attention <= largest(False)


def test_layers_that_are_not_chosen_are_not_kept() -> None:
    model, batch = ready("bert", training=True)
    penalty = DiversityPenalty("lin", layers=1)
    with penalty.watching(model):
        model(**batch)
        assert penalty._observer is not None
        assert [call.site.layer for call in penalty._observer.kept] == [1]
        penalty().backward()
        assert not penalty._observer.kept


@pytest.mark.parametrize("name", ["lin", "kl", "js", "output"])
def test_autocast_measures_in_float32(name: str) -> None:
    model, batch = ready("llama", training=True)
    exact = measured(name, model, batch)
    penalty = DiversityPenalty(name)
    with penalty.watching(model.train()), torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(model, batch)
        total = penalty()
    assert total.dtype == torch.float32
    (loss + total).backward()
    assert all(w.grad is None or w.grad.isfinite().all() for w in model.parameters())
    found = {site.layer: float(each) for site, each in penalty.values.items()}
    assert found == pytest.approx({site.layer: each for site, each in exact.items()}, rel=0.05)


def test_bfloat16_models_learn() -> None:
    model, batch = ready("bert", training=True)
    penalty = DiversityPenalty("js")
    with penalty.watching(model.bfloat16()):
        (model(**batch).last_hidden_state.float().mean() + penalty()).backward()
    assert all(w.grad is None or w.grad.isfinite().all() for w in model.parameters())


def test_accumulated_steps_are_means() -> None:
    """Two halves of a batch, each with its penalty, have the gradient of the mean of both."""
    model, batch = ready("gpt2")
    halves = [{name: rows[part] for name, rows in batch.items()} for part in (slice(0, 1), slice(1, 3))]
    penalty = DiversityPenalty("within", weight=0.3)
    for half in halves:
        with penalty.watching(model):
            ((loss_of(model, half) + penalty()) / 2).backward()
    accumulated = gradients(model)
    model.zero_grad()
    totals = []
    for half in halves:
        with penalty.watching(model):
            totals.append(loss_of(model, half) + penalty())
    ((totals[0] + totals[1]) / 2).backward()
    for name, found in gradients(model).items():
        assert torch.allclose(found, accumulated[name], rtol=1e-4, atol=1e-7), name


def freeze_first(model: Any) -> None:
    for part in (model.embeddings, model.encoder.layer[0]):
        part.requires_grad_(False)


def test_frozen_layers_stay_as_they_are() -> None:
    start, _ = ready("bert")
    model = trained("bert", 5, DiversityPenalty("lin", weight=1.0), before=freeze_first)
    seeded = trained("bert", 0, None, before=freeze_first)
    frozen, first = model.encoder.layer[0], seeded.encoder.layer[0]
    assert equal(frozen, first)
    assert not equal(model.encoder.layer[1], seeded.encoder.layer[1])
    assert start is not model


@pytest.mark.parametrize("family", ["bert", "gptj"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_penalties_at_once_are_their_sum(family: str, checkpointing: bool) -> None:
    """With dropout on: what each computes again is no call of the other's."""
    model, batch = ready(family, training=True)
    if checkpointing:
        checkpointed(model)
    one, other = DiversityPenalty("lin", weight=0.3, layers=0), DiversityPenalty("js", weight=0.7)
    found = []
    for penalties in ([one, other], [one], [other], []):
        torch.manual_seed(3)
        with ExitStack() as stack:
            for penalty in penalties:
                stack.enter_context(penalty.watching(model))
            loss = loss_of(model, batch)
            loss = loss + sum(penalty() for penalty in penalties)
            loss.backward()
        found.append(gradients(model))
        model.zero_grad()
    both, first, second, none = found
    assert (len(one.values), len(other.values)) == (1, 2)
    for name, plain in none.items():
        assert torch.allclose(both[name], first[name] + second[name] - plain, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("how", ["before", "in place", "outside"])
def test_compiled_models_run_uncompiled_while_watched(how: str) -> None:
    model, batch = ready("bert")
    penalty = DiversityPenalty("lin")
    with penalty.watching(model):
        expected = float((loss_of(model, batch) + penalty()).detach())
    run: Any = model
    if how == "in place":
        model.compile(backend="eager")
    else:
        run = torch.compile(model, backend="eager")
    if how == "before":
        loss_of(run, batch)
    with penalty.watching(model if how == "before" else run):
        total = loss_of(run, batch) + penalty()
    total.backward()
    assert float(total.detach()) == pytest.approx(expected)
    torch._dynamo.reset()


def test_one_penalty_serves_several_models() -> None:
    penalty = DiversityPenalty("lin")
    for family in ("bert", "llama", "bert"):
        model, batch = ready(family, training=True)
        with penalty.watching(model):
            model(**batch)
            assert penalty().requires_grad
        assert len(penalty.values) == 2


def test_watching_ends_with_its_block() -> None:
    model, batch = ready("bert", training=True)
    original = AttentionInterface.get_interface
    penalty = DiversityPenalty("lin")

    def fails() -> None:
        with penalty.watching(model):
            model(**batch)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert AttentionInterface.get_interface is original
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with penalty.watching(model):  # what came before the error does not count
        model(**batch)
        penalty()
        assert len(penalty.values) == 2


class TwiceAttention(nn.Module):
    """The same attention for two halves of the values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        attend = AttentionInterface().get_interface("eager", eager_attention_forward)
        return torch.cat([attend(self, x, x, part, None, scaling=1.0)[0] for part in x.chunk(2, -1)], -1)


def test_attention_that_is_applied_twice_counts_once() -> None:
    model, penalty = nn.Sequential(TwiceAttention()), DiversityPenalty("cosine")
    x = torch.randn(2, 4, 6, 8, requires_grad=True)
    with penalty.watching(model):
        model(x)
        total = penalty()
    expected = value("cosine", (x @ x.mT).softmax(-1))
    assert float(total.detach()) == pytest.approx(float(expected.detach()))
    assert len(penalty.values) == 1
