"""Reports with values by sequence that a test chooses."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headprobe.report import Provenance, Report

PLACES = ("site", "path", "tower", "kind", "layer")
OPTIONS = {"special": "keep", "max_length": 128, "pairs": "layer", "metrics": [], "limit": 20, "layers": None}


def provenance(**changes: Any) -> Provenance:
    """What a report was made of."""
    made = Provenance(
        model="base", model_class="BertModel", dtype="float32", device="cpu", options=dict(OPTIONS),
        corpus={"source": "texts", "sequences": 20, "texts_sha256": "abc"}, versions={"torch": "2.9"},
    )  # fmt: skip
    return replace(made, **changes)


def report(
    values: Mapping[str, NDArray[np.float64]], *, layers: int = 1, prefix: str = "", kind: str = "encoder", **of: Any
) -> Report:
    """A report whose metrics have `values` [all heads, sequences]; the heads are shared out evenly over the layers."""
    heads, number = next(iter(values.values())).shape
    width = heads // layers
    sites = [(i, f"{prefix}layer.{i}.attention", "encoder", kind, i) for i in range(layers)]
    places = [(*sites[i // width], i % width) for i in range(heads)]
    sequences = pd.DataFrame(
        [(s, place[0], place[-1]) for place in places for s in range(number)], columns=["sequence", "site", "head"]
    ).assign(**{name: matrix.ravel() for name, matrix in values.items()})
    table = pd.DataFrame(places, columns=[*PLACES, "head"]).assign(kv_group=lambda rows: rows["head"])
    return Report(
        provenance=provenance(**of),
        heads=table.assign(**{name: pd.DataFrame(matrix).mean(axis=1) for name, matrix in values.items()}),
        layers=pd.DataFrame(sites, columns=[*PLACES]).assign(heads=width, effective_heads=2.0, aat_heads=1.0),
        pairs=pd.DataFrame(),
        sequences=sequences,
        baselines=pd.DataFrame(sites, columns=[*PLACES]),
        inputs=pd.DataFrame({"sequence": range(number), "sha256": [f"{s:016x}" for s in range(number)]}),
    )


def drawn(seed: int = 0, heads: int = 8, number: int = 20) -> NDArray[np.float64]:
    """Some values by head and sequence, all different."""
    return np.random.default_rng(seed).uniform(0.1, 0.9, (heads, number))
