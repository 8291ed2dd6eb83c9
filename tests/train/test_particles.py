"""SVGD's direction, by goldens, by autograd and by slow loops."""

import math

import pytest
import torch
from torch import Tensor

from headprobe.train.particles import Kernel, median_heuristic, squared_distances, stein


def slow(gradients: Tensor, particles: Tensor, squared: float, repulsion: float) -> Tensor:
    """Liu and Wang's sum, a particle at a time, the kernel's gradient by autograd."""
    heads = len(particles)
    out = torch.zeros_like(particles)
    for i in range(heads):
        for j in range(heads):
            other = particles[j].clone().requires_grad_()
            kernel = torch.exp(-(other - particles[i]).square().sum() / (2 * squared))
            (slope,) = torch.autograd.grad(kernel, other)
            out[i] += (kernel.detach() * gradients[j] - repulsion * slope) / heads
    return out


def test_two_particles_have_the_golden_kernel_and_repulsion() -> None:
    particles = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    distances = squared_distances(particles)
    assert median_heuristic(distances) == pytest.approx(0.25 / math.log(3))  # torch.median's 0 would make it NaN
    kernel = Kernel.of(distances)
    assert kernel.values[0, 1].item() == pytest.approx(1 / 9)
    push = -2 * stein(torch.zeros_like(particles), particles, kernel, 1.0)  # stein takes the mean of two
    assert push.flatten().tolist() == pytest.approx([-0.48827213, 0.48827213])


def test_the_median_of_an_even_number_is_the_middle() -> None:
    distances = squared_distances(torch.tensor([[0.0], [1.0], [3.0], [7.0]]))  # four 0, then twice 1, 4, 9, 16, 36, 49
    assert median_heuristic(distances) == pytest.approx(0.5 * 6.5 / math.log(5))


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 7, 12])
def test_the_direction_is_liu_and_wangs(heads: int) -> None:
    particles, gradients = torch.randn(2, heads, 5, dtype=torch.float64)
    kernel = Kernel.of(squared_distances(particles))
    if heads == 1:
        assert torch.equal(stein(gradients, particles, kernel, 0.3), gradients)
    else:
        expected = slow(gradients, particles, kernel.squared, 0.3)
        torch.testing.assert_close(stein(gradients, particles, kernel, 0.3), expected)


def test_the_kernels_gradient_is_over_the_squared_bandwidth() -> None:
    """One public implementation divides by the bandwidth itself."""
    particles = torch.randn(3, 4, dtype=torch.float64)
    distances = squared_distances(particles)
    for bandwidth in (0.5, 2.0):
        kernel = Kernel.of(distances, bandwidth)
        expected = slow(torch.zeros_like(particles), particles, bandwidth**2, 1.0)
        torch.testing.assert_close(stein(torch.zeros_like(particles), particles, kernel, 1.0), expected)


def test_a_shared_block_has_what_the_chain_rule_gives_tied_copies() -> None:
    heads, units = 6, 2
    owner = torch.arange(heads) * units // heads
    shared, gradient = torch.randn(2, units, 3, dtype=torch.float64)
    own = torch.randn(heads, 4, dtype=torch.float64)
    copies = torch.cat([own, shared[owner]], 1)
    kernel = Kernel.of(squared_distances(copies))
    gradients = torch.cat([torch.zeros_like(own), gradient[owner] / (heads // units)], 1)
    expected = torch.zeros_like(shared).index_add_(0, owner, slow(gradients, copies, kernel.squared, 0.7)[:, 4:])
    torch.testing.assert_close(stein(gradient, shared, kernel, 0.7), expected)


def test_a_kernel_of_one_is_the_plain_average() -> None:
    particles, gradients = torch.randn(2, 4, 3)
    kernel = Kernel.of(squared_distances(particles), math.inf)
    assert torch.equal(kernel.values, torch.ones(4, 4))
    torch.testing.assert_close(stein(gradients, particles, kernel, 0.0), gradients.mean(0).expand(4, 3))


def test_equal_particles_are_not_parted_and_nothing_is_nan() -> None:
    particles, gradients = torch.ones(4, 3), torch.randn(4, 3)
    kernel = Kernel.of(squared_distances(particles))
    torch.testing.assert_close(stein(gradients, particles, kernel, 1.0), gradients.mean(0).expand(4, 3))


def test_mostly_equal_particles_have_a_bandwidth() -> None:
    particles = torch.tensor([[0.0]] * 6 + [[2.0]])
    kernel = Kernel.of(squared_distances(particles))
    assert 0 < kernel.squared < math.inf
    push = -stein(torch.zeros(7, 1), particles, kernel, 1.0)
    assert push[6] > 0 > push[0]


def test_particles_far_from_the_origin_are_told_apart() -> None:
    near = torch.randn(5, 6)
    torch.testing.assert_close(squared_distances(near + 4096), squared_distances(near), rtol=1e-2, atol=1e-3)
    kernel = Kernel.of(squared_distances(near))
    zero = torch.zeros_like(near)
    torch.testing.assert_close(stein(zero, near + 4096, kernel, 1.0), stein(zero, near, kernel, 1.0), rtol=0, atol=1e-3)
