"""What a comparison shows."""

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from headprobe.comparison import Comparison, compare_reports
from headprobe.report import Report
from headprobe.view.comparison import comparison_document
from headprobe.view.document import Block, Document, Grid, Paragraph, Table
from headprobe.view.markdown import markdown
from headprobe.view.terminal import console, show
from tests.comparison.made import drawn, report

CHANGED = range(20, 24)


def pair(kind: str = "encoder") -> tuple[Report, Report]:
    """A base, and a model in which the last layer's last four heads have more rcos, and head 3 a shorter reach."""
    noise = np.random.default_rng(9)
    before = {"rcos": drawn(0, 24), "rcos_excess": drawn(0, 24) - 0.5, "mean_distance": 50 * drawn(1, 24)}
    after = {name: values + noise.normal(0, 0.01, values.shape) for name, values in before.items()}
    after["rcos"][CHANGED] += 0.2
    after["rcos_excess"][CHANGED] += 0.2
    after["mean_distance"][3] -= 7
    return report(before, layers=3, kind=kind), report(after, layers=3, kind=kind, model="child")


def drift() -> pd.DataFrame:
    rows = [(site, head, 0.01 * site, 0.02 * head) for site in range(3) for head in range(8)]
    return pd.DataFrame(rows, columns=["site", "head", "js", "tv"])


@pytest.fixture
def comparison() -> Comparison:
    base, tuned = pair()
    return compare_reports(base, tuned, drift())


def block(document: Document, title: str) -> Block:
    return next(each for each in document if isinstance(each, Table | Grid) and each.title.startswith(title))


def table(document: Document, title: str) -> Table:
    found = block(document, title)
    assert isinstance(found, Table)
    return found


def column(shown: Table, title: str) -> list[str]:
    titles = [each.title for each in shown.columns]
    return [row[titles.index(title)] for row in shown.rows]


def words(document: Document) -> str:
    assert isinstance(document[1], Paragraph)
    return document[1].text


def as_text(document: Document, width: int) -> str:
    stream = io.StringIO()
    show(document, console(stream, width=width))
    return stream.getvalue()


def test_first_it_says_what_changed_and_where(comparison: Comparison) -> None:
    said = words(comparison_document(comparison))
    assert "5 of 24 heads changed in at least one of 3 quantities" in said
    assert "most in layer 2 (4 of 8)" in said
    assert "Most changed in rcos: 4 heads rose and 0 fell, by 0." in said
    assert "drifted by 0.01 nats of JS on average (7.0 % of the attention goes elsewhere)" in said
    assert "furthest in layer 2 head 0 (0.02)" in said


def test_the_largest_changes_come_first_and_are_said_once(comparison: Comparison) -> None:
    shown = table(comparison_document(comparison, top=6), "Largest changes")
    assert shown.title == "Largest changes (6 of 48, 5 significant)"
    places = list(zip(column(shown, "layer"), column(shown, "head"), column(shown, "quantity"), strict=True))
    assert set(places[:5]) == {("2", str(head), "rcos") for head in range(4, 8)} | {("0", "3", "mean_distance")}
    sizes = [float(cell) for cell in column(shown, "in sd")]
    assert sizes[:5] == sorted(sizes[:5], reverse=True)
    assert [float(q) < 0.05 for q in column(shown, "q")] == [True] * 5 + [False]
    everything = table(comparison_document(comparison, top=None), "Largest changes")
    assert len(everything.rows) == 48


def test_quantities_and_layers_are_counted(comparison: Comparison) -> None:
    document = comparison_document(comparison)
    quantities = table(document, "Heads that changed")
    assert column(quantities, "quantity") == ["rcos", "rcos_excess", "mean_distance"]
    assert column(quantities, "rose") == ["4", "4", "0"]
    assert column(quantities, "fell") == ["0", "0", "1"]
    layers = table(document, "Layers")
    assert column(layers, "changed") == ["1", "0", "4"]
    assert column(layers, "drift JS") == ["0.0000", "0.0100", "0.0200"]
    assert column(layers, "Δ rcos")[2] == f"{comparison.layers['rcos_change'].tolist()[2]:+.3f}"


def test_drift_is_a_map(comparison: Comparison) -> None:
    grid = block(comparison_document(comparison), "Drift")
    assert isinstance(grid, Grid)
    assert grid.title == "Drift: share of a head's attention that moved"
    assert grid.rows == ("L0", "L1", "L2")
    assert grid.values[1] == pytest.approx(tuple(0.02 * head for head in range(8)))
    assert [grid.low, grid.high] == pytest.approx([0.0, 0.14])
    without = replace(comparison, drift=comparison.drift.assign(tv=float("nan")))
    grid = block(comparison_document(without), "Drift")
    assert isinstance(grid, Grid)
    assert grid.title == "Drift: JS between base and tuned in nats"
    assert "elsewhere" not in words(comparison_document(without))


