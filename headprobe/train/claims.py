"""What KL divergence between heads costs, beside Lin et al.'s penalty: it is said to be three times as much.

Attention is [query, head, key]. Everything is summed over queries and, for divergences, over ordered pairs of heads.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from headprobe.errors import UsageError, nearest
from headprobe.train.descents import descents

SHAPES = ((128, 12, 128), (64, 30, 60))  # a BERT-base layer on 128 tokens; 64 sentences in Lin et al.'s model
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
LARGEST = 2**31  # numbers of all pairs of heads, which a loop over them holds for its backward pass
CALL = 2e-3  # seconds that are timed at once, so that the clock is no part of what is measured

Loss = Callable[[Tensor], Tensor]


# --- what is compared -------------------------------------------------------------------------------------------------


def penalty_by_pairs(attention: Tensor) -> Tensor:
    """‖A Aᵀ - I‖² by a loop over pairs of heads."""
    heads = attention.unbind(1)
    total = sum((((head * head).sum(-1) - 1).square().sum() for head in heads), attention.new_zeros(()))
    for i, one in enumerate(heads):
        for other in heads[i + 1 :]:
            total = total + 2 * (one * other).sum(-1).square().sum()
    return total


def kl_by_pairs(attention: Tensor) -> Tensor:
    """Σ KL(g ‖ h) by a loop over pairs of heads, both directions of each, logarithms taken once."""
    heads, logs = attention.unbind(1), attention.log().unbind(1)
    total = attention.new_zeros(())
    for i, one in enumerate(heads):
        for j in range(i + 1, len(heads)):
            ratio = logs[i] - logs[j]
            total = total + (one * ratio).sum() - (heads[j] * ratio).sum()
    return total


def kl_as_written(attention: Tensor) -> Tensor:
    """Σ p log(p / q) for every ordered pair, a logarithm for each."""
    heads = attention.unbind(1)
    total = attention.new_zeros(())
    for i, one in enumerate(heads):
        for j, other in enumerate(heads):
            if i != j:
                total = total + (one * (one / other).log()).sum()
    return total


def penalty_by_matrix(attention: Tensor) -> Tensor:
    """‖A Aᵀ - I‖², the product of each query a matrix."""
    gram = attention @ attention.mT
    return (gram - torch.eye(gram.shape[-1], dtype=gram.dtype)).square().sum()


def kl_by_matrix(attention: Tensor) -> Tensor:
    """Σ KL(g ‖ h) from the products A log Aᵀ of each query, a matrix."""
    crossed = attention @ attention.log().mT
    return crossed.shape[-1] * crossed.diagonal(dim1=-2, dim2=-1).sum() - crossed.sum()


def kl_by_sums(attention: Tensor) -> Tensor:
    """Σ KL(g ‖ h) = H Σ p log p - Σ (Σ_g p_g)(Σ_h log p_h): all pairs without a product of pairs."""
    logs = attention.log()
    return attention.shape[1] * (attention * logs).sum() - (attention.sum(1) * logs.sum(1)).sum()


STYLES: dict[str, tuple[Loss, Loss]] = {
    "both loops over pairs": (penalty_by_pairs, kl_by_pairs),
    "both loops, KL as p log(p/q)": (penalty_by_pairs, kl_as_written),
    "both matrix products": (penalty_by_matrix, kl_by_matrix),
    "penalty a matrix, KL by sums": (penalty_by_matrix, kl_by_sums),
    "penalty a matrix, KL a loop": (penalty_by_matrix, kl_as_written),
}


# --- what it costs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Medians in milliseconds of one call of each, `passes` being "forward" or "forward and backward".

    `ratio` is the median of KL over penalty measured back to back, `low` and `high` are its quartiles.
    """

    queries: int
    heads: int
    keys: int
    style: str
    passes: str
    penalty_ms: float
    kl_ms: float
    ratio: float
    low: float
    high: float


def costs(
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
    *,
    dtype: str = "float32",
    threads: int | None = None,
    repetitions: int = 15,
    seed: int = 0,
) -> tuple[Cost, ...]:
    """Time both in every style, on random attention of these (queries, heads, keys)."""
    found = []
    with _threads(threads):
        for shape in shapes:
            generator = torch.Generator().manual_seed(seed)
            attention = torch.randn(shape, generator=generator).softmax(-1).to(DTYPES[dtype])
            for style, (penalty, divergence) in STYLES.items():
                for passes, wrap in (("forward", _forward), ("forward and backward", _both)):
                    pair = _timed(wrap(penalty, attention), wrap(divergence, attention), repetitions)
                    found.append(_cost(shape, style, passes, pair))
    return tuple(found)


def _forward(loss: Loss, attention: Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return loss(attention)

    return call


def _both(loss: Loss, attention: Tensor) -> Callable[[], object]:
    leaf = attention.clone().requires_grad_()
    return lambda: torch.autograd.grad(loss(leaf), leaf)


def _timed(first: Callable[[], object], second: Callable[[], object], repetitions: int) -> list[tuple[float, float]]:
    """Seconds a call of both, in turn, so that what else the machine does meets both alike."""
    calls = [max(1, round(CALL / max(_seconds(call, 2), 1e-9))) for call in (first, second)]
    return [(_seconds(first, calls[0]), _seconds(second, calls[1])) for _ in range(repetitions)]


def _seconds(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def _cost(shape: tuple[int, int, int], style: str, passes: str, pair: list[tuple[float, float]]) -> Cost:
    ratios = [second / first for first, second in pair]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    mine, other = (statistics.median(times) * 1000 for times in zip(*pair, strict=True))
    return Cost(*shape, style, passes, mine, other, statistics.median(ratios), low, high)


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- both -------------------------------------------------------------------------------------------------------------


def penalty_vs_kl(
    shapes: Sequence[tuple[int, int, int]] = SHAPES,
    *,
    dtype: str = "float32",
    threads: int | None = None,
    repetitions: int = 15,
    steps: int = 3000,
    seeds: int = 10,
) -> dict[str, Any]:
    """What `headprobe bench penalty-vs-kl` shows, as JSON values. Raises `UsageError` for what can't be measured."""
    _check(shapes, dtype, {"threads": threads, "repetitions": repetitions, "steps": steps, "seeds": seeds})
    measured = costs(shapes, dtype=dtype, threads=threads, repetitions=repetitions)
    return {
        "benchmark": "penalty-vs-kl",
        "machine": platform.machine(),
        "torch": torch.__version__,
        "threads": threads or torch.get_num_threads(),
        "dtype": dtype,
        "repetitions": repetitions,
        "costs": [asdict(cost) for cost in measured],
        "descents": [asdict(descent) for descent in descents(steps=steps, seeds=seeds)],
    }


def _check(shapes: Sequence[tuple[int, int, int]], dtype: str, counts: dict[str, int | None]) -> None:
    if dtype not in DTYPES:
        raise UsageError("E-OPTION", f'no dtype "{dtype}"', nearest(dtype, DTYPES))
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UsageError("E-OPTION", f"--{name} {count} is too small", "Give 1 or more.")
    threads, cores = counts["threads"] or 1, os.cpu_count() or 1
    if threads > cores:
        raise UsageError("E-OPTION", f"--threads {threads} is more than this machine's {cores} cores")
    for queries, heads, keys in shapes:
        if queries < 1 or heads < 2 or keys < 2:
            raise UsageError("E-OPTION", "a shape needs a query, two heads and two keys")
        if queries * heads**2 * keys > LARGEST:
            raise UsageError("E-OPTION", f"the shape {queries}x{heads}x{keys} is too large", "Give a smaller one.")
