"""The first tap: the function that a model's code gets from transformers' attention interface.

transformers asks `AttentionInterface.get_interface` for the attention function at every call. While a model is
observed, that method hands out a wrapper of the function it would have returned. The model stays in eager mode:
registering an attention function under a name of our own would silently skip the masks of some models, which test
for the names they know.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface

from headprobe.errors import InputError, UsageError

AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


class Listener(Protocol):
    """Who is told of an attention call: the whole call, instead of which it returns the output."""

    def attend(
        self, function: AttentionFunction, module: nn.Module, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Run the call and return what `function` would have returned."""
        ...


_lock = threading.Lock()
_listeners: dict[nn.Module, Listener] = {}
_original = AttentionInterface.get_interface


def _get_interface(self: AttentionInterface, attn_implementation: str, default: AttentionFunction) -> AttentionFunction:
    function: AttentionFunction = _original(self, attn_implementation, default)

    @wraps(function)
    def call(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        listener = _listeners.get(module)
        if listener is None:  # a model that nobody observes, perhaps in another thread
            return function(module, *args, **kwargs)
        if attn_implementation != "eager":
            raise UsageError(
                "E-EAGER",
                f"the model runs with {attn_implementation} attention, which gives no probabilities",
                'Call model.set_attn_implementation("eager") first.',
            )
        return listener.attend(function, module, *args, **kwargs)

    return call


@contextmanager
def listening(modules: Iterable[nn.Module], listener: Listener) -> Iterator[None]:
    """Tell `listener` of every attention call that one of `modules` makes through transformers' interface.

    The wrapper stays in place as long as anybody listens and is taken away with the last listener. Raises
    `UsageError` where a module is observed already.
    """
    mine = list(modules)
    with _lock:
        if any(module in _listeners for module in mine):
            raise UsageError("E-OBSERVED", "the model is observed already", "Close the other observing() first.")
        _listeners.update(dict.fromkeys(mine, listener))
        setattr(AttentionInterface, "get_interface", _get_interface)  # noqa: B010 - mypy refuses the assignment
    try:
        yield
    finally:
        with _lock:
            for module in mine:
                del _listeners[module]
            if not _listeners:
                setattr(AttentionInterface, "get_interface", _original)  # noqa: B010


def run_tiled(
    function: AttentionFunction,
    module: nn.Module,
    query: Tensor,
    rest: tuple[Tensor, Tensor, Tensor | None],
    options: dict[str, Any],
    rows: int,
    see: Callable[[int, Tensor], None],
) -> Tensor:
    """Run an eager attention function `rows` query rows at a time and show each part's probabilities to `see`.

    Returns the output of the whole call [batch, query, head, feature], put together from the same parts. Everything
    that has a query axis is cut with the query: the mask, and the position bias and sinks that some models pass.
    """
    key, value, mask = rest
    queries = query.shape[2]
    outputs = []
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        cut = {
            name: _rows(option, start, stop, queries) if name in ("position_bias", "sinks") else option
            for name, option in options.items()
        }
        part = query[:, :, start:stop]
        output, probs = function(module, part, key, value, _rows(mask, start, stop, queries), **cut)
        see(start, probabilities(module, probs))
        outputs.append(output)
    return torch.cat(outputs, dim=1)


def probabilities(module: nn.Module, probs: Tensor | None) -> Tensor:
    """What an eager attention function returned beside its output, if that can be attention probabilities."""
    if probs is None or probs.dim() != 4:
        what = "no probabilities" if probs is None else f"a tensor of shape {list(probs.shape)}"
        raise InputError("E-CAPTURE", f"the attention function of {type(module).__name__} returned {what}")
    return probs


def _rows(option: Any, start: int, stop: int, queries: int) -> Any:
    if isinstance(option, Tensor) and option.dim() >= 2 and option.shape[-2] == queries:
        return option[..., start:stop, :]
    return option
