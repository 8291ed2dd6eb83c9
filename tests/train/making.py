"""Tiles, tiny models and steps of training that tests of training share."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from headprobe.outputs import Outputs, Unknown
from headprobe.tile import AttentionTile, Site
from headprobe.train import DiversityPenalty
from headprobe.train.terms import TERMS
from tests.capture.models import build, inputs

Batch = dict[str, Tensor]


def value(name: str, probs: Tensor, z: Tensor | None = None, values: Tensor | None = None, **masks: Any) -> Tensor:
    """A penalty's value of probabilities [batch, head, query, key], and of what heads give where it needs that."""
    tile = AttentionTile.of(probs, **masks)
    if z is not None and values is not None:
        tile = with_outputs(tile, z, values)
    return TERMS[name].value(TERMS[name].observe(tile))


def with_outputs(tile: AttentionTile, z: Tensor, values: Tensor) -> AttentionTile:
    return replace(tile, outputs=Outputs(z, values, Unknown("made by hand")))


def ready(family: str, *, training: bool = False) -> tuple[Any, Batch]:
    """A tiny model with dropout, and a padded batch."""
    model, batch = build(family), inputs(family)
    model.config.use_cache = False
    return model.train(training), batch


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    """Some loss: how far the last hidden states are from fixed directions."""
    hidden: Tensor = model(**batch).last_hidden_state
    target = torch.linspace(-1, 1, hidden.shape[-1])
    return (hidden - target).square().mean()


def trained(
    family: str,
    steps: int,
    penalty: DiversityPenalty | None,
    *,
    seed: int = 0,
    rate: float = 0.05,
    before: Callable[[Any], None] | None = None,
) -> Any:
    """A tiny model after some steps in training mode, with or without a penalty."""
    model, batch = ready(family, training=True)
    torch.manual_seed(seed)
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    if before is not None:
        before(model)
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        if penalty is None:
            loss = loss_of(model, batch)
        else:
            with penalty.watching(model):
                loss = loss_of(model, batch) + penalty()
        loss.backward()
        optimizer.step()
    return model


def measured(name: str, model: nn.Module, batch: Batch, **choice: Any) -> dict[Site, float]:
    """What a penalty measures of a model in eval mode."""
    penalty = DiversityPenalty(name, weight=0.0, **choice)
    with penalty.watching(model.eval()):
        model(**batch)
        penalty()
    return {site: float(found) for site, found in penalty.values.items()}


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


def checkpointed(model: Any, options: dict[str, Any] | None = None) -> None:
    """Switch gradient checkpointing on, by the name that transformers has for it."""
    switch = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    switch(options)
