"""The first tap: the function that a model's code gets from transformers' attention interface.

transformers asks `AttentionInterface.get_interface` for the attention function at every call. While a model is
observed, that method hands out a wrapper of the function it would have returned. The model stays in eager mode:
registering an attention function under a name of our own would silently skip the masks of some models, which test
for the names they know.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, wraps
from typing import Any, Protocol

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from transformers.modeling_utils import AttentionInterface

from headprobe.capture.calls import Made, kept_bytes
from headprobe.capture.lazy import LazyMask, of_sequences
from headprobe.errors import InputError, UsageError
from headprobe.outputs import Unknown

CUT = ("position_bias", "sinks")  # options that have an axis of queries
POSITIONS = ("position_ids",)  # options that say where queries and keys stood when they were rotated: it is done
OF_ALL = ("s_aux", "sinks", "cache_position")  # which are the same for all sequences where they have one axis
AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


class Listener(Protocol):
    """Who is told of an attention call: the whole call, instead of which it returns the output.

    A `passive` one makes it as it is, so that others of the kind may listen as well.
    """

    passive: bool

    def attend(self, call: "EagerCall") -> tuple[Tensor, Tensor | None]:
        """Make the call and return what its function would have returned."""
        ...


_lock = threading.Lock()
_listeners: dict[nn.Module, tuple[Listener, ...]] = {}
_original = AttentionInterface.get_interface


def _get_interface(self: AttentionInterface, attn_implementation: str, default: AttentionFunction) -> AttentionFunction:
    function: AttentionFunction = _original(self, attn_implementation, default)

    @wraps(function)
    def call(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        listeners = _listeners.get(module, ())
        if listeners and attn_implementation != "eager":
            raise UsageError(
                "E-EAGER",
                f"the model runs with {attn_implementation} attention, which gives no probabilities",
                'Call model.set_attn_implementation("eager") first.',
            )
        told = function  # of a model that nobody observes, perhaps in another thread
        for listener in listeners:
            told = partial(_tell, listener, told)
        return told(module, *args, **kwargs)

    return call


def _tell(
    listener: Listener,
    function: AttentionFunction,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    return listener.attend(EagerCall(function, module, query, key, value, attention_mask, options))


@contextmanager
def listening(modules: Iterable[nn.Module], listener: Listener) -> Iterator[None]:
    """Tell `listener` of every attention call that one of `modules` makes through transformers' interface.

    The wrapper stays in place as long as anybody listens and is taken away with the last listener. Raises
    `UsageError` where a module is observed already, unless all who do are passive.
    """
    mine = list(modules)
    with _lock:
        others = {other for module in mine for other in _listeners.get(module, ())}
        if others and (listener in others or not all(each.passive for each in (*others, listener))):
            raise UsageError("E-OBSERVED", "the model is observed already", "Close the other observing() first.")
        for module in mine:
            _listeners[module] = (*_listeners.get(module, ()), listener)
        setattr(AttentionInterface, "get_interface", _get_interface)  # noqa: B010 - mypy refuses the assignment
    try:
        yield
    finally:
        with _lock:
            for module in mine:
                left = tuple(each for each in _listeners.pop(module) if each is not listener)
                _listeners.update({module: left} if left else {})
            if not _listeners:
                setattr(AttentionInterface, "get_interface", _original)  # noqa: B010


@dataclass(frozen=True)
class EagerCall:
    """A call of an eager attention function, whole or some query rows at a time.

    `query` is [batch, head, query, feature]. Everything that has a query axis is cut with it: the mask, and the
    position bias and sinks that some models pass. Without `has_values` keys stand in for the values, on which
    probabilities do not depend.
    """

    function: AttentionFunction
    module: nn.Module
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    options: dict[str, Any]
    has_values: bool = True
    share: float = 1.0

    @property
    def bytes(self) -> int:
        """What a call that is kept holds on to."""
        return kept_bytes(self.query, self.key, self.value, share=self.share)

    @property
    def separable(self) -> bool:
        """True if it is known of all that the function is given which axis counts the sequences."""
        batch, heads = self.query.shape[:2]
        if not len(self.key) == len(self.value) == batch:
            return False
        given = {"attention_mask": self.mask, **self.options}
        return all(_by_sequence(name, option, batch, heads) is not None for name, option in given.items())

    @property
    def keys_together(self) -> bool:
        """True if an option has an axis of keys that it is not known how to cut."""
        keys = self.key.shape[2]
        known = (*CUT, *POSITIONS)
        others = [option for name, option in self.options.items() if name not in known and isinstance(option, Tensor)]
        return any(option.dim() >= 2 and option.shape[-1] == keys for option in others)

    def of(self, sequences: slice) -> "EagerCall":
        """The call for some of its sequences, where it is separable."""
        batch, heads = self.query.shape[:2]

        def part(name: str, option: Any) -> Any:
            return of_sequences(option, sequences) if _by_sequence(name, option, batch, heads) else option

        return replace(
            self,
            query=self.query[sequences],
            key=self.key[sequences],
            value=self.value[sequences],
            mask=part("attention_mask", self.mask),
            options={name: part(name, option) for name, option in self.options.items()},
            share=self.share * len(self.query[sequences]) / batch,
        )

    def whole(self) -> tuple[Tensor, Tensor | None]:
        """What the model's own call returns: its output, and the probabilities if it has any."""
        mask = self.mask.whole() if isinstance(self.mask, LazyMask) else self.mask
        return self.function(self.module, self.query, self.key, self.value, mask, **self.options)

    def rows(self, first: int, last: int, reach: int | None) -> tuple[Tensor, Tensor]:
        """Output [batch, query, head, feature] and probabilities [batch, head, query, key] of some queries.

        Over the first `reach` keys where that is given: those after them would get exactly nothing.
        """
        keys = slice(0, self.key.shape[2] if reach is None else reach)
        part = self.query[:, :, first:last]
        options = {
            name: self._cut(option, first, last, keys) if name in CUT else option
            for name, option in self.options.items()
        }
        mask = self._cut(self.mask, first, last, keys)
        output, probs = self.function(self.module, part, self.key[:, :, keys], self.value[:, :, keys], mask, **options)
        return output, probabilities(self.module, probs)

    def again(self, first: int, last: int, reach: int | None) -> tuple[Tensor, Made | Unknown | None]:
        """The probabilities of some queries, computed again, and what they give unless the values were let go."""
        with _own_weights(self.module):
            output, probs = self.rows(first, last, reach)
        return probs, self.made(output)

    def made(self, output: Tensor) -> Made | Unknown | None:
        """What the heads gave, from the function's output for some queries; None where the values were let go."""
        return Made.of(output, self.value, self.query.shape[1]) if self.has_values else None

    def without_values(self) -> "EagerCall":
        """The call, its values let go."""
        return replace(self, value=self.key, has_values=False)

    def _cut(self, option: Any, first: int, last: int, keys: slice) -> Any:
        if isinstance(option, LazyMask):
            return option.part(slice(first, last), keys)
        if not isinstance(option, Tensor) or option.dim() < 2:
            return option
        if option.shape[-2] == self.query.shape[2]:
            option = option[..., first:last, :]
        return option[..., keys] if option.shape[-1] >= self.key.shape[2] else option


