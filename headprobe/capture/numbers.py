"""When two tensors are the same but for rounding."""

import torch
from torch import Tensor


def is_near(found: Tensor, expected: Tensor, error: float, dtype: torch.dtype) -> bool:
    """True if the root mean square of what differs is at most `error` of `found`, or what `dtype` rounds off."""
    if not found.numel():
        return False
    most = max(error, 4 * torch.finfo(dtype).eps)
    differs = (found - expected).square().mean()
    return bool(differs <= most**2 * found.square().mean())
