"""What a model has beyond a null model, by layer."""

import math

import pandas as pd

from headprobe.report import Report
from headprobe.view.document import Block, Paragraph, Table, TableColumn
from headprobe.view.places import stacks

ABOUT = {
    "random-init": "the same architecture with fresh weights",
    "random-tokens": "the model itself on random tokens",
    "shuffled": "the model itself on its texts in random order",
}
MOST_Z = 100  # beyond which it only says that the draws are much alike
SHOWN = {"rcos": "rcos", "js_mean": "JS", "effective_heads": "eff. heads"}


def null_blocks(report: Report) -> list[Block]:
    """A sentence, and a table of layers: measured, the null model's mean, and the excess in its standard deviations."""
    null = str(report.provenance.options.get("null"))
    runs = int(report.null_layers["run"].nunique())
    mine, draws = _by_layer(report.heads, report.layers), _by_run(report)
    names = [name for name in SHOWN if name in mine and name in draws]
    kinds = stacks(report)
    several = kinds.nunique() > 1
    columns = [*[TableColumn("kind", text=True)] * several, TableColumn("layer")]
    for name in names:
        columns += [TableColumn(SHOWN[name]), TableColumn("null"), TableColumn("excess"), TableColumn("z", rank=1)]
    rows = []
    for row in mine.reset_index().to_dict("records"):
        cells = [*[str(kinds[row["site"]])] * several, str(row["layer"])]
        for name in names:
            drawn = draws.loc[draws.index.get_level_values("site") == row["site"], name]
            excess = row[name] - drawn.mean()
            spread = drawn.std() if runs > 1 else math.nan
            cells += [_cell(row[name]), _cell(drawn.mean()), _cell(excess, "+.3f"), _z(excess, spread)]
        rows.append(tuple(cells))
    draws_of = f"{runs} draws" if runs > 1 else "one draw"
    text = (
        f"The null model is {ABOUT.get(null, null)} ({draws_of}). What a layer has in common with it says nothing of"
        " what was learned."
    )
    return [Paragraph(text), Table(f"Excess over the null model ({null})", tuple(columns), tuple(rows))]


def _by_layer(heads: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """[(kind, layer, site)]: what is shown, the mean over the heads where it is of heads."""
    found = layers.set_index(["kind", "layer", "site"])
    if "rcos" in heads:
        found = found.assign(rcos=heads.groupby(["kind", "layer", "site"])["rcos"].mean())
    return found


def _by_run(report: Report) -> pd.DataFrame:
    runs = []
    for run, layers in report.null_layers.groupby("run"):
        heads = report.null_heads[report.null_heads["run"] == run]
        runs.append(_by_layer(heads, layers))
    return pd.concat(runs)


def _cell(value: float, form: str = ".3f") -> str:
    return "" if math.isnan(value) else format(value, form)


def _z(excess: float, spread: float) -> str:
    if math.isnan(spread) or math.isnan(excess) or spread < 1e-9:
        return ""
    z = excess / spread
    return f"{z:+.1f}" if abs(z) < MOST_Z else f"{'<-' if z < 0 else '>'}{MOST_Z}"
