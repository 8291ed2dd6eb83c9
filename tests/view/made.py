"""Reports of any size whose heads come in groups that a test knows, and strings that a page must only ever show."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headprobe.metrics import METRICS
from headprobe.report import Provenance, Report

LN2 = math.log(2)
HOSTILE = (
    "<script>window.hurt=1</script>",
    "</script><script>window.hurt=1</script>",
    "<img src=x onerror=window.hurt=1>",
    "\"' onmouseover=window.hurt=1 x='\"",
    "javascript:window.hurt=1//",
    "<!-- --><style>*{display:none}</style>",
    "{{ 7 * 7 }}{% raw %}",
    "]]>&lt;b&gt;&#60;",
    "\u202egnp.exe\u2066\u200b\u2028\u2029",
    "\x1b[31m\x00\x07",
    "a" * 10_000,
    "👩‍👩‍👧‍👦 🤖",
    "\ud800 alone",
)


def made(
    layers: int, heads: int, *, pairs: str = "model", sequences: int = 16, model: str = "made/model", seed: int = 0
) -> Report:
    """A report of `layers` × `heads` with every column, pairs within layers or over the "model".

    Heads of the same number modulo four are in one group: their JS is below 0.03, that of others above 0.1.
    """
    draw = np.random.default_rng(seed)
    places = [(site, f"layer.{site}.attention", "encoder", "encoder", site) for site in range(layers)]
    table = pd.DataFrame(
        [(*place, head) for place in places for head in range(heads)],
        columns=["site", "path", "tower", "kind", "layer", "head"],
    ).assign(kv_group=lambda rows: rows["head"], sequences=sequences, queries=sequences * 100)
    columns = [c for metric in METRICS.values() for c in metric.columns if c.level == "head"]
    values = {c.name: draw.uniform(c.low or 0.0, c.high if c.high is not None else 50.0, len(table)) for c in columns}
    table = table.assign(**values)
    js = distances(len(table), draw)
    nearest = np.where(np.eye(len(table), dtype=bool), np.inf, js).argmin(1)
    table = table.assign(
        nearest_layer=table["layer"].to_numpy()[nearest],
        nearest_head=table["head"].to_numpy()[nearest],
        nearest_js=js[np.arange(len(table)), nearest],
    )
    named = pd.DataFrame(places, columns=["site", "path", "tower", "kind", "layer"])
    return Report(
        provenance=Provenance(
            model=model, model_class="MadeModel", dtype="float32", device="cpu", files={"model.safetensors": "ab" * 32},
            corpus={"source": "texts", "sequences": sequences, "tokens": sequences * 100},
            options={"pairs": pairs}, versions={"headprobe": "0"},
        ),
        heads=table,
        layers=named.assign(heads=heads, effective_heads=draw.uniform(1, heads, layers)),
        pairs=_pairs(table, js, pairs),
        sequences=_sequences(table, sequences, draw),
        baselines=named.assign(rcos=1.0, first_mass=0.01, self_mass=0.01),
        inputs=pd.DataFrame({"sequence": range(sequences), "length": 100, "cut": False, "sha256": "ab"}),
    )  # fmt: skip


def distances(heads: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """JS [head, head] with four groups: heads of the same number modulo four."""
    group = np.arange(heads) % 4
    js = draw.uniform(0.1, 0.6, (heads, heads))
    same = group[:, None] == group[None]
    js[same] = draw.uniform(0.001, 0.03, (heads, heads))[same]
    js = np.triu(js, 1)
    js += js.T
    return js


def _pairs(table: pd.DataFrame, js: NDArray[np.float64], pairs: str) -> pd.DataFrame:
    a, b = np.triu_indices(len(table), 1)
    site, head = table["site"].to_numpy(), table["head"].to_numpy()
    if pairs == "layer":
        a, b = a[site[a] == site[b]], b[site[a] == site[b]]
    value = js[a, b]
    return pd.DataFrame(
        {
            "site_a": site[a], "layer_a": site[a], "head_a": head[a],
            "site_b": site[b], "layer_b": site[b], "head_b": head[b], "same_kv_group": False,
            "cos": 1 - value / LN2, "js": value, "kl_ab": 2 * value, "kl_ba": 3 * value, "bc": 1 - value / LN2 / 2,
            "ocos": np.cos(5 * value),
        }
    )  # fmt: skip


def _sequences(table: pd.DataFrame, sequences: int, draw: np.random.Generator) -> pd.DataFrame:
    rows = table[["site", "head"]].merge(pd.DataFrame({"sequence": range(sequences)}), how="cross")
    return rows.assign(confidence=draw.uniform(0, 1, len(rows)), rcos=draw.uniform(0, 1, len(rows)))


def with_examples(layers: int, heads: int, tokens: tuple[str, ...] = ("[CLS]", "a", "cat", "[SEP]")) -> Report:
    """A made report with as many examples as there can be, each as large as can be."""
    found, size = made(layers, heads), len(tokens)
    weights = np.random.default_rng(0).dirichlet(np.ones(size), (12, size)).round(6).tolist()
    rows = [
        (i // 2 if i < 6 else i, "similar pair" if i < 6 else "previous token", 0, i % layers, i % heads, i == 7)
        for i in range(12)
    ]
    table = pd.DataFrame(rows, columns=["example", "shows", "sequence", "site", "head", "excerpt"])
    lists = {"tokens": [list(tokens)] * 12, "keys": [list(tokens)] * 12, "weights": weights}
    return replace(found, examples=table.assign(**lists))
