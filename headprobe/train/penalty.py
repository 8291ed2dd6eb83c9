"""DiversityPenalty: how alike heads are, as a loss."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from headprobe.capture.naming import first_number, shared_parts
from headprobe.capture.training import Kept, TrainingObserver
from headprobe.collect import check_choice
from headprobe.devices import Arithmetic
from headprobe.errors import InputError, UsageError
from headprobe.tile import Site
from headprobe.train.choice import (
    ChosenKinds,
    ChosenLayers,
    check_model,
    chosen_kinds,
    chosen_layers,
    not_negative,
    one_of,
)
from headprobe.train.terms import TERMS

EXACT = Arithmetic.exact()


class DiversityPenalty:
    """A loss that keeps attention heads apart, differentiable through the model's own attention.

        penalty = DiversityPenalty("lin", weight=0.1, layers="2-3")
        with penalty.watching(model):
            loss = model(**batch).loss + penalty()

    `name` says what is measured of each layer, by the code and with the masks of `headprobe.scan`, over the batch:

    * "lin": `aat_heads`, ‖AAᵀ - I‖_F² across the heads of a query (Lin et al. 2017);
    * "within": `aat_sq`, ‖AAᵀ - I‖_F² of a head over the queries of a sequence, mean over heads;
    * "cosine": `rcos_heads`, the mean squared cosine of two heads' rows: "lin" without the rows' lengths;
    * "kl", "js": `kl_mean` and `js_mean`, which are raised: the loss is their negative;
    * "subspace", "position", "output": Li et al.'s (2018) disagreements of values, attention and outputs, negated.

    The loss is `weight` times the mean over the chosen sites: of `layers` ("0-3,7", a number or several) and `kinds`
    ("encoder", "decoder", "cross", or several), all by default. With a weight of 0 it is only measured. `weight` may be
    changed between steps, and `values` has what the last call measured, by site. Several penalties may watch a model.

    The model must be in eager attention. Dropout on probabilities is left out of what is measured, not of what the
    model does. Raises `UsageError` for what does not exist or has no gradient, `InputError` for attention that is none,
    or whose values are not seen where "subspace" and "output" need them.
    """

    def __init__(
        self,
        name: str,
        *,
        weight: float = 1.0,
        layers: ChosenLayers = None,
        kinds: ChosenKinds = None,
    ) -> None:
        self.name = one_of(TERMS, name, "E-PENALTY", "penalty")
        self.weight = weight
        self.values: dict[Site, Tensor] = {}
        self._term = TERMS[self.name]
        self._layers = chosen_layers(layers)
        self._kinds = chosen_kinds(kinds)
        self._observer: TrainingObserver | None = None
        self._checked = False

    @property
    def weight(self) -> float:
        """What the mean over sites is multiplied by: a finite number, 0 or more."""
        return self._weight

    @weight.setter
    def weight(self, weight: float) -> None:
        self._weight = not_negative("weight", weight)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator["DiversityPenalty"]:
        """Keep the attention of `model`'s forward passes for the next call. The model computes what it always does."""
        check_model(model)
        if self._observer is None or not self._observer.fits(model):
            self._observer, self._checked = TrainingObserver(model, self._wants), False
        self._observer.forget()
        with self._observer.watching():
            yield self

    def __call__(self) -> Tensor:
        """The penalty of the forward passes since the last call, a scalar in float32 (float64 of such a model)."""
        observer = self._observer
        if observer is not None and observer.passes:
            self._check(observer)
        if observer is None or not observer.kept:
            raise UsageError(
                "E-PENALTY",
                "no forward pass was watched since the last call of the penalty",
                "Run the model in `with penalty.watching(model):`.",
            )
        learning = self.weight > 0
        with torch.set_grad_enabled(learning and torch.is_grad_enabled()), EXACT.used():
            found = self._measure(observer.kept, again=learning and observer.checkpointing)
        where = ", ".join(dict.fromkeys(f"{call.site.kind} {call.site.layer}" for call in observer.kept))
        observer.forget()
        if learning and not found.requires_grad:
            raise UsageError(
                "E-GRADIENT",
                f"no gradient passes through the attention of the chosen layers ({where})",
                "Run the model and the penalty with gradients on, freeze less, checkpoint with use_reentrant=False.",
            )
        return found * (self.weight * self._term.sign) if learning else torch.zeros_like(found)

    def add_to(self, trainer: Any) -> None:
        """Add the penalty to the loss of a transformers `Trainer`, or of a subclass with a loss of its own.

        It wraps `trainer.compute_loss`: callbacks can't change a loss, and what `compute_loss_func` gives to
        `Trainer` would stand in the place of the model's own. Evaluation goes on without the penalty.
        """
        plain = getattr(trainer, "compute_loss", None)
        if plain is None:
            raise UsageError("E-TRAINER", f"{type(trainer).__name__} is no Trainer", "Give transformers' Trainer.")

        @wraps(plain)
        def compute_loss(model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            if not (model.training and torch.is_grad_enabled()):
                return plain(model, inputs, *args, **kwargs)
            with self.watching(model):
                found = plain(model, inputs, *args, **kwargs)
            added = self() / _steps_of_loss(trainer, kwargs.get("num_items_in_batch"))
            loss, *rest = found if isinstance(found, tuple) else (found,)
            loss = loss + added.to(loss.device)  # of a model that lies on several
            return (loss, *rest) if isinstance(found, tuple) else loss

        trainer.compute_loss = compute_loss

    def _wants(self, site: Site) -> bool:
        return (self._layers is None or site.layer in self._layers) and (
            self._kinds is None or site.kind in self._kinds
        )

    def _may_want(self, path: str, sites: list[Site]) -> bool:
        """True unless it is certain that attention which shows nothing is not among the chosen.

        It is of another layer, or in a part of the model of whose sites none is chosen: an image tower's pooler, say.
        """
        if self._layers is not None and first_number(path) not in self._layers:
            return False
        near = [shared_parts(path, site.path) for site in sites]
        return any(self._wants(site) for site, shared in zip(sites, near, strict=True) if shared == max(near))

    def _measure(self, calls: list[Kept], *, again: bool) -> Tensor:
        """The mean over sites, those left out where no query counts. `again`: hold nothing for the backward pass."""
        totals: dict[Site, Any] = {}
        for call in calls:
            total = checkpoint(self._total, call, use_reentrant=False) if again else self._total(call)
            totals[call.site] = totals[call.site] + total if call.site in totals else total
        found = {site: self._term.value(total) for site, total in totals.items()}
        self.values = {site: value.detach() for site, value in found.items()}
        first, *_ = found.values()
        values = torch.stack([value.to(first.device) for value in found.values()])
        known = ~values.isnan()
        mean = values.where(known, 0.0).sum() / known.sum().clamp(min=1)
        return mean if calls[0].dtype == torch.float64 else mean.float()

    def _total(self, call: Kept) -> Any:
        first, *rest = (self._term.observe(tile) for tile in call.tiles())
        for other in rest:
            first = first + other
        return first

    def _check(self, observer: TrainingObserver) -> None:
        """Once a model: that what was chosen is there and can be measured."""
        if self._checked:
            return
        untapped = [path for path in observer.untapped() if self._may_want(path, observer.sites)]
        if untapped:
            raise InputError(
                "E-CAPTURE",
                f"attention of {untapped[0]} shows no probabilities with gradients, so that no penalty can reach it",
                "Choose other layers or kinds.",
            )
        check_choice(observer.sites, self._layers, self._kinds)
        single = next((site for site in observer.sites if self._wants(site) and site.heads < 2), None)
        if self._term.pairs and single is not None:
            raise UsageError(
                "E-HEADS", f"{single.path} has a single head, which {self.name} can't compare", "Choose other layers."
            )
        self._checked = True


def _steps_of_loss(trainer: Any, items: Any) -> int:
    """By how many batches the penalty is divided here: the Trainer does it itself where it takes means of means.

    Where the loss is already a share of all items of an accumulated batch, the Trainer leaves it as it is.
    """
    told = getattr(trainer, "loss_is_scaled_for_ga", None)
    if told is None:
        by_model = trainer.model_accepts_loss_kwargs and items is not None
        told = by_model or trainer.compute_loss_func is not None
    return int(trainer.current_gradient_accumulation_steps) if told else 1
