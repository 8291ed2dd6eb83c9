"""Masks of long texts that are never whole: transformers makes a float for every query and key, 4 GiB at 32,768 tokens.

While a model is observed, its eager masks above a size are tensors without storage that know how to make any of their
rows. The tap cuts them with the queries; any other code that touches one gets the mask that it would have got.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

EAGER = "eager"
Make = Callable[[slice, slice], Tensor]


class LazyMask(Tensor):
    """A mask [batch, 1, query, key] that is computed where it is needed: `make(queries, keys)` gives a part of it."""

    make: Make
    _last: tuple[tuple[int, ...], Tensor] | None

    @staticmethod
    def __new__(cls, make: Make, like: Tensor, shape: tuple[int, ...]) -> "LazyMask":
        """A mask of a shape, with the type and the device of `like`."""
        mask: LazyMask = Tensor._make_wrapper_subclass(cls, shape, dtype=like.dtype, device=like.device)
        mask.make, mask._last = make, None
        return mask

    def part(self, queries: slice, keys: slice) -> Tensor:
        """[batch, 1, query, key] of some queries and keys; of the last ones again as it was made for them."""
        at = queries.start, queries.stop, keys.start, keys.stop
        if self._last is None or self._last[0] != at:
            self._last = at, self.make(queries, keys)
        return self._last[1]

    def whole(self) -> Tensor:
        """The mask as transformers would have made it."""
        return self.make(slice(0, self.shape[2]), slice(0, self.shape[3]))

    def of(self, sequences: slice) -> "LazyMask":
        """The same for some sequences of the batch alone."""
        shape = (len(range(*sequences.indices(self.shape[0]))), *self.shape[1:])
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        return LazyMask(lambda queries, keys: self.make(queries, keys)[sequences], like, shape)

    def moved(self, device: torch.device) -> "LazyMask":
        """The same on another device, where parts of it go as they are made."""
        like = torch.empty(0, dtype=self.dtype, device=device)
        return LazyMask(lambda queries, keys: self.make(queries, keys).to(device), like, tuple(self.shape))

    def __repr__(self) -> str:  # type: ignore[override]  # the base class's takes what is printed
        return f"LazyMask({tuple(self.shape)})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]  # torch declares it as a function
        def real(value: Any) -> Any:
            return value.whole() if isinstance(value, LazyMask) else value

        to = (kwargs or {}).get("device")
        if func is torch.ops.aten._to_copy.default and to is not None and kwargs.get("dtype") in (None, args[0].dtype):
            return args[0].moved(to)
        return func(*tree_map(real, args), **tree_map(real, kwargs or {}))


def of_sequences(tensor: Tensor, sequences: slice) -> Tensor:
    """Some sequences of a tensor whose first axis counts them, or is one for all."""
    if len(tensor) == 1:
        return tensor
    return tensor.of(sequences) if isinstance(tensor, LazyMask) else tensor[sequences]


_lock = threading.Lock()
_limits: dict[int, int] = {}  # by thread, the bytes above which a mask is lazy
_before: dict[str, Any] = {}


@contextmanager
def lazy_masks(most_bytes: int) -> Iterator[None]:
    """Inside, transformers' eager masks of more than `most_bytes` made in this thread are lazy."""
    thread = threading.get_ident()
    with _lock:
        outer = _limits.get(thread)
        if not _limits:
            _before[EAGER] = ALL_MASK_ATTENTION_FUNCTIONS[EAGER]
            ALL_MASK_ATTENTION_FUNCTIONS[EAGER] = _eager_mask
        _limits[thread] = most_bytes
    try:
        yield
    finally:
        with _lock:
            if outer is None:
                del _limits[thread]
            else:
                _limits[thread] = outer
            if not _limits:
                ALL_MASK_ATTENTION_FUNCTIONS[EAGER] = _before.pop(EAGER)


def _eager_mask(batch_size: int, q_length: int, kv_length: int, **options: Any) -> Tensor | None:
    """transformers' eager mask, lazy where it is large."""
    made = _before[EAGER]
    dtype = options.get("dtype", torch.float32)
    size = batch_size * q_length * kv_length * torch.empty(0, dtype=dtype).element_size()
    own = options.get("use_vmap")  # the model's own pattern, which may read another mask where only tensors can be
    if own or size <= _limits.get(threading.get_ident(), size):
        return made(batch_size=batch_size, q_length=q_length, kv_length=kv_length, **options)  # type: ignore[no-any-return]
    starts = int(options.pop("q_offset", 0)), int(options.pop("kv_offset", 0))

    def make(queries: slice, keys: slice) -> Tensor:
        part: Tensor = made(
            batch_size=batch_size,
            q_length=queries.stop - queries.start,
            kv_length=keys.stop - keys.start,
            q_offset=starts[0] + queries.start,
            kv_offset=starts[1] + keys.start,
            **options,
        )
        return part

    # whether a mask of full attention can be left out is told from padding alone, so one row of it knows
    row = make(slice(0, 1), slice(0, kv_length))
    options["allow_is_bidirectional_skip"] = False
    return None if row is None else LazyMask(make, row, (batch_size, 1, q_length, kv_length))
