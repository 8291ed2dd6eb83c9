"""Attention of a model that is being trained, with gradients: what penalties are computed from."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from headprobe.capture.interface import AttentionFunction, EagerCall, listening, probabilities
from headprobe.capture.layout import excluded
from headprobe.capture.observer import Observer
from headprobe.capture.shown import Room, Shown
from headprobe.capture.validate import validate
from headprobe.devices import Arithmetic
from headprobe.errors import InputError
from headprobe.tile import AttentionTile, Site

WHOLE = Room(2**62, 2**62)


@dataclass(frozen=True, eq=False)
class KeptCall:
    """One attention call of a chosen site: what it was given, and what it gave unless that is to be computed again.

    Attention functions return probabilities after dropout: no distributions. Where there was any, the call is made
    again without, by the model's own function and arithmetic.
    """

    shown: Shown
    call: EagerCall
    arithmetic: Arithmetic
    given: tuple[Tensor, Tensor | None] | None
    check: bool

    @property
    def site(self) -> Site:
        """Whose attention it is."""
        return self.shown.site

    def tiles(self) -> list[AttentionTile]:
        """All rows of the call with what their heads gave: through both, gradients reach the model.

        Raises `InputError` where it is no attention, at the site's first call.
        """
        with self.arithmetic.used():
            output, probs = self.given or replace(self.call, options=self._undropped()).whole()
        probs = probabilities(self.call.module, probs)
        tiles = self.shown.tiles(probs, self.call.made(output))
        for tile in tiles if self.check else ():
            validate(replace(tile, probs=tile.probs.detach()), probs.dtype)
        return tiles

    def _undropped(self) -> dict[str, Any]:
        return {name: 0.0 if name == "dropout" else option for name, option in self.call.options.items()}


class TrainingObserver(Observer):
    """Names the attention calls of a model that is being trained and keeps those of the sites that `wants` chooses.

    The model computes what it would compute unwatched, in the same operations: nothing here takes part in its graph, so
    that layers may be checkpointed. What a backward pass computes again is no new call. Use it many times, with
    `watching()`; `kept` is what the forward passes since `forget()` left.
    """

    def __init__(self, model: nn.Module, wants: Callable[[Site], bool]) -> None:
        super().__init__(model, lambda tile: None, WHOLE, False, False)
        self.kept: list[KeptCall] = []
        self._wants = wants
        self._again = False
        self._modules = set(model.modules())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Listen to the model's forward passes."""
        with ExitStack() as stack:
            stack.enter_context(listening(self._modules, self))
            for handle in self.hooks():
                stack.callback(handle.remove)
            yield

    def fits(self, model: nn.Module) -> bool:
        """True if it is this model that it observes, and the model has the modules that it had."""
        return model is self.model and set(model.modules()) == self._modules

    def forget(self) -> None:
        """Let go of all calls."""
        self.kept.clear()

    def attend(
        self,
        function: AttentionFunction,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The interface tap: run the call as it is, and keep it where its site is chosen."""
        found = function(module, query, key, value, attention_mask, **options)
        if self._frames.outermost is not self.model:  # a backward pass computes a checkpointed layer again
            return found
        if self._sites.leave_out(self._paths[module], excluded(module, by_interface=True)):
            return found
        call = EagerCall(function, module, query, key, value, attention_mask, options)
        shown = self._show(self._call(call, None))
        if self._wants(shown.site):
            dropped = module.training and bool(options.get("dropout"))
            given = None if dropped or self._again else found
            self.kept.append(KeptCall(shown, call, Arithmetic.now(), given, not self.passes))
        return found

    @property
    def checkpointing(self) -> bool:
        """True if the model computes its layers again in the backward pass, so as not to keep what they made."""
        return self.model.training and any(getattr(each, "gradient_checkpointing", False) for each in self._modules)

    def untapped(self) -> list[str]:
        """Attention modules that ran, and not through transformers' interface: no gradient can be taken from them."""
        return self._sites.without_softmax()

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super()._begin(module, args, kwargs)
        self._again = self.checkpointing

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        if not self.sites:
            raise InputError(
                "E-CAPTURE",
                f"no attention of {type(self.model).__name__} goes through transformers' attention interface",
                "A penalty can't reach it.",
            )
        super()._end(module, args, output)

    def _check_ready(self) -> None:
        """It may be in training mode."""
