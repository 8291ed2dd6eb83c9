"""Where gradient descent on heads leads: Lin et al.'s penalty and JS settle, KL has nowhere to settle."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-12
SETTLED = 0.02  # of the whole way, done by the second half of the steps

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Descent:
    """Gradient descent on the logits of random heads under one objective, medians over seeds.

    `values` of the objective at `steps`, None once it is no number; `bound` is the best it could reach, None where
    there is none. `broken` are the seeds whose gradient was not finite, first at steps `from_step` to `to_step`.
    `behaviour` is "breaks" where there are such, else "settles" where the second half of the steps did no more than a
    50th of the way, else "does not settle".
    """

    objective: str
    bound: float | None
    steps: tuple[int, ...]
    values: tuple[float | None, ...]
    largest_logit: float | None
    gradient_norm: float | None
    seeds: int
    broken: int
    from_step: int | None
    to_step: int | None
    behaviour: str


def _lin(logits: Tensor) -> Tensor:
    attention = logits.softmax(-1)
    return (attention @ attention.mT - torch.eye(logits.shape[1])).square().sum((1, 2))


def _js(logits: Tensor) -> Tensor:
    heads = logits.softmax(-1)
    entropy = -torch.xlogy(heads, heads).sum(-1)
    middle = (heads[:, :, None] + heads[:, None]) / 2
    mixed = -torch.xlogy(middle, middle).sum(-1)
    return (mixed - (entropy[:, :, None] + entropy[:, None]) / 2).sum((1, 2))


def _kl(heads: Tensor, logs: Tensor) -> Tensor:
    crossed = heads @ logs.mT
    return logs.shape[1] * crossed.diagonal(dim1=1, dim2=2).sum(-1) - crossed.sum((1, 2))


def objectives(heads: int) -> dict[str, tuple[Loss, float | None]]:
    """Of each seed's logits [seed, head, key], with the best it could reach; what is not minimised is maximised."""
    pairs = heads * (heads - 1)
    return {
        "minimise the penalty": (_lin, 0.0),
        "maximise JS": (_js, pairs * math.log(2)),
        "maximise KL, log(softmax)": (lambda z: _kl(z.softmax(-1), z.softmax(-1).log()), None),
        f"maximise KL, log(softmax + {EPSILON:g})": (
            lambda z: _kl(z.softmax(-1), (z.softmax(-1) + EPSILON).log()),
            -pairs * math.log(EPSILON),
        ),
        "maximise KL, log_softmax": (lambda z: _kl(z.softmax(-1), z.log_softmax(-1)), None),
    }


def descents(
    *, heads: int = 4, keys: int = 8, rate: float = 0.5, steps: int = 3000, seeds: int = 10
) -> tuple[Descent, ...]:
    """Where each objective leads, in float32, from the same random logits."""
    start = torch.stack([torch.randn(heads, keys, generator=torch.Generator().manual_seed(i)) for i in range(seeds)])
    return tuple(_descend(name, loss, bound, start, rate, steps) for name, (loss, bound) in objectives(heads).items())


def _descend(name: str, loss: Loss, bound: float | None, start: Tensor, rate: float, steps: int) -> Descent:
    logits, down = start.clone(), 1 if name.startswith("minimise") else -1
    shown = sorted({0, steps // 2, steps, *(n for n in (10, 30, 100, 300, 1000) if n < steps)})
    values: dict[int, float | None] = {}
    broke = torch.full((len(start),), -1)
    for step in range(steps + 1):
        leaf = logits.requires_grad_()
        value = loss(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        broke[~slope.flatten(1).isfinite().all(1) & (broke < 0)] = step
        if step in shown:
            values[step] = _number(value.detach().median())
        if step < steps:
            logits = (leaf - down * rate * slope).detach()
    broken = broke[broke >= 0].tolist()
    return Descent(
        objective=name,
        bound=bound,
        steps=tuple(shown),
        values=tuple(values[step] for step in shown),
        largest_logit=_number(logits.detach().abs().flatten(1).amax(1).median()),
        gradient_norm=_number(slope.flatten(1).norm(dim=1).median()),
        seeds=len(start),
        broken=len(broken),
        from_step=min(broken, default=None),
        to_step=max(broken, default=None),
        behaviour=_behaviour(values, steps, broken=bool(broken)),
    )


def _behaviour(values: dict[int, float | None], steps: int, *, broken: bool) -> str:
    first, middle, last = values[0], values[steps // 2], values[steps]
    if broken or first is None or middle is None or last is None:
        return "breaks"
    share = abs(last - middle) / max(abs(last - first), 1e-12)
    return "settles" if share <= SETTLED else "does not settle"


def _number(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None
