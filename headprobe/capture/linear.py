"""The weights of whatever multiplies its input by a matrix: told by what it computes, not by its class."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from headprobe.capture.numbers import is_near

Read = Callable[[], Tensor]
CHECKED = 64  # rows of an input that are multiplied again
OF_PLAIN = 1e-3  # TensorFloat-32
OF_PACKED = 5e-2  # inputs rounded to 8 bits


def weights_of(module: nn.Module, given: Tensor, output: Tensor) -> Read | None:
    """What reads a module's weights [feature, width], if what it made of `given` is that times weights, plus a bias.

    They are its `weight`, or of one that holds them otherwise (quantised, with an adapter, on the disk) what it makes
    of the rows of the identity.
    """
    ways = [_weight(module, turned) for turned in (True, False)] if not any(module.children()) else []
    bias = getattr(module, "bias", None)
    bias = bias if isinstance(bias, Tensor) and not bias.is_meta else None
    for read in [way for way in ways if way is not None]:
        if _explains(read(), bias, given, output, OF_PLAIN):
            return read
    return _probed(module, given, output)


def _weight(module: nn.Module, turned: bool) -> Read | None:
    """Its weight as it is, or turned around: as Linear holds it."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or weight.is_meta or not weight.is_floating_point():
        return None

    def read() -> Tensor:
        now: Tensor = module.weight  # type: ignore[assignment]  # a tensor, as seen above
        return now.detach().mT if turned else now.detach()

    return read


def _probed(module: nn.Module, given: Tensor, output: Tensor) -> Read | None:
    """From the module's own arithmetic."""
    features = given.shape[-1]

    def nothing_and_identity() -> tuple[Tensor, Tensor]:
        rows = torch.eye(features + 1, features, dtype=given.dtype, device=given.device)  # and one of zeros
        with torch.no_grad():
            made: Tensor = module.forward(rows.view(*[1] * (given.dim() - 2), *rows.shape))
        made = made.reshape(features + 1, -1).double()
        return made[-1], made[:-1] - made[-1]

    try:
        bias, weights = nothing_and_identity()
    except (RuntimeError, TypeError, ValueError, IndexError):  # it wants its input in another shape
        return None
    return (lambda: nothing_and_identity()[1]) if _explains(weights, bias, given, output, OF_PACKED) else None


def _explains(weights: Tensor, bias: Tensor | None, given: Tensor, output: Tensor, error: float) -> bool:
    """True if `given` times weights plus bias is `output`, as far as its dtype can tell."""
    if weights.shape != (given.shape[-1], output.shape[-1]) or given.shape[:-1] != output.shape[:-1]:
        return False
    rows, made = (each.reshape(-1, each.shape[-1]).double() for each in (given, output))
    known = (rows.isfinite().all(-1) & made.isfinite().all(-1)).nonzero()[:, 0]
    picked = known[:: max(1, len(known) // CHECKED)]
    expected = rows[picked] @ weights.double()
    return is_near(made[picked], expected if bias is None else expected + bias.double(), error, output.dtype)
