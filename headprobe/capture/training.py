"""Attention of a model that is being trained, with gradients: what penalties are computed from."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from headprobe.capture.calls import Made
from headprobe.capture.frames import Frame
from headprobe.capture.interface import EagerCall, listening, probabilities
from headprobe.capture.layout import Layout, excluded
from headprobe.capture.observer import Observer
from headprobe.capture.shown import Room, Shown
from headprobe.capture.softmax import GradientTap
from headprobe.capture.validate import validate
from headprobe.capture.wiring import BYPASSED
from headprobe.devices import Arithmetic
from headprobe.errors import InputError, UsageError
from headprobe.outputs import Unknown
from headprobe.tile import AttentionTile, Site

WHOLE = Room(2**62, 2**62)
Computed = tuple[Tensor, Made | Unknown | None]  # probabilities [row, head, query, key], and what they give


@dataclass(frozen=True, eq=False)
class Kept:
    """One attention call of a chosen site, in a `dtype`.

    `compute` gives its probabilities before dropout, with their gradients.
    """

    shown: Shown
    dtype: torch.dtype
    compute: Callable[[], Computed]
    check: bool

    @property
    def site(self) -> Site:
        """Whose attention it is."""
        return self.shown.site

    def tiles(self) -> list[AttentionTile]:
        """All rows of the call with what their heads gave: through both, gradients reach the model.

        Raises `InputError` where it is no attention, at the site's first call.
        """
        probs, made = self.compute()
        tiles = self.shown.tiles(probs, made)
        for tile in tiles if self.check else ():
            validate(replace(tile, probs=tile.probs.detach()), probs.dtype)
        return tiles


class TrainingObserver(Observer):
    """Names the attention calls of a model that is being trained and keeps those of the sites that `wants` chooses.

    The model computes what it would compute unwatched, in the same operations: nothing here takes part in its graph, so
    that layers may be checkpointed. What a backward pass computes again is no new call. Use it many times, with
    `watching()`; `kept` is what the forward passes since `forget()` left. Several may watch a model at a time.
    """

    passive = True

    def __init__(self, model: nn.Module, wants: Callable[[Site], bool]) -> None:
        super().__init__(model, lambda tile: None, WHOLE, False, False)
        self.kept: list[Kept] = []
        self._wants = wants
        self._again = False
        self._by_themselves = False  # any of the model's layers compute their attention outside of the interface
        self._modules = set(model.modules())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Listen to the model's forward passes. Compiled models run uncompiled meanwhile."""
        with ExitStack() as stack:
            stack.enter_context(_uncompiled())
            stack.enter_context(listening(self._modules, self))
            for handle in self.hooks():
                stack.callback(handle.remove)
            if self._by_themselves or not self.passes or not self._sites.complete:
                stack.enter_context(GradientTap(self))  # which costs some microseconds an operation
            yield

    def fits(self, model: nn.Module) -> bool:
        """True if it is this model that it observes, and the model has the modules that it had."""
        return model is self.model and set(model.modules()) == self._modules

    def forget(self) -> None:
        """Let go of all calls."""
        self.kept.clear()

    def attend(self, eager: EagerCall) -> tuple[Tensor, Tensor | None]:
        """The interface tap: make the call as it is, and keep it where its site is chosen."""
        with self._inside():
            found = eager.whole()
        module = eager.module
        if not self._in_forward or self._sites.leave_out(self._paths[module], excluded(module, by_interface=True)):
            return found
        shown = self._show(self._call(eager, None))
        dropped = module.training and bool(eager.options.get("dropout"))
        self._keep(shown, eager.query.dtype, _Call(eager, Arithmetic.now(), None if dropped or self._again else found))
        return found

    @property
    def checkpointing(self) -> bool:
        """True if the model computes its layers again in the backward pass, so as not to keep what they made."""
        return self.model.training and any(getattr(each, "gradient_checkpointing", False) for each in self._modules)

    def untapped(self) -> list[str]:
        """Attention modules that ran and showed no probabilities with gradients."""
        return self._sites.without_softmax()

    @property
    def _in_forward(self) -> bool:
        """False in a backward pass, which computes checkpointed layers again."""
        return self._frames.outermost is self.model

    def _running(self) -> Frame | None:
        return super()._running() if self._in_forward else None

    def _see_softmax(self, frame: Frame, found: Layout, scores: Tensor, probs: Tensor) -> None:
        shown, probs = self._softmax_shown(frame, found, scores, probs)
        self._by_themselves = True
        self._keep(shown, probs.dtype, lambda: (probs, Unknown(BYPASSED)))

    def _keep(self, shown: Shown, dtype: torch.dtype, compute: Callable[[], Computed]) -> None:
        if self._wants(shown.site) and not shown.repeated:
            self.kept.append(Kept(shown, dtype, compute, not self.passes))

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        copied = any(isinstance(each, nn.DataParallel) and each.device_ids for each in self._modules)
        if copied or module is not self.model:
            raise UsageError(
                "E-PARALLEL",
                "nn.DataParallel trains copies of the model, which nobody watches",
                "Use DistributedDataParallel, or one device (CUDA_VISIBLE_DEVICES=0).",
            )
        super()._begin(module, args, kwargs)
        self._again = self.checkpointing

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self.sites:
            raise InputError(
                "E-CAPTURE",
                f"no attention of {type(self.model).__name__} shows probabilities with gradients",
                "A penalty can't reach it.",
            )
        try:
            super()._end(module, args, output)
        except InputError as fault:
            hint = "If the model drops layers at random, set layerdrop to 0 in its config."
            raise InputError(fault.code, fault.problem, hint) from None

    def _check_ready(self) -> None:
        """It may be in training mode."""


@dataclass(frozen=True, eq=False)
class _Call:
    """A call through the interface: what it was given, and what it gave unless that is to be computed again.

    Attention functions return probabilities after dropout: no distributions. Where there was any, the call is made
    again without, by the model's own function and arithmetic.
    """

    eager: EagerCall
    arithmetic: Arithmetic
    given: tuple[Tensor, Tensor | None] | None

    def __call__(self) -> Computed:
        options = {name: 0.0 if name == "dropout" else option for name, option in self.eager.options.items()}
        with self.arithmetic.used():
            output, probs = self.given or replace(self.eager, options=options).whole()
        return probabilities(self.eager.module, probs), self.eager.made(output)


def _uncompiled() -> AbstractContextManager[None]:
    """Inside, torch.compile does nothing: compiled code shows no attention. Nothing is compiled before dynamo is."""
    set_stance = getattr(sys.modules.get("torch._dynamo"), "set_stance", None)
    return nullcontext() if set_stance is None else set_stance("force_eager")
