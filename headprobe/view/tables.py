"""A report's tables as people read them: which columns, in which order, with how many decimals."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from headprobe.errors import UsageError, nearest
from headprobe.report import Report
from headprobe.view.columns import described
from headprobe.view.document import Table, TableColumn
from headprobe.view.places import Places, places, stacks

Wanted = tuple[str, str, int, int | None]  # column, title, rank, decimals (None for words)


def heads_table(report: Report, sort: str | None, top: int | None) -> Table:
    """`top` heads (None for all) in order of a column, the most redundant first by default; `UsageError` if unknown."""
    heads = report.heads
    by = sort or next((name for name in ("rcos", "js_mean", "entropy") if name in heads), "layer")
    if by not in heads:
        raise UsageError("E-SORT", f'no column "{by}" to sort by', nearest(by, map(str, heads.columns)))
    ordered = heads.sort_values([by, "site", "head"], ascending=[by in ("site", "layer", "head"), True, True])
    ordered = ordered.head(top) if top else ordered
    records = _typed(report, ordered.assign(kind=ordered["site"].map(stacks(report)))).to_dict("records")
    wanted, about = _wanted(report, by), described("head")
    columns = [
        TableColumn(title, rank, decimals is None, about[name].column.about if name in about else "")
        for name, title, rank, decimals in wanted
    ]
    rows = [[cell(row[name], decimals) for name, _, _, decimals in wanted] for row in records]
    known = places(report)
    mine = tuple(known[row["site"], row["head"]].name for row in records)
    links = {[name for name, *_ in wanted].index("head"): mine}
    if {"nearest_layer", "nearest_head", "nearest_js"} <= set(heads) and heads["nearest_js"].notna().any():
        links[len(columns)] = _nearest_names(records, known)
        columns += NEAREST
        for cells, row in zip(rows, records, strict=True):
            cells += [_nearest(row), cell(row["nearest_js"], 4)]
    title = f"Heads by {by}" + (f", {len(ordered):,} of {len(heads):,}" if len(ordered) < len(heads) else "")
    return Table(title, tuple(columns), tuple(tuple(cells) for cells in rows), names=mine, links=links)


def _wanted(report: Report, by: str) -> list[Wanted]:
    """The columns that have something to say, ours first, the one that heads are sorted by never left out."""
    heads = report.heads
    useless = {"kind"} if stacks(report).nunique() == 1 else set()
    useless |= {"kv_group"} if (heads["kv_group"] == heads["head"]).all() else set()
    wanted: list[Wanted] = [
        column for column in HEAD_COLUMNS if column[0] in heads and heads[column[0]].notna().any()
    ]  # fmt: skip
    if "type" in report.types and (report.types["type"] != "").any():
        wanted.append(TYPE)
    known = {name for name, *_ in wanted} | {name for name, *_ in HEAD_COLUMNS} | HIDDEN
    wanted += [
        (name, name, 9, 3 if pd.api.types.is_numeric_dtype(heads[name].dtype) else None)
        for name in heads.columns
        if name not in known and heads[name].notna().any()
    ]
    wanted = [column for column in wanted if column[0] not in useless]
    if by not in {name for name, *_ in wanted} | HIDDEN:
        wanted.append((by, by, 0, None if by in ("kind", "path") else 3))
    return [(name, title, 0 if name == by else rank, decimals) for name, title, rank, decimals in wanted]


def _typed(report: Report, heads: pd.DataFrame) -> pd.DataFrame:
    """The heads with what each is for, where it is clear: "previous token 0.93"."""
    if "type" not in report.types:
        return heads
    types = report.types.set_index(["site", "head"])
    words = [
        f"{label} {value:.2f}" if label else "" for label, value in zip(types["type"], types["value"], strict=True)
    ]
    return heads.join(pd.Series(words, index=types.index, name="type"), on=["site", "head"])


TYPE: Wanted = ("type", "type", 1, None)
NEAREST = (
    TableColumn("nearest", 1, True, "the head that attends most like it"),
    TableColumn("JS", 1, about="Jensen-Shannon divergence from the nearest head"),
)
HIDDEN = {
    "site", "path", "tower", "sequences", "queries", "row_error", "leak", "nearest_layer", "nearest_head", "nearest_js",
}  # fmt: skip
HEAD_COLUMNS: tuple[Wanted, ...] = (
    ("kind", "kind", 0, None),
    ("layer", "layer", 0, 0),
    ("head", "head", 0, 0),
    ("kv_group", "kv", 2, 0),
    ("rcos", "rcos", 0, 3),
    ("rcos_excess", "excess", 0, 3),
    ("aat_fro", "‖AAᵀ-I‖", 1, 2),
    ("entropy_norm", "entropy", 1, 2),
    ("self_mass", "self", 2, 2),
    ("prev_mass", "prev", 2, 2),
    ("next_mass", "next", 2, 2),
    ("first_mass", "first", 2, 2),
    ("special_mass", "special", 3, 2),
    ("mean_distance", "distance", 3, 1),
    ("eff_keys", "keys", 3, 1),
    ("confidence", "largest", 4, 2),
    ("aat_heads_share", "penalty", 4, 3),
    ("overlap", "overlap", 5, 4),
    ("diffuse", "diffuse", 5, 3),
    ("js_mean", "JS mean", 4, 3),
    ("kl_mean", "KL mean", 4, 3),
    ("zero_frac", "zeros", 5, 4),
    ("induction_mass", "induction", 3, 2),
    ("duplicate_mass", "duplicate", 3, 2),
    ("alignment", "alignment", 3, 2),
    ("monotone", "order", 4, 2),
    ("local_mass", "local", 4, 2),
    ("delimiter_mass", "punct.", 4, 2),
    ("segment_mass", "segment", 4, 2),
    ("one_to_one", "one to one", 5, 2),
    ("far_mass", "far", 5, 2),
    ("sink_virtual", "sink", 2, 2),
    ("dropped_mass", "dropped", 2, 2),
    ("aat_sq", "aat_sq", 6, 2),
    ("aat_unit", "aat_unit", 6, 3),
    ("aat01", "aat01", 6, 4),
    ("entropy", "nats", 6, 2),
    ("first_mass_excl_first", "first*", 6, 2),
    ("mean_distance_excl_first", "distance*", 6, 1),
)


def cell(value: object, decimals: int | None) -> str:
    """A value ready to read: a number with so many decimals, or words where there are None; "" for what is missing."""
    if decimals is None:
        return str(value)
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    number = float(value)  # type: ignore[arg-type]  # a cell of a numeric column
    return f"{number:z.{decimals}f}"


def _nearest(row: dict[Any, Any]) -> str:
    if row["nearest_head"] is pd.NA or row["nearest_head"] is None:
        return ""
    return f"L{row['nearest_layer']} H{row['nearest_head']}"


def _nearest_names(records: list[dict[Any, Any]], known: Places) -> tuple[str, ...]:
    """The name of each row's nearest head, whose stack is the row's own."""
    by_number = {(place.stack, place.layer, place.head): place.name for place in known.values()}
    return tuple(
        ""
        if row["nearest_head"] is pd.NA or row["nearest_head"] is None
        else by_number.get((known[row["site"], row["head"]].stack, row["nearest_layer"], row["nearest_head"]), "")
        for row in records
    )


def pairs_table(report: Report, top: int | None, *, apart: bool = False) -> Table:
    """The `top` pairs (None for all), the most alike first, by the first quantity that the report has of them.

    Each head in a column of its own where they are `apart`.
    """
    numbers = pair_columns(report)
    order = [numbers[0], "site_a", "head_a", "site_b", "head_b"]
    pairs = report.pairs.sort_values(order, ascending=[numbers[0] in ("js", "kl_ab"), *[True] * 4])
    shown = pairs.head(top) if top else pairs
    kinds, known = stacks(report), places(report)
    several, grouped = kinds.nunique() > 1, bool(report.pairs["same_kv_group"].any())
    names = ("head", "and") if apart else ("heads",)
    columns = [TableColumn("kind", text=True)] * several + [TableColumn(name, text=True) for name in names]
    columns += [TableColumn(PAIR_TITLES.get(name, name), max(0, rank - 1)) for rank, name in enumerate(numbers)]
    columns += [TableColumn("same kv", text=True)] * grouped
    rows, links = [], []
    for pair in shown.to_dict("records"):
        heads = [f"L{pair[f'layer_{side}']} H{pair[f'head_{side}']}" for side in "ab"]
        cells = [*(heads if apart else [" ~ ".join(heads)])]
        cells += [cell(pair[name], 4 if name == "js" else 3) for name in numbers]
        rows.append(
            tuple([str(kinds[pair["site_a"]])] * several + cells + ["yes" if pair["same_kv_group"] else ""] * grouped)
        )
        links.append([known[pair[f"site_{side}"], pair[f"head_{side}"]].name for side in "ab"])
    title = "Most similar pairs of heads" + (f", {len(shown):,} of {len(pairs):,}" if len(shown) < len(pairs) else "")
    led = {several + i: tuple(pair[i] for pair in links) for i in (0, 1)} if apart else {}
    return Table(title, tuple(columns), tuple(rows), links=led)


PAIR_TITLES = {"js": "JS", "kl_ab": "KL →", "kl_ba": "KL ←", "bc": "BC"}
PAIR_ORDER = ("js", "cka", "ocos", "cos", "bc", "kl_ab", "kl_ba", "cka_unbiased", "ocos_centred")


def pair_columns(report: Report) -> list[str]:
    """The quantities of pairs that a table shows; by the first one it is sorted."""
    return [name for name in PAIR_ORDER if name in report.pairs]


def layers_table(report: Report) -> Table:
    """A row a layer of attention."""
    layers = report.layers
    wanted: Sequence[tuple[str, str, int, int | None]] = (
        ("kind", "kind", 0, None), ("layer", "layer", 0, 0), ("heads", "heads", 0, 0),
        ("effective_heads", "effective", 0, 2), ("effective_heads_2", "order 2", 2, 2), ("js_mean", "JS mean", 0, 3),
        ("kl_mean", "KL mean", 1, 3), ("rcos_heads", "cos²", 1, 3), ("aat_heads", "penalty", 0, 2),
        ("kl_inf_frac", "KL = ∞", 3, 4), ("window", "window", 2, 0), ("path", "path", 2, None),
    )  # fmt: skip
    wanted = [column for column in wanted if column[0] in layers and layers[column[0]].notna().any()]
    kinds = stacks(report)
    layers = layers.assign(kind=layers["site"].map(kinds))
    if kinds.nunique() == 1:
        wanted = [column for column in wanted if column[0] != "kind"]
    rows = [tuple(cell(row[name], decimals) for name, _, _, decimals in wanted) for row in layers.to_dict("records")]
    columns = tuple(TableColumn(title, rank, decimals is None) for _, title, rank, decimals in wanted)
    return Table("Layers", columns, tuple(rows))
