"""Every unordered pair of heads as a table, from matrices: half a million pairs are arrays, not dictionaries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from headprobe.tile import Site

Matrix = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Compared:
    """Sites whose heads were compared with each other, and by name a matrix [head, head] over all of them in order."""

    sites: tuple[Site, ...]
    matrices: dict[str, Matrix]

    def heads(self, values: Sequence[int]) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """[head]: a value of each site for each of its heads."""
        return np.repeat(np.asarray(values, np.int64), [site.heads for site in self.sites])

    def numbers(self) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """[head]: its number within its site."""
        return np.concatenate([np.arange(site.heads) for site in self.sites])


def pair_table(compared: Sequence[Compared]) -> pd.DataFrame:
    """A row an unordered pair: where its two heads are, and each matrix's entry (first, second) as a column."""
    return _joined([_pairs(group) for group in compared if group.matrices])


def _pairs(group: Compared) -> dict[str, Any]:
    index, layer = (group.heads([getattr(site, name) for site in group.sites]) for name in ("index", "layer"))
    kv = np.concatenate([[site.kv_group(head) for head in range(site.heads)] for site in group.sites])
    number = group.numbers()
    a, b = np.triu_indices(len(number), 1)
    columns: dict[str, Any] = {
        "site_a": index[a], "layer_a": layer[a], "head_a": number[a],
        "site_b": index[b], "layer_b": layer[b], "head_b": number[b],
        "same_kv_group": (index[a] == index[b]) & (kv[a] == kv[b]),
    }  # fmt: skip
    return columns | {name: matrix[a, b] for name, matrix in group.matrices.items()}


def nearest(compared: Sequence[Compared]) -> pd.DataFrame:
    """For each head, by `site` and `head`, the other head with the smallest JS: the first of several equally near ones.

    `nearest_layer nearest_head nearest_js`, empty where a head has no other.
    """
    table = _joined([_nearest(group) for group in compared if "js" in group.matrices])
    for name in ("nearest_layer", "nearest_head"):
        table[name] = table[name].astype("Int64").where(table["nearest_js"].notna())
    return table


def _nearest(group: Compared) -> dict[str, Any]:
    js = np.where(np.eye(len(group.numbers()), dtype=bool), np.nan, group.matrices["js"])
    best = np.argmin(np.where(np.isnan(js), np.inf, js), 1)
    number, layer = group.numbers(), group.heads([site.layer for site in group.sites])
    return {
        "site": group.heads([site.index for site in group.sites]),
        "head": number,
        "nearest_layer": layer[best],
        "nearest_head": number[best],
        "nearest_js": js[np.arange(len(js)), best],
    }


def _joined(parts: list[dict[str, Any]]) -> pd.DataFrame:
    """One table of several with columns of the same names."""
    names = parts[0] if parts else ()
    return pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in names})
