"""A comparison as a page: what changed in words, where on the map of heads, by how much, and what it rests on."""

import math
import shlex
from dataclasses import replace

import pandas as pd

from headprobe.comparison import Comparison
from headprobe.view.changes import SIGNIFICANT, Places, any_change, matched, said_once, sentences
from headprobe.view.columns import described
from headprobe.view.comparison import changes_table, layers_table, metrics_table, partners_table
from headprobe.view.document import Block, Document, Heading, Heads, Measure, Section, Step, Summary
from headprobe.view.pages.evidence import facts, noted, rests_on
from headprobe.view.pages.measures import LEAST_SPAN, Words, measure, span
from headprobe.view.pages.words import shown_name

MOST_CHANGES = 100  # in the table
MOST_MARKS = 6  # of a head
CHANGE: Words = {"about": "change", "family": "change"}
GLANCE = (
    "A row is a layer, a cell is a head. {} the colour is the change, orange where it rose and purple where it fell."
)
MOVED = "Drift is how far a head's attention moved; of every other quantity"
MATCHED = "JS is how far apart the two heads of a match are; of every other quantity"
DRIFT = {
    "tv": ("share of the head's attention that goes elsewhere", 1.0),
    "js": ("Jensen-Shannon divergence between base and tuned", math.log(2)),
}  # and what they can be at most


def comparison_page(comparison: Comparison, *, top: int | None = None) -> Document:
    """Everything about a comparison that people look at; `top` is how many changes are in the table (None: enough)."""
    places = Places.of(comparison)
    names = tuple(shown_name(each.model) for each in (comparison.tuned, comparison.base))
    blocks: list[Block] = [Heading(f"{names[0]} against {names[1]}"), _summary(comparison, places, *names)]
    blocks += noted(comparison.notes)
    blocks += _glance(comparison, places)
    blocks += _tables(comparison, places, min(top or MOST_CHANGES, MOST_CHANGES))
    return (*blocks, *rests_on(facts("Base", comparison.base), facts("Tuned", comparison.tuned)))


def _summary(comparison: Comparison, places: Places, tuned: str, base: str) -> Summary:
    heads = comparison.heads
    number = len(heads.drop_duplicates(["site", "head"]))
    sequences = int(heads["sequences"].max()) if "sequences" in heads and len(heads) else 0
    figures = [(f"{number:,}", "heads compared")]
    if not matched(comparison):
        changed = heads[heads["q"] < SIGNIFICANT].drop_duplicates(["site", "head"])
        figures.append((f"{len(changed):,}", "changed by more than chance"))
    if len(comparison.drift) and comparison.drift["tv"].notna().any():
        figures.append((f"{100 * comparison.drift['tv'].mean():.1f} %", "of the attention goes elsewhere"))
    if sequences:
        figures.append((f"{sequences:,}", "sequences, the same for both"))
    return Summary(tuple(sentences(comparison, places)), tuple(figures), tuple(_steps(comparison, tuned, base)))


def _steps(comparison: Comparison, tuned: str, base: str) -> list[Step]:
    if matched(comparison):
        return [Step("Look at the heads that are matched worst: nothing like them is in the other model.")]
    steps = []
    if any_change(comparison.heads):
        steps.append(Step("Look at the heads that changed most, and whether the task explains it."))
    names = f"{shlex.quote(tuned)} --baseline {shlex.quote(base)}"
    return [*steps, Step("Let rules judge it, with an exit code for a pipeline.", f"headprobe audit {names}")]


def _glance(comparison: Comparison, places: Places) -> list[Block]:
    rows = comparison.heads.drop_duplicates(["site", "head"]).sort_values(["site", "head"])
    keys = list(zip(rows["site"].astype(int), rows["head"].astype(int), strict=True))
    measures = [*_drift(comparison, keys), *_changes(comparison, keys)]
    if matched(comparison):
        js = dict(zip(keys, rows["js"].astype("float64"), strict=True))
        about = "JS between the head and the one that it is matched with"
        least = LEAST_SPAN * math.log(2)
        nearness = measure("js", [js[key] for key in keys], least=least, about=about, unit="nats", family="match")
        measures.insert(0, nearness)
    if not measures:
        return []
    known = tuple(places.place(*key) for key in keys)
    about = GLANCE.format(MATCHED if matched(comparison) else MOVED)
    heads = Heads(known, tuple(measures), marks=_marks(comparison, keys), labels=_partners(rows), about=about)
    return [Section("Where it changed", "heads", short="Heads"), heads]


def _drift(comparison: Comparison, keys: list[tuple[int, int]]) -> list[Measure]:
    drift = comparison.drift
    if drift.empty:
        return []
    by_key = drift.set_index(["site", "head"])
    return [
        measure(
            f"drift {name}", by_key[name].reindex(keys).tolist(), least=LEAST_SPAN * most, about=about, family="drift",
            more="it moved far",
        )
        for name, (about, most) in DRIFT.items()
        if name in by_key and by_key[name].notna().any()
    ]  # fmt: skip


def _changes(comparison: Comparison, keys: list[tuple[int, int]]) -> list[Measure]:
    known, made = described("head"), []
    for metric, rows in comparison.heads.groupby("metric", sort=False):
        values = rows.drop_duplicates(["site", "head"]).set_index(["site", "head"])["change"].reindex(keys)
        found = known.get(str(metric))
        if values.isna().all() or (found is not None and found.family == "validity"):
            continue
        words: Words = {"about": f"change: {found.column.about}", "family": found.family} if found else CHANGE
        widest = span(found.column if found else None, rows[["base", "tuned"]].abs().max().max())
        least = 2 * LEAST_SPAN * widest  # it can rise or fall by so much
        made.append(measure(f"Δ {metric}", values.tolist(), signed=True, least=least, **words))
    return made


def _marks(comparison: Comparison, keys: list[tuple[int, int]]) -> tuple[tuple[str, ...], ...]:
    """For each head what changed by more than chance, the surest first."""
    if "q" not in comparison.heads or matched(comparison):
        return ()
    found = said_once(comparison.heads)
    found = found[found["q"] < SIGNIFICANT].sort_values(["q", "metric"])
    by_head: dict[tuple[int, int], list[str]] = {}
    for row in found.to_dict("records"):
        told = by_head.setdefault((row["site"], row["head"]), [])
        if len(told) < MOST_MARKS:
            way = "rose" if row["change"] > 0 else "fell"
            told.append(f"{row['metric']} {way} from {row['base']:.3g} to {row['tuned']:.3g} (q {row['q']:.1g})")
    return tuple(tuple(by_head.get(key, ())) for key in keys)


def _partners(rows: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    if "tuned_head" not in rows:
        return ()
    pairs = zip(rows["tuned_layer"], rows["tuned_head"], strict=True)
    return tuple(
        () if math.isnan(layer) else (f"matched with layer {int(layer)} head {int(head)}",) for layer, head in pairs
    )


def _tables(comparison: Comparison, places: Places, top: int) -> list[Block]:
    if matched(comparison):
        tables: list[Block] = [
            Section("Which heads were matched", "matches", short="Matches"),
            partners_table(comparison, places, None),
        ]
    else:
        about = (
            "q is the chance of a false discovery among all heads of a quantity; effect is how many of the sequences"
            " agree, from -1 (every one fell) to 1 (every one rose)."
        )
        changes = [*changes_table(comparison, places, top), *metrics_table(comparison)]
        tables = [Section("What changed", "changes", about, "Changes"), *changes] if changes else []
    if len(comparison.layers):
        tables += [Section("Layers", "layers"), replace(layers_table(comparison, places), title="Attention layers")]
    return tables
