"""Slow reference of what heads give and write: whole outputs [query, width] and kernels [query, query], in numpy.

It shares no code with the package. `z` are a head's outputs [query, feature] of all valid queries of all sequences,
`w` its rows of the output projection [feature, width].
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def cka(x: Matrix, y: Matrix) -> float:
    """Kornblith et al.: HSIC of centred kernels."""
    n = len(x)
    centre = np.eye(n) - np.ones((n, n)) / n
    k, m = (centre @ (z @ z.T) @ centre for z in (x, y))
    return float((k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum()))


def hsic_1(x: Matrix, y: Matrix) -> float:
    """Song et al., equation 5, from kernels whose diagonals are zero."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    ones = np.ones(n)
    middle = ones @ k @ ones * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return float((np.trace(k @ m) + middle - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3)))


def unbiased_cka(x: Matrix, y: Matrix) -> float:
    return hsic_1(x, y) / math.sqrt(hsic_1(x, x) * hsic_1(y, y))


def cosine(x: Matrix, y: Matrix) -> float:
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum()))


def of_outputs(z: list[Matrix]) -> dict[str, Matrix]:
    """What is compared of outputs, [head, head]."""
    return {"cka": _matrix(z, cka), "cka_unbiased": _matrix(z, unbiased_cka)}


def of_written(z: list[Matrix], w: list[Matrix]) -> dict[str, Matrix]:
    """What is compared of what is written, [head, head]."""
    written = [x @ weights for x, weights in zip(z, w, strict=True)]
    return {"ocos": _matrix(written, cosine), "ocos_centred": _matrix([o - o.mean(0) for o in written], cosine)}


def _matrix(heads: list[Matrix], of: Callable[[Matrix, Matrix], float]) -> Matrix:
    return np.array([[of(x, y) for y in heads] for x in heads])


def norms(probs: list[Matrix], written: list[Matrix]) -> dict[str, float]:
    """Kobayashi et al. of one head: attention [query, key] of each sequence, and what each key would write if taken."""
    sums, entropies, peaks, own, first = [], [], [], [], []
    for attention, values in zip(probs, written, strict=True):
        for query, row in enumerate(attention):
            moved = np.array([np.linalg.norm(a * f) for a, f in zip(row, values, strict=True)])
            shares = moved / moved.sum()
            sums.append(moved.sum())
            entropies.append(-sum(p * math.log(p) for p in shares if p > 0))
            peaks.append(shares.max())
            first.append(shares[0])
            own.append(shares[query] if query < len(shares) else math.nan)
    columns = {
        "norm_sum": sums, "norm_entropy": entropies, "norm_confidence": peaks, "norm_self": own, "norm_first": first
    }  # fmt: skip
    return {name: float(np.mean(values)) for name, values in columns.items()}
