"""How particles act on each other in SVGD: a kernel, its bandwidth, and what a step becomes by them."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kernel:
    """An RBF kernel between particles: `values` [particle, particle] in [0, 1], and its squared bandwidth h²."""

    values: Tensor
    squared: float

    @classmethod
    def of(cls, distances: Tensor, bandwidth: float | None = None) -> "Kernel":
        """exp(-d² / 2h²) of squared distances [particle, particle]; h by the median heuristic unless given.

        Particles that are all the same have the kernel 1: nothing tells in which direction to part them.
        """
        squared = median_heuristic(distances) if bandwidth is None else bandwidth**2
        if squared == 0:
            return cls(torch.ones_like(distances), math.inf)
        return cls(torch.exp(distances / (-2 * squared)), squared)


def squared_distances(particles: Tensor) -> Tensor:
    """‖θ_i - θ_j‖² of particles [particle, number]: exactly 0 for equal ones, which a matrix product would miss."""
    distances: Tensor = torch.cdist(particles, particles, compute_mode="donot_use_mm_for_euclid_dist").square()
    return distances


def median_heuristic(distances: Tensor) -> float:
    """h² = ½ median(d²) / ln(M + 1), the median over all M × M squared distances, the zeros of the diagonal included.

    The median of an even number is the mean of the two in the middle. The lower of them, torch.median's, is 0 for two
    particles, and the kernel NaN. Where more than half of the distances are 0, their mean stands in for the median.
    """
    middle = float(distances.flatten().quantile(0.5)) or float(distances.mean())
    return 0.5 * middle / math.log(len(distances) + 1)


def stein(gradient: Tensor, particles: Tensor, kernel: Kernel, repulsion: float) -> Tensor:
    """The SVGD direction [unit, number] to subtract, of a block of the M particles that has its own row in each unit.

    g_i = 1/M Σ_j [κ_ij ∇U_j - α κ_ij (θ_i - θ_j) / h²]. A unit that n particles share has the sum over them, each with
    an n-th of the unit's gradient: what the chain rule gives for copies that are tied.
    """
    heads, units = len(kernel.values), len(particles)
    shared = heads // units
    pooled = kernel.values.reshape(units, shared, units, shared).sum((1, 3))
    away = particles - particles.mean(0)  # distances stay, and rounding is relative to them
    push = (away * pooled.sum(1, keepdim=True) - pooled @ away) / kernel.squared
    return (pooled @ gradient / shared - repulsion * push) / heads
