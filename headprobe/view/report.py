"""Reports as documents: which numbers to show, in which order, and what they mean in words."""

import math

import pandas as pd

from headprobe.groups import NEAR_COPY
from headprobe.report import Report
from headprobe.view.document import Block, Document, Grid, Heading, Heads, Measure, Paragraph
from headprobe.view.groups import group_blocks
from headprobe.view.likeness import least_diverse, near_copies
from headprobe.view.null import null_blocks
from headprobe.view.places import places, stacks
from headprobe.view.plain import grids
from headprobe.view.tables import heads_table, layers_table, pair_columns, pairs_table


def scan_document(report: Report, *, sort: str | None = None, top: int | None = 20) -> Document:
    """What a scan found: in a sentence, by head, as a map, by pair, by layer.

    `sort` is a column of the heads table (most redundant first by default), `top` how many heads and pairs are shown
    (None for all). Raises `UsageError` for a column that the report lacks.
    """
    summary = _summary(report)
    blocks: list[Block] = [Heading(_title(report)), *([Paragraph(summary)] if summary else [])]
    blocks.append(heads_table(report, sort, top))
    blocks += _maps(report)
    if len(report.pairs) and pair_columns(report):
        blocks.append(pairs_table(report, top))
    blocks += group_blocks(report, top)
    blocks.append(layers_table(report))
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
    where = "all layers" if several else f"{stacks(report)[site]} layer {layer}"
    return (
        Heading(f"{report.provenance.model}: {metric} of heads, {where}"),
        Grid(MATRIX_TITLES[metric], labels, short, values, -1.0 if metric.startswith("ocos") else 0.0, high),
    )


MATRIX_TITLES = {
    "js": "Jensen-Shannon divergence in nats: 0 the same, 0.69 disjoint",
    "kl": "KL(row ‖ column) in nats, smoothed: 0 the same",
    "cos": "cosine similarity: 1 the same, 0 disjoint",
    "bc": "Bhattacharyya coefficient: 1 the same, 0 disjoint",
    "cka": "linear CKA of what heads give: 1 the same but for rotation and scale, 0 unrelated",
    "cka_unbiased": "linear CKA of what heads give, unbiased: 1 the same but for rotation and scale, 0 unrelated",
    "ocos": "cosine of what heads write: 1 the same, 0 unrelated, -1 the opposite",
    "ocos_centred": "cosine of what heads write beside its mean: 1 the same, 0 unrelated, -1 the opposite",
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
        source = f" ({corpus['source']})" if corpus.get("source") else ""
        parts.append(f"{corpus['sequences']} sequences{tokens}{source}")
    return " · ".join(parts)


def _summary(report: Report) -> str:
    sentences = []
    heads, layers = report.heads, report.layers
    near, least = near_copies(report), least_diverse(report)
    if near is not None:
        sentences.append(f"{near} of {len(heads)} heads nearly repeat another head (JS below {NEAR_COPY} nats).")
    if least is not None:
        sentences.append(
            f"The {least.words}; over all layers the mean is {layers['effective_heads'].mean():.1f} of"
            f" {layers['heads'].mean():.3g}."
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


def _maps(report: Report) -> list[Block]:
    """Layers × heads of rcos (else of JS), a map for each kind of attention."""
    heads = report.heads
    metric = next((name for name in ("rcos", "js_mean", "entropy_norm") if name in heads), None)
    if metric is None:
        return []
    values = tuple(None if math.isnan(value) else float(value) for value in heads[metric].astype("float64"))
    most = math.log(2) if metric == "js_mean" else 1.0
    measure = Measure(metric, values, 0.0, most)
    return list(grids(Heads(tuple(places(report).values()), (measure,)), measure))
