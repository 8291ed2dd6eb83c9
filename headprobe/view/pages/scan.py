"""A scan as a page: in words, every head at a glance, which heads are alike, all numbers, and what it rests on."""

from dataclasses import replace

import pandas as pd

from headprobe.report import NAMES, Report
from headprobe.view.document import Block, Document, Examples, Heading, Heads, Section, Similarities
from headprobe.view.groups import group_blocks, group_marks
from headprobe.view.null import null_blocks
from headprobe.view.pages.evidence import facts, noted, rests_on
from headprobe.view.pages.examples import examples_of
from headprobe.view.pages.measures import head_measures
from headprobe.view.pages.similarity import nearest, similarities
from headprobe.view.pages.types import type_blocks
from headprobe.view.pages.words import scan_summary, shown_name
from headprobe.view.places import Places, places
from headprobe.view.tables import heads_table, layers_table, pair_columns, pairs_table

MOST_PAIRS = 50  # in the table
NOTABLE = 3  # sequences a head
NOTABLE_BY = "confidence"
GLANCE = (
    "A row is a layer, a cell is a head, and its colour is the number that you choose. Choose a head to see"
    " everything that was measured of it."
)
ALIKE = (
    "Two heads are alike when they give each token's attention to the same places. Rows and columns stand in the order"
    " of the tree, so that groups of heads that attend alike are bright squares along the diagonal."
)
GROUPS = "Heads that attend alike, at the clearest number of groups, and one that stands for all of them."


def scan_page(
    report: Report, *, sort: str | None = None, top: int | None = None, examples: Examples | None = None
) -> Document:
    """Everything about a scan that people look at.

    `sort` is the column of the heads table to sort by, `top` how many heads it has (None for all). `examples` are
    attention on texts, by default those that the report holds. Raises `UsageError` for a column that the report lacks.
    """
    known = places(report)
    blocks: list[Block] = [Heading(shown_name(report.provenance.model)), scan_summary(report)]
    blocks += noted(report.notes)
    blocks += type_blocks(report, known)
    blocks += _glance(report, known)
    blocks += _alike(report, known, top)
    if not report.groups.empty:
        blocks += [Section("Groups of heads", "groups", GROUPS, "Groups"), *group_blocks(report, None)]
    examples = examples or examples_of(report, known)
    if examples is not None:
        blocks += [Section("What some of them look at", "examples", short="Examples"), examples]
    blocks += _numbers(report, sort, top)
    return (*blocks, *rests_on(facts("Measured", report.provenance, **_hashes(report))))


def _hashes(report: Report) -> dict[str, str]:
    """With examples the numbers' own hash too, by which the same scan without them is known."""
    if report.examples.empty:
        return {"results": report.results_sha256}
    alone = report.without_examples().results_sha256
    return {"results": report.results_sha256, "results_without_examples": alone}


def _glance(report: Report, known: Places) -> list[Block]:
    measures = head_measures(report)
    if not measures:
        return []
    heads = Heads(
        tuple(known.values()),
        measures,
        labels=_labels(report, known),
        alike=nearest(report, known),
        marks=group_marks(report, known),
        notable=_notable(report, known),
        notable_by=NOTABLE_BY,
        about=GLANCE,
    )
    return [Section("Every head at a glance", "heads", short="Heads"), heads]


def _labels(report: Report, known: Places) -> tuple[tuple[str, ...], ...]:
    """Words that say what a head is for, where they are clear: from its types, and from columns of words."""
    heads, types = report.heads, report.types
    words = [
        name
        for name in heads
        if name not in (*NAMES["heads"], "tower") and not pd.api.types.is_numeric_dtype(heads[name].dtype)
    ]
    told: list[list[str]] = [
        [str(row[name]) for name in words if isinstance(row[name], str) and row[name]]
        for row in heads[words].to_dict("records")
    ]
    clear = {
        (row["site"], row["head"]): f"{row['type']} {row['value']:.2f}"
        for row in types.to_dict("records")
        if row.get("type")
    }
    return tuple(tuple(filter(None, [clear.get(key), *mine])) for key, mine in zip(known, told, strict=True))


def _notable(report: Report, known: Places) -> tuple[tuple[tuple[int, float], ...], ...]:
    """For each head the sequences on which its largest weights are largest."""
    rows = report.sequences
    if NOTABLE_BY not in rows:
        return ()
    best = rows[rows[NOTABLE_BY].notna()].sort_values([NOTABLE_BY, "sequence"], ascending=[False, True])
    best = best.groupby(["site", "head"], sort=False).head(NOTABLE)
    found: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for site, head, number, value in zip(
        best["site"], best["head"], best["sequence"], best[NOTABLE_BY], strict=True
    ):  # fmt: skip
        found.setdefault((site, head), []).append((int(number), float(value)))
    return tuple(tuple(found.get(key, ())) for key in known)


def _alike(report: Report, known: Places, top: int | None) -> list[Block]:
    if report.pairs.empty or not pair_columns(report):
        return []
    found, blocks = similarities(report, known), list[Block]()
    if found:
        blocks = [Section("Which heads are alike", "similarity", short="Similarity"), Similarities(found, ALIKE)]
    about = "Candidates for a closer look, not for removal."
    pairs = pairs_table(report, min(top or MOST_PAIRS, MOST_PAIRS), apart=True)
    return [*blocks, Section("The most similar pairs", "pairs", about, "Pairs"), pairs]


def _numbers(report: Report, sort: str | None, top: int | None) -> list[Block]:
    table = heads_table(report, sort, top)
    blocks: list[Block] = [
        Section(
            "All heads",
            "numbers",
            "Every number of every head. What a column means: headprobe metrics NAME.",
            "Numbers",
        ),
        table,
        Section("Layers", "layers"),
        replace(layers_table(report), title="Attention layers"),
    ]
    if not report.null_layers.empty:
        blocks += [Section("Beyond chance", "null"), *null_blocks(report)]
    return blocks