def test_it_can_be_read_in_80_columns(comparison: Comparison) -> None:
    text = as_text(comparison_document(comparison), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for title in ("change", "q", "effect", "drift JS"):
        assert title in text


def test_a_model_against_itself_shows_no_change() -> None:
    base, _ = pair()
    still = drift().assign(js=1e-9, tv=0.0)
    document = comparison_document(compare_reports(base, base, still))
    assert words(document) == (
        "Nothing changed: every head has the same numbers in both models. The attention itself did not move."
    )
    assert [each.title for each in document if isinstance(each, Table | Grid)] == ["Layers"]
    assert as_text(document, 80)


def test_what_is_not_significant_is_not_called_a_change() -> None:
    base, tuned = (report({"rcos": drawn(seed)}, layers=2) for seed in (0, 1))
    document = comparison_document(compare_reports(base, tuned))
    assert words(document) == "No head changed significantly (q < 0.05) in any of 1 quantity over 20 sequences."
    assert table(document, "Largest changes").title == "Largest changes (0 significant)"


def test_stacks_of_one_model_are_told_apart(comparison: Comparison) -> None:
    layers = {site: "cross" if site == 2 else "decoder" for site in range(3)}
    kinds = renamed(comparison, lambda each: each.assign(kind=each["site"].map(layers)))
    document = comparison_document(kinds)
    assert "most in cross layer 2 (4 of 8)" in words(document)
    assert column(table(document, "Layers"), "kind") == ["decoder", "decoder", "cross"]
    assert [each.title for each in document if isinstance(each, Grid)] == [
        f"Drift: share of a head's attention that moved, {kind} attention" for kind in ("decoder", "cross")
    ]
    towers = renamed(comparison, lambda each: each.assign(tower=each["site"].map({0: "text", 1: "image", 2: ""})))
    assert column(table(comparison_document(towers), "Layers"), "kind") == [
        "text encoder", "image encoder", "model encoder"
    ]  # fmt: skip


def renamed(comparison: Comparison, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Comparison:
    return replace(
        comparison, heads=change(comparison.heads), layers=change(comparison.layers), drift=change(comparison.drift)
    )


def test_matched_heads_are_shown_with_their_partners(comparison: Comparison) -> None:
    heads = comparison.heads.assign(tuned_layer=1, tuned_head=comparison.heads["head"], js=0.1, p=np.nan, q=np.nan)
    heads.loc[heads["head"] == 3, "js"] = 0.3
    matched = replace(
        comparison, heads=heads.drop(columns=["mean_change", "sequences"]), drift=comparison.drift.head(0),
        layers=comparison.layers.head(0)[["site", "path"]],
    )  # fmt: skip
    document = comparison_document(matched, top=4)
    shown = table(document, "Matched heads")
    assert shown.rows[:2] == (("0", "3", "L1 H3", "0.3000"), ("1", "3", "L1 H3", "0.3000"))
    assert shown.title.endswith("4 of 24")
    assert "24 heads were matched" in words(document)


def test_notes_and_names_are_shown_as_they_are(comparison: Comparison) -> None:
    named = replace(comparison, tuned=replace(comparison.tuned, model="a|b <x>\x1b[1m"), notes=("one", "two"))
    text = as_text(comparison_document(named), 80)
    assert "\x1b" not in text
    assert "Note: one.\nNote: two." in text
    lines = markdown(comparison_document(named)).splitlines()
    assert lines[0] == "## a\\|b &lt;x&gt;\\\\x1b\\[1m against base · 24 heads in 3 attention layers · 20 sequences"
    assert lines[-3:] == ["Note: one.", "", "Note: two."]


def test_undefined_numbers_are_empty_cells(comparison: Comparison) -> None:
    heads = comparison.heads.copy()
    undefined = heads["metric"] == "rcos"
    heads.loc[undefined, ["base", "tuned", "change", "mean_change", "ci_low", "ci_high", "p", "q", "effect"]] = np.nan
    document = comparison_document(replace(comparison, heads=heads))
    assert "nan" not in as_text(document, 200)
    assert column(table(document, "Heads that changed"), "quantity") == ["rcos_excess", "mean_distance"]
