"""The second tap: every softmax that torch runs while an observed model is in its forward pass.

It takes what does not go through transformers' attention interface, and it notices attention that torch computes in
one fused call, whose probabilities never exist.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

# In inference mode torch shows the composite operators themselves, else what they are made of.
SOFTMAX = (torch.ops.aten._softmax.default, torch.ops.aten._safe_softmax.default, torch.ops.aten.softmax.int)
CALLS = (nn.functional.softmax, torch.softmax, torch.special.softmax, Tensor.softmax)  # by which models ask for one
FUSED = (
    "aten::_scaled_dot_product",
    "aten::scaled_dot_product",
    "aten::_native_multi_head_attention",
    "aten::_transformer_encoder_layer_fwd",
)


class SoftmaxListener(Protocol):
    """Who is told of a softmax or a fused attention call."""

    def softmax(self, scores: Tensor, dim: int, probs: Tensor) -> None:
        """A softmax of `scores` over `dim` gave `probs`."""

    def fused(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Attention was computed in one call of `operator`, which gave `result`."""


class SoftmaxTap(TorchDispatchMode):
    """Tells `listener` of every softmax of the model."""

    def __init__(self, listener: SoftmaxListener) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves its modes unannotated
        self.listener = listener

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in SOFTMAX:
            self.listener.softmax(args[0], args[1] if len(args) > 1 else kwargs["dim"], result)
        elif func.name().startswith(FUSED):
            self.listener.fused(func, args, kwargs or {}, result)
        return result

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Run the receiver's own arithmetic unwatched: a watched operation costs some 20 microseconds of Python.

        Inside `__torch_dispatch__`, and below a mode that somebody else has entered since, there is nothing to pause.
        """
        if _get_current_dispatch_mode() is not self:
            yield
            return
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # as above
        try:
            yield
        finally:
            self.__enter__()  # type: ignore[no-untyped-call]  # as above


class GradientTap(TorchFunctionMode):
    """Tells `listener` of every softmax that the model's own code asks for: what it gave has gradients.

    Not of those in scripted functions and in torch's own modules, which the other tap sees below autograd.
    """

    def __init__(self, listener: SoftmaxListener) -> None:
        super().__init__()
        self.listener = listener

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in CALLS:
            named = dict(zip(("input", "dim"), args, strict=False)) | (kwargs or {})
            if isinstance(named.get("dim"), int):
                self.listener.softmax(named["input"].detach(), named["dim"], result)
        return result