def _by_sequence(name: str, option: Any, batch: int, heads: int) -> bool | None:
    """True if the first axis of an option counts sequences, False if it has none for them, None if that is unclear."""
    if not isinstance(option, Tensor):
        return None if any(isinstance(leaf, Tensor) for leaf in tree_leaves(option)) else False
    if option.dim() == 0 or len(option) == 1 or (option.dim() == 1 and name in OF_ALL):
        return False
    certain = option.dim() == 4 or (option.dim() == 2 and batch != heads)
    return True if certain and len(option) == batch else None


@contextmanager
def _own_weights(module: nn.Module) -> Iterator[None]:
    """A module's own weights where it computes, a learned sink for one: they may be elsewhere when it doesn't run."""
    if not any(weight.is_meta for weight in module.parameters(recurse=False)) or not hasattr(module, "_hf_hook"):
        yield
        return
    from accelerate.utils import align_module_device

    with align_module_device(module):
        yield


def probabilities(module: nn.Module, probs: Tensor | None) -> Tensor:
    """What an eager attention function returned beside its output, if that can be attention probabilities."""
    if probs is None or probs.dim() != 4:
        what = "no probabilities" if probs is None else f"a tensor of shape {list(probs.shape)}"
        raise InputError("E-CAPTURE", f"the attention function of {type(module).__name__} returned {what}")
    return probs
