"""What layers and heads are called where somebody reads of them."""

from typing import Any

import pandas as pd

from headprobe.report import Report
from headprobe.view.document import Place

MOST_NAME = 60
Places = dict[tuple[int, int], Place]  # by site and head


def stacks(report: Report) -> "pd.Series[Any]":
    """By site the name of its stack: the kind of attention, or the tower too where several have that kind."""
    return stack_names(report.layers)


def stack_names(sites: pd.DataFrame) -> "pd.Series[Any]":
    """The same from a table with a row a site, which has its `kind`, its `layer` and maybe its `tower`.

    Where a stack has two layers of one number (one in a list, one beside it), the later one is in a second stack.
    """
    sites = sites.set_index("site")
    towers = sites["tower"] if "tower" in sites else sites["kind"].map(lambda kind: "")
    several = towers.groupby(sites["kind"]).transform("nunique") > 1
    named = towers.where(towers != "", "model").map(_short) + " " + sites["kind"]
    names = sites["kind"].where(~several, named)
    again = sites.groupby([names, sites["layer"]]).cumcount() + 1
    return names.where(again == 1, names + " " + again.astype(str))


def _short(name: str) -> str:
    """A tower's name, the middle left out of one that is longer than anybody reads."""
    return name if len(name) <= MOST_NAME else f"{name[: MOST_NAME // 2]}…{name[-MOST_NAME // 2 :]}"


def layer_words(report: Report, row: "pd.Series[Any]") -> str:
    """A layer in a sentence: "layer 3", or "cross layer 3" where a number alone does not name it."""
    kinds = stacks(report)
    return f"{kinds[row['site']]} layer {row['layer']}" if kinds.nunique() > 1 else f"layer {row['layer']}"


def places(report: Report) -> Places:
    """Every head's place, in the order of the heads table."""
    kinds = stacks(report)
    several = kinds.nunique() > 1
    grouped = bool((report.heads["kv_group"] != report.heads["head"]).any())
    columns = (report.heads[name].tolist() for name in ("site", "layer", "head", "kv_group"))
    return {
        (site, head): Place(site, layer, head, str(kinds[site]) if several else "", int(group) if grouped else None)
        for site, layer, head, group in zip(*columns, strict=True)
    }
