"""What a reader of a comparison should know."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headprobe.comparison.conditions import metric_names
from headprobe.comparison.statistics import least_sequences
from headprobe.report import Report


def notes_of(base: Report, tuned: Report, heads: pd.DataFrame, one_sided: NDArray[np.bool_]) -> Iterator[str]:
    """Too few sequences, values that only one model has, other software, coarse numbers. `one_sided` is true or false
    by metric, head and sequence.
    """
    yield from _power(heads)
    if one_sided.any():
        names = [name for name, some in zip(metric_names(base), one_sided, strict=True) if some.any()]
        yield (
            f"{int(one_sided.sum())} values are defined in one of the two models only and are left out"
            f" ({', '.join(names)})"
        )
    ours, theirs = base.provenance, tuned.provenance
    for name in sorted(ours.versions.keys() & theirs.versions.keys()):
        if ours.versions[name] != theirs.versions[name]:
            yield f"measured with {name} {ours.versions[name]} and {theirs.versions[name]}"
    if ours.device != theirs.device:
        yield f"measured on {ours.device} and {theirs.device}, whose rounding differs"
    if ours.dtype in ("float16", "bfloat16"):
        yield (
            f"in {ours.dtype} a model differs from itself by up to a thousandth when it is run in other batches;"
            " float32 tells smaller changes"
        )


def _power(heads: pd.DataFrame) -> Iterator[str]:
    families = heads[heads["p"].notna()].groupby("metric")
    if not len(families):
        yield "nothing could be tested"
        return
    family, paired = int(families.size().max()), int(heads["sequences"].max())
    needed = least_sequences(family)
    if paired < needed:
        yield (
            f"{paired} sequences are too few for one changed head to show among {family}: the smallest possible p is"
            f" {2 / 2**paired:.2g}, and q below 0.05 takes {0.05 / family:.2g}, so at least {needed} sequences"
        )
