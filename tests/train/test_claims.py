"""The two claims about KL: what is timed is what it says, and descent leads where its mathematics does."""

import math
from typing import Any

import pytest
import torch
from scipy.spatial.distance import jensenshannon

from headprobe.errors import UsageError
from headprobe.train import claims
from headprobe.train.descents import Descent, descents, objectives

ATTENTION = torch.randn(5, 3, 4, dtype=torch.float64).softmax(-1)
PENALTIES = (claims.penalty_by_pairs, claims.penalty_by_matrix)
DIVERGENCES = (claims.kl_by_pairs, claims.kl_as_written, claims.kl_by_matrix, claims.kl_by_sums)


def test_every_style_is_timed_on_the_same_quantity() -> None:
    assert {loss for pair in claims.STYLES.values() for loss in pair} == {*PENALTIES, *DIVERGENCES}
    penalty = sum(float((a @ a.T - torch.eye(3, dtype=a.dtype)).square().sum()) for a in ATTENTION)
    for loss in PENALTIES:
        assert float(loss(ATTENTION)) == pytest.approx(penalty)
    heads = range(3)
    divergence = sum(
        float((a[i] * (a[i] / a[j]).log()).sum()) for a in ATTENTION for i in heads for j in heads if i != j
    )
    for loss in DIVERGENCES:
        assert float(loss(ATTENTION)) == pytest.approx(divergence)


def test_golden_values() -> None:
    three = torch.tensor([[[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0.25] * 4]])
    for loss in PENALTIES:
        assert float(loss(three)) == pytest.approx(23 / 16)
    two = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]])
    for loss in DIVERGENCES:
        assert float(loss(two)) == pytest.approx(math.log(3) / 4)


@pytest.mark.parametrize("losses", [PENALTIES, DIVERGENCES])
def test_every_style_has_the_same_gradient(losses: Any) -> None:
    found = []
    for loss in losses:
        logits = ATTENTION.log().requires_grad_()
        found.append(torch.autograd.grad(loss(logits.softmax(-1)), logits)[0])
    for gradient in found[1:]:
        torch.testing.assert_close(gradient, found[0])


def test_costs_are_of_every_shape_style_and_pass() -> None:
    found = claims.costs(((2, 3, 4), (3, 2, 5)), repetitions=3, threads=1)
    assert len(found) == 2 * len(claims.STYLES) * 2
    assert len({(cost.queries, cost.style, cost.passes) for cost in found}) == len(found)
    for cost in found:
        assert cost.penalty_ms > 0
        assert cost.kl_ms > 0
        assert 0 < cost.low <= cost.ratio <= cost.high


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    claims.costs(((2, 2, 2),), repetitions=1, threads=before + 1)
    assert torch.get_num_threads() == before


@pytest.fixture(scope="module")
def led() -> dict[str, Descent]:
    return {each.objective: each for each in descents(seeds=3)}


def test_the_penalty_and_js_settle(led: dict[str, Descent]) -> None:
    penalty, js = led["minimise the penalty"], led["maximise JS"]
    assert (penalty.behaviour, js.behaviour) == ("settles", "settles")
    assert (penalty.broken, js.broken) == (0, 0)
    assert penalty.values[-1] == pytest.approx(5.9e-4, abs=2e-4)
    assert js.values[-1] == pytest.approx(8.3153, abs=1e-3)
    assert js.bound == pytest.approx(8.3178, abs=1e-4)


def test_kl_breaks_saturates_at_its_epsilon_or_grows(led: dict[str, Descent]) -> None:
    plain = led["maximise KL, log(softmax)"]
    assert (plain.behaviour, plain.broken, plain.values[-1]) == ("breaks", 3, None)
    assert plain.from_step is not None
    assert plain.to_step is not None
    assert 30 <= plain.from_step <= plain.to_step <= 50
    clamped = led["maximise KL, log(softmax + 1e-12)"]
    assert clamped.values[-1] == pytest.approx(12 * math.log(1e12), rel=1e-4)
    exact = led["maximise KL, log_softmax"]
    assert (exact.behaviour, exact.bound, exact.broken) == ("does not settle", None, 0)
    assert exact.gradient_norm == pytest.approx(6.93, abs=0.01)  # constant: nothing slows it down
    last, before = exact.values[-1], exact.values[exact.steps.index(1500)]
    assert last is not None
    assert before is not None
    assert last / before == pytest.approx(2, rel=0.01)


def test_descents_go_down_what_they_say() -> None:
    logits = torch.randn(1, 4, 8, dtype=torch.float64)
    rows = logits.softmax(-1)[0].tolist()
    pairs = [(p, q) for p in rows for q in rows if p is not q]
    found = {name: float(loss(logits)) for name, (loss, _) in objectives(4).items() if "penalty" not in name}
    assert found["maximise JS"] == pytest.approx(sum(jensenshannon(p, q) ** 2 for p, q in pairs))
    kl = sum(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) for p, q in pairs)
    assert found["maximise KL, log_softmax"] == pytest.approx(kl)
    assert found["maximise KL, log(softmax)"] == pytest.approx(kl)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, 'no dtype "int8"'),
        ({"threads": 0}, "--threads 0 is too small"),
        ({"repetitions": 0}, "--repetitions 0 is too small"),
        ({"steps": 0}, "--steps 0"),
        ({"seeds": -1}, "--seeds -1"),
        ({"shapes": [(4, 1, 4)]}, "a shape needs"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        claims.penalty_vs_kl(**options)
