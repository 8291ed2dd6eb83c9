"""Groups of heads as people read them: which belong together, who stands for them, and how much there is to it."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from headprobe.groups import NEAR_COPY
from headprobe.report import Report
from headprobe.view.document import Block, Paragraph, Table, TableColumn
from headprobe.view.places import Places, places, stacks

CLEAR = 0.25  # mean silhouette; Kaufman and Rousseeuw 1990: below it there is no substantial structure
STABLE, LOOSE = 0.85, 0.6  # Hennig 2007: from the first on a group is stable, below the other it is not to be trusted
SHOWN = 8  # heads of a group by name
SURE = 2 * CLEAR  # mean silhouette of a group from which on it says something even of most heads of a block


def group_blocks(report: Report, top: int | None) -> list[Block]:
    """The `top` clearest groups of two heads or more (None for all), and how many heads each layer amounts to."""
    groups = report.groups
    if groups.empty:
        return []
    text = (
        "Heads are in one group where they attend alike (average linkage on √JS); how many groups, the"
        f" silhouette decides: 1 is clear, below {CLEAR} there is little to it. {_stability(groups)}"
    )
    return [_members(report, groups, top), _blocks(report, groups), Paragraph(text)]


def group_marks(report: Report, known: Places) -> tuple[tuple[str, ...], ...]:
    """For each head, in the order of `known`, whom it is in a group with, in a sentence a scope.

    What is left of a block once an odd head has been parted from it is no group worth a word.
    """
    groups, kinds = report.groups, stacks(report)
    if groups.empty:
        return ()
    told: dict[tuple[int, int], list[str]] = {}
    heads = groups.groupby("block")["head"].transform("size")
    clear = groups.groupby(["block", "group"])["silhouette"].transform("mean") >= SURE
    said = (groups["size"] > 1) & ((2 * groups["size"] <= heads) | clear)
    for row in groups[said | (groups["copies"] > 1)].assign(said=said).to_dict("records"):
        sentences = told.setdefault((row["site"], row["head"]), [])
        where = f"the {_where(row, kinds)}" if row["scope"] == "model" else _where(row, kinds)
        if row["copies"] > 1:
            sentences.append(f"one of {row['copies']} near copies in {where} (JS below {NEAR_COPY})")
        if row["said"]:
            stands = known[row["representative_site"], row["representative_head"]].title
            itself = (row["representative_site"], row["representative_head"]) == (row["site"], row["head"])
            mine = "which it stands for" if itself else f"which {stands} stands for"
            sentences.append(f"one of {row['size']} heads of {where} that attend alike, {mine}")
    return tuple(tuple(told.get(key, ())) for key in known)


def _stability(groups: pd.DataFrame) -> str:
    """How many groups would be found on other texts too."""
    several = groups[groups["size"] > 1].drop_duplicates(["block", "group"])
    known = several["stability"].dropna()
    if known.empty:
        return "Whether they would be found on other texts was not measured."
    firm, loose = int((known >= STABLE).sum()), int((known < LOOSE).sum())
    some = f", {loose} of them would not (below {LOOSE})" if loose else ""
    return (
        "Stable says how much of a group comes back when the sequences are drawn anew:"
        f" {firm} of {len(known)} groups would be found on other texts like these ({STABLE} or more){some}."
    )


def _members(report: Report, groups: pd.DataFrame, top: int | None) -> Table:
    kinds = stacks(report)
    several = groups[groups["size"] > 1]
    ordered = sorted((part for _, part in several.groupby(["block", "group"])), key=_clearness, reverse=True)
    rows, links, known = [], [], places(report)
    for part in ordered[:top] if top else ordered:
        first, wide = part.iloc[0], part["scope"].iloc[0] == "model"
        names = [
            f"L{layer} H{head}" if wide else f"H{head}" for layer, head in zip(part["layer"], part["head"], strict=True)
        ]
        more = [f"+{len(names) - SHOWN}"] if len(names) > SHOWN else []
        links.append(known[first["representative_site"], first["representative_head"]].name)
        stands = f"L{first['representative_layer']} H{first['representative_head']}"
        numbers = [_cell(part["silhouette"].mean()), _cell(first["stability"])]
        rows.append((_where(first, kinds), " ".join([*names[:SHOWN], *more]), stands, str(len(names)), *numbers))
    columns: tuple[TableColumn, ...] = (
        TableColumn("groups in", text=True), TableColumn("heads", text=True), TableColumn("stands for them", text=True),
        TableColumn("size"), TableColumn("silhouette"), TableColumn("stable", 1),
    )  # fmt: skip
    if groups["stability"].isna().all():
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    left = f", {len(rows):,} of {len(ordered):,}" if len(rows) < len(ordered) else ""
    return Table(f"Groups of heads that attend alike{left}", columns, tuple(rows), links={2: tuple(links)})


def _blocks(report: Report, groups: pd.DataFrame) -> Table:
    """How many groups, and how many different heads beside what uniform attention and fresh weights have."""
    kinds, null = stacks(report), _null(report)
    rows = []
    for _, part in groups.groupby("block"):
        first = part.iloc[0]
        cells = [_where(first, kinds), str(len(part)), str(part["group"].nunique()), _cell(first["mean_silhouette"])]
        fresh = null.get(int(first["site"]), math.nan) if first["scope"] == "layer" else math.nan
        rows.append((*cells, _cell(first["effective_heads"]), "1.00", *([_cell(fresh)] if null else [])))
    titles = ("in", "heads", "groups", "silhouette", "effective", "uniform", *(["fresh weights"] if null else []))
    columns = tuple(TableColumn(title, 0, title == "in") for title in titles)
    return Table("How many different heads", columns, tuple(rows))


def _null(report: Report) -> dict[int, float]:
    """By site, the effective number of heads of the same model with fresh weights; empty where it wasn't measured."""
    measured = report.provenance.options.get("null") == "random-init" and "effective_heads" in report.null_layers
    if not measured:
        return {}
    means = report.null_layers.groupby("site")["effective_heads"].mean()
    return dict(zip(map(int, means.index), map(float, means), strict=True))


def _clearness(part: pd.DataFrame) -> tuple[float, int, int]:
    return (round(float(part["silhouette"].mean()), 9), -int(part["block"].iloc[0]), -int(part["group"].iloc[0]))


def _where(row: "Mapping[Any, Any] | pd.Series[Any]", kinds: "pd.Series[Any]") -> str:
    stack = f"{kinds[row['site']]} " if kinds.nunique() > 1 else ""
    return f"{stack}model" if row["scope"] == "model" else f"{stack}layer {row['layer']}"


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"
