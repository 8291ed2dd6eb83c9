"""Repulsive attention: heads as particles that share gradients and push each other away, with any optimizer."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from headprobe.errors import UsageError
from headprobe.train.choice import ChosenKinds, ChosenLayers, check_model, distance, not_negative, one_of
from headprobe.train.particles import Kernel, squared_distances, stein
from headprobe.train.projections import Block
from headprobe.train.slices import HeadParameters, sliced

Method = Literal["svgd", "spos"]
METHODS = ("svgd", "spos")


class RepulsiveHeads:
    """Turns the gradients of a step into those of SVGD or SPOS, in which the heads of a layer are particles.

        repulsive = RepulsiveHeads(model, method="svgd")
        loss.backward()
        repulsive(optimizer)  # after all backward passes of a step, after unscaling, before step()
        optimizer.step()

    A particle is one head's query, key and value parameters, weights and biases; heads that share keys and values
    share that part. All other parameters keep their gradients.

    `layers` ("0-3,7", a number or numbers) and `kinds` ("encoder", "decoder", "cross") choose attention layers, all by
    default. `repulsion` is α, the weight of the kernel's gradient; `bandwidth` the kernel's h, by the median heuristic
    for each layer and step unless given. SPOS adds τ∇U and Langevin noise of the `temperature` τ, which `seed` and the
    number of the step tell alone: `steps` were taken so far, to be set where training is resumed.

    Raises `InputError` for a model that can't be cut into heads, `UsageError` for options that make no sense.
    Sources: An et al. 2020; Liu and Wang 2016 (SVGD); Zhang et al. 2020 (SPOS).
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method = "svgd",
        *,
        layers: ChosenLayers = None,
        kinds: ChosenKinds = None,
        repulsion: float = 0.01,
        temperature: float = 1e-4,
        bandwidth: float | None = None,
        seed: int = 0,
    ) -> None:
        self.method = one_of(METHODS, method, "E-OPTION", "method")
        self.repulsion = not_negative("repulsion", repulsion)
        self.temperature = not_negative("temperature", temperature) * (self.method == "spos")
        self.bandwidth = None if bandwidth is None else distance("bandwidth", bandwidth)
        self.seed = int(not_negative("seed", seed))
        self.steps = 0
        check_model(model)
        self.layers = sliced(model, layers, kinds)
        if all(layer.heads == 1 for layer in self.layers):
            raise UsageError("E-HEADS", "every chosen layer has one head, and nothing to push it away")

    @torch.no_grad()
    def __call__(self, step: torch.optim.Optimizer | float | None = None) -> None:
        """Change the gradients of all chosen layers in place, once a step.

        `step` is the optimizer about to step, or its learning rate: what SPOS scales its noise by. Blocks without a
        gradient (frozen, not reached) are left out of their particles.
        Raises `UsageError` where nothing has a gradient, and for SPOS without a `step`.
        """
        if self.temperature and step is None:
            raise UsageError("E-OPTION", "SPOS scales its noise by the learning rate", "Call it with the optimizer.")
        rates = _rates(step)
        noise = _noise(self.seed, self.steps)
        if not [layer for layer in self.layers if self._repel(layer, rates, noise)]:
            raise UsageError(
                "E-GRADIENT", "no head of the chosen layers has a gradient", "Call it after backward, before step."
            )
        self.steps += 1

    @torch.no_grad()
    def distances(self) -> dict[str, float]:
        """By the path of each layer the mean distance between the parameters of two of its heads."""
        return {
            layer.path: float(_distances(layer, layer.blocks).sqrt().sum() / (layer.heads * (layer.heads - 1)))
            for layer in self.layers
            if layer.heads > 1
        }

    def callback(self) -> "RepulsiveCallback":
        """For transformers' `Trainer(callbacks=[...])`, which then needs no other change."""
        return RepulsiveCallback(self)

    def _repel(self, layer: HeadParameters, rates: "dict[int, float] | float", noise: torch.Generator) -> bool:
        blocks = [block for block in layer.blocks if block.parameter.grad is not None]
        if not blocks:
            return False
        kernel = Kernel.of(_distances(layer, blocks), self.bandwidth)
        for block in blocks:
            parameter = block.parameter
            assert parameter.grad is not None
            gradient, particles = _wide(block.read(parameter.grad)), _wide(block.read(parameter))
            changed = stein(gradient, particles, kernel, self.repulsion)
            if self.temperature:
                changed += self._langevin(gradient, _rate(rates, parameter), noise)
            block.write(parameter.grad, changed)
        return True

    def _langevin(self, gradient: Tensor, rate: float, noise: torch.Generator) -> Tensor:
        """τ∇U - √(2τ / ε) ξ, which a step of ε makes a drift -ετ∇U and noise of variance 2τε."""
        drawn = torch.randn(gradient.shape, generator=noise).to(gradient)
        scale = math.sqrt(2 * self.temperature / rate) if rate else 0.0  # the first step of a warm-up goes nowhere
        return self.temperature * gradient - scale * drawn


class RepulsiveCallback(TrainerCallback):
    """Calls a `RepulsiveHeads` before every step of a transformers `Trainer`, after clipping and accumulation."""

    def __init__(self, repulsive: RepulsiveHeads) -> None:
        self.repulsive = repulsive

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse gradients that nobody unscales before the step."""
        if args.fp16 and not args.max_grad_norm:
            raise UsageError(
                "E-OPTION", "with fp16 and no clipping gradients are still scaled", "Set max_grad_norm, or use bf16."
            )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The gradients of a step are complete."""
        self.repulsive.steps = state.global_step  # also where training is resumed
        self.repulsive(kwargs["optimizer"])


def _distances(layer: HeadParameters, blocks: Iterable[Block]) -> Tensor:
    """Squared distances [head, head] over some blocks; those of a shared one between the heads that share it."""
    total = torch.zeros(())
    for block in blocks:
        owner = torch.arange(layer.heads) * block.units // layer.heads
        distances = squared_distances(_wide(block.read(block.parameter)))
        total = total.to(distances) + distances[owner][:, owner]
    return total


def _wide(tensor: Tensor) -> Tensor:
    """Statistics of half precision are taken in float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _noise(seed: int, step: int) -> torch.Generator:
    """What draws a step's noise: the same on every device and process, and after a run is resumed."""
    (mixed,) = np.random.SeedSequence((seed, step)).generate_state(1)  # so that no seed's next step is another seed's
    return torch.Generator().manual_seed(int(mixed))


def _rates(step: torch.optim.Optimizer | float | None) -> dict[int, float] | float:
    if step is None or not hasattr(step, "param_groups"):
        return not_negative("step", step or 0)
    return {id(parameter): float(group["lr"]) for group in step.param_groups for parameter in group["params"]}


def _rate(rates: dict[int, float] | float, parameter: nn.Parameter) -> float:
    """A parameter that the optimizer doesn't have won't move, whatever its gradient is."""
    return rates if isinstance(rates, float) else rates.get(id(parameter), 0.0)
