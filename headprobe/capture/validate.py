"""Is it attention? Each site's first tile must be distributions over the keys that its queries may see."""

import math

import torch

from headprobe.errors import InputError
from headprobe.tile import AttentionTile

# By dtype of the model: how far a softmax row may be off one by rounding alone.
# Many float64 models take their softmax in float32.
ROW_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3}
LEAK_TOLERANCE = 1e-6


def validate(tile: AttentionTile, dtype: torch.dtype = torch.float32) -> None:
    """Raise `InputError` unless the tile's valid rows are finite, not negative, sum to one and stay inside the mask.

    A learned sink's mass counts towards the sum. `dtype` is the one that the model computed in.
    """
    site = tile.site
    rows = tile.rows.detach()
    where = f"{site.path} ({site.kind}, layer {site.layer})"
    least, most = (float(bound) for bound in rows.aminmax())  # NaN if anything is
    if not (math.isfinite(least) and math.isfinite(most)):
        raise InputError("E-NONFINITE", f"attention of {where} is not finite")
    if least < -1e-6:
        raise InputError("E-CAPTURE", f"{where} has negative weights ({least:.3g}): no probabilities")
    off = (rows.sum(-1) - 1).abs().masked_fill(~tile.query_mask[:, None], 0.0).max()
    if float(off) > ROW_TOLERANCE[dtype]:
        raise InputError("E-CAPTURE", f"rows of {where} don't sum to one (off by {float(off):.3g})")
    leak = 0.0
    if tile.structure is not None or not bool(tile.key_mask.all()):
        leak = float(rows.masked_fill(tile.support[:, None], 0.0).sum(-1).max())
    if leak > LEAK_TOLERANCE:
        raise InputError("E-CAPTURE", f"{where} puts mass {leak:.3g} on keys that its mask hides")
    if bool((tile.query_mask & (tile.support_size == 0)).any()):
        raise InputError("E-CAPTURE", f"a query of {where} sees no key")
