"""Reports as documents: which numbers to show, in which order, and what they mean in words."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from headprobe.errors import UsageError, nearest
from headprobe.report import Report
from headprobe.view.document import Block, Document, Grid, Heading, Paragraph, Table, TableColumn
from headprobe.view.null import null_blocks

NEAR_COPY = 0.02  # nats of JS: heads this near differ by less than a fiftieth of the largest possible divergence
PLACES = {
    "self_mass": "self",
    "prev_mass": "prev",
    "next_mass": "next",
    "first_mass": "first",
    "special_mass": "special",
}


def scan_document(report: Report, *, sort: str | None = None, top: int | None = 20) -> Document:
    """What a scan found: in a sentence, by head, as a map, by pair, by layer.

    `sort` is a column of the heads table (most redundant first by default), `top` how many heads and pairs are shown
    (None for all). Raises `UsageError` for a column that the report lacks.
    """
    blocks: list[Block] = [Heading(_title(report)), Paragraph(_summary(report))]
    blocks.append(_heads_table(report, sort, top))
    blocks += _maps(report)
    if "js" in report.pairs:
        blocks.append(_pairs_table(report, top))
    blocks.append(_layers_table(report))
    if not report.null_layers.empty:
        blocks += null_blocks(report)
    if report.notes:
        blocks.append(Paragraph("\n".join(f"Note: {note}." for note in report.notes)))
    return tuple(blocks)


def matrix_document(report: Report, matrix: pd.DataFrame, metric: str) -> Document:
    """A head-similarity matrix as a heat map."""
    several = len({site for site, _, _ in matrix.index}) > 1
    labels = tuple(f"L{layer} H{head}" if several else f"H{head}" for _, layer, head in matrix.index)
    values = tuple(tuple(None if math.isnan(v) else v for v in row) for row in matrix.to_numpy().tolist())
    high = {"js": math.log(2), "kl": max((v for row in values for v in row if v is not None), default=1.0)}.get(
        metric, 1.0
    )
    short = tuple(label.replace(" ", "") for label in labels)
    site, layer, _ = matrix.index[0]
    where = "all layers" if several else f"{_stacks(report)[site]} layer {layer}"
    return (
        Heading(f"{report.provenance.model}: {metric} of heads, {where}"),
        Grid(MATRIX_TITLES[metric], labels, short, values, 0.0, high),
    )


MATRIX_TITLES = {
    "js": "Jensen-Shannon divergence in nats: 0 the same, 0.69 disjoint",
    "kl": "KL(row ‖ column) in nats, smoothed: 0 the same",
    "cos": "cosine similarity: 1 the same, 0 disjoint",
    "bc": "Bhattacharyya coefficient: 1 the same, 0 disjoint",
}


# --- the parts of a scan's document -----------------------------------------------------------------------------


def _title(report: Report) -> str:
    heads, layers, corpus = report.heads, report.layers, report.provenance.corpus
    parts = [
        f"{report.provenance.model} ({report.provenance.model_class})",
        f"{len(heads)} heads in {len(layers)} attention layers",
    ]
    if corpus.get("sequences"):
        tokens = f", {corpus['tokens']:,} tokens" if corpus.get("tokens") else ""
        parts.append(f"{corpus['sequences']} sequences{tokens} ({corpus['source']})")
    return " · ".join(parts)


def _summary(report: Report) -> str:
    sentences = []
    heads, layers = report.heads, report.layers
    if "nearest_js" in heads and heads["nearest_js"].notna().any():
        near = int((heads["nearest_js"] < NEAR_COPY).sum())
        sentences.append(f"{near} of {len(heads)} heads nearly repeat another head (JS below {NEAR_COPY} nats).")
    if "effective_heads" in layers and layers["effective_heads"].notna().any():
        share = layers["effective_heads"] / layers["heads"]
        least = layers[share == share.min()].iloc[0]
        sentences.append(
            f"The {least['heads']} heads of {_place(report, least)} act like {least['effective_heads']:.1f} different"
            " ones, the fewest of any layer; over all layers the mean is"
            f" {layers['effective_heads'].mean():.1f} of {layers['heads'].mean():.3g}."
        )
    if "rcos" in heads and heads["rcos"].notna().any():
        sentences.append(_rcos_sentence(report))
    return " ".join(sentences)


def _rcos_sentence(report: Report) -> str:
    levels = report.baselines.groupby("kind")["rcos"].mean().round(2)
    named = (
        ", ".join(f"{value:.2f} ({kind})" for kind, value in levels.items())
        if levels.nunique() > 1
        else f"{levels.iloc[0]:.2f}"
    )
    above = int((report.heads["rcos_excess"] > 0.005).sum()) if "rcos_excess" in report.heads else 0
    return (
        "rcos tells how alike the rows of a head's queries are, 0 none to 1 all the same;"
        f" uniform attention under the same mask has {named} (excess is what a head has beyond that),"
        f" and {above} of {len(report.heads)} heads are above it."
    )


def _stacks(report: Report) -> "pd.Series[Any]":
    """By site the name of its stack: the kind of attention, or the tower too where several have that kind."""
    layers = report.layers.set_index("site")
    towers = layers["tower"] if "tower" in layers else layers["kind"].map(lambda kind: "")
    several = towers.groupby(layers["kind"]).transform("nunique") > 1
    return layers["kind"].where(~several, towers.where(towers != "", "model") + " " + layers["kind"])


def _place(report: Report, row: "pd.Series[Any]") -> str:
    stacks = _stacks(report)
    return f"{stacks[row['site']]} layer {row['layer']}" if stacks.nunique() > 1 else f"layer {row['layer']}"


def _heads_table(report: Report, sort: str | None, top: int | None) -> Table:
    heads = report.heads
    by = sort or next((name for name in ("rcos", "js_mean", "entropy") if name in heads), "head")
    if by not in heads:
        raise UsageError("E-SORT", f'no column "{by}" to sort by', nearest(by, map(str, heads.columns)))
    ordered = heads.sort_values([by, "site", "head"], ascending=[by in ("site", "layer", "head"), True, True])
    ordered = ordered.head(top) if top else ordered
    stacks = _stacks(report)
    ordered = ordered.assign(kind=ordered["site"].map(stacks))
    wanted = [
        (name, title, rank, decimals)
        for name, title, rank, decimals in HEAD_COLUMNS
        if name in heads and heads[name].notna().any()
    ]
    if stacks.nunique() == 1:
        wanted = [column for column in wanted if column[0] != "kind"]
    if (heads["kv_group"] == heads["head"]).all():
        wanted = [column for column in wanted if column[0] != "kv_group"]
    known = {name for name, *_ in HEAD_COLUMNS}
    wanted += [
        (name, name, 9, 3)
        for name in heads.columns
        if name not in known and name not in HIDDEN and heads[name].notna().any()
    ]
    if by not in {name for name, *_ in wanted} | HIDDEN:
        wanted.append((by, by, 0, None if by in ("kind", "path") else 3))
    wanted = [(name, title, 0 if name == by else rank, decimals) for name, title, rank, decimals in wanted]
    has_nearest = "nearest_js" in heads and heads["nearest_js"].notna().any()
    columns = [TableColumn(title, rank, decimals is None) for _, title, rank, decimals in wanted]
    rows = [[_cell(row[name], decimals) for name, _, _, decimals in wanted] for row in ordered.to_dict("records")]
    if has_nearest:
        columns += [TableColumn("nearest", 1, True), TableColumn("JS", 1)]
        for cells, row in zip(rows, ordered.to_dict("records"), strict=True):
            cells += [_nearest(row), _cell(row["nearest_js"], 4)]
    shown = len(ordered)
    title = f"Heads by {by}" + (f", {shown} of {len(heads)}" if shown < len(heads) else "")
    return Table(title, tuple(columns), tuple(tuple(cells) for cells in rows))


HIDDEN = {
    "site",
    "path",
    "tower",
    "sequences",
    "queries",
    "row_error",
    "leak",
    "nearest_layer",
    "nearest_head",
    "nearest_js",
}
# column, title, rank, decimals (None for words)
HEAD_COLUMNS: tuple[tuple[str, str, int, int | None], ...] = (
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
    ("sink_virtual", "sink", 2, 2),
    ("dropped_mass", "dropped", 2, 2),
    ("aat_sq", "aat_sq", 6, 2),
    ("aat_unit", "aat_unit", 6, 3),
    ("aat01", "aat01", 6, 4),
    ("entropy", "nats", 6, 2),
    ("first_mass_excl_first", "first*", 6, 2),
    ("mean_distance_excl_first", "distance*", 6, 1),
)


def _cell(value: object, decimals: int | None) -> str:
    if decimals is None:
        return str(value)
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    number = float(value)  # type: ignore[arg-type]  # a cell of a numeric column
    return f"{number:.{decimals}f}"


def _nearest(row: dict[Any, Any]) -> str:
    if row["nearest_head"] is pd.NA or row["nearest_head"] is None:
        return ""
    return f"L{row['nearest_layer']} H{row['nearest_head']}"


def _maps(report: Report) -> list[Block]:
    """Layers × heads of rcos (else of JS), a map for each kind of attention."""
    heads = report.heads
    metric = next((name for name in ("rcos", "js_mean", "entropy_norm") if name in heads), None)
    if metric is None:
        return []
    maps: list[Block] = []
    stacks = _stacks(report)
    for stack, part in heads.groupby(heads["site"].map(stacks), sort=False):
        columns = range(int(part["head"].max()) + 1)
        by_site = {site: rows.set_index("head")[metric] for site, rows in part.groupby("site")}
        layers = part.drop_duplicates("site")
        values = tuple(tuple(_value(by_site[site].get(head)) for head in columns) for site in layers["site"])
        high = 1.0 if metric != "js_mean" else math.log(2)
        title = f"{metric} of every head" + (f", {stack} attention" if stacks.nunique() > 1 else "")
        labels = tuple(f"L{layer}" for layer in layers["layer"])
        maps.append(Grid(title, labels, tuple(f"H{head}" for head in columns), values, 0.0, high))
    return maps


def _value(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _pairs_table(report: Report, top: int | None) -> Table:
    pairs = report.pairs.sort_values(["js", "site_a", "head_a", "site_b", "head_b"])
    shown = pairs.head(top) if top else pairs
    kinds = _stacks(report)
    several = kinds.nunique() > 1
    grouped = bool(report.pairs["same_kv_group"].any())
    columns = [TableColumn("heads", text=True), TableColumn("JS")]
    numbers = [name for name in ("cos", "bc", "kl_ab", "kl_ba") if name in pairs]
    titles = {"kl_ab": "KL →", "kl_ba": "KL ←", "bc": "BC"}
    columns += [TableColumn(titles.get(name, name), rank) for rank, name in enumerate(numbers)]
    if several:
        columns.insert(0, TableColumn("kind", text=True))
    if grouped:
        columns.append(TableColumn("same kv", text=True))
    rows = []
    for pair in shown.to_dict("records"):
        cells = [f"L{pair['layer_a']} H{pair['head_a']} ~ L{pair['layer_b']} H{pair['head_b']}", _cell(pair["js"], 4)]
        cells += [_cell(pair[name], 3) for name in numbers]
        rows.append(
            tuple([str(kinds[pair["site_a"]])] * several + cells + ["yes" if pair["same_kv_group"] else ""] * grouped)
        )
    title = "Most similar pairs of heads" + (f", {len(shown)} of {len(pairs)}" if len(shown) < len(pairs) else "")
    return Table(title, tuple(columns), tuple(rows))


def _layers_table(report: Report) -> Table:
    layers = report.layers
    wanted: Sequence[tuple[str, str, int, int | None]] = (
        ("kind", "kind", 0, None), ("layer", "layer", 0, 0), ("heads", "heads", 0, 0),
        ("effective_heads", "effective", 0, 2), ("effective_heads_2", "order 2", 2, 2), ("js_mean", "JS mean", 0, 3),
        ("kl_mean", "KL mean", 1, 3), ("rcos_heads", "cos²", 1, 3), ("aat_heads", "penalty", 0, 2),
        ("kl_inf_frac", "KL = ∞", 3, 4), ("window", "window", 2, 0), ("path", "path", 2, None),
    )  # fmt: skip
    wanted = [column for column in wanted if column[0] in layers and layers[column[0]].notna().any()]
    stacks = _stacks(report)
    layers = layers.assign(kind=layers["site"].map(stacks))
    if stacks.nunique() == 1:
        wanted = [column for column in wanted if column[0] != "kind"]
    rows = [tuple(_cell(row[name], decimals) for name, _, _, decimals in wanted) for row in layers.to_dict("records")]
    columns = tuple(TableColumn(title, rank, decimals is None) for _, title, rank, decimals in wanted)
    return Table("Layers", columns, tuple(rows))
