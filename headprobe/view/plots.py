"""Pictures as files, for papers and slides: heat maps, matrices, trees, maps of heads, and what fine-tuning changed."""

import io
import warnings
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
from numpy.typing import NDArray

from headprobe.comparison import Comparison
from headprobe.errors import EnvironmentFailure, UsageError, nearest, printable
from headprobe.grouping import scaled
from headprobe.view.changes import SIGNIFICANT, matched
from headprobe.view.document import Document, Heading, Heads, Measure, Similarities, Similarity
from headprobe.view.labels import name_points
from headprobe.view.plain import grids, matrix_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
DOTS = 200  # an inch, of a picture made of dots
CELL = 0.34  # inches
MOST_NUMBERS = 20  # columns: numbers don't fit into the cells of a wider map
MOST_LABELS = 80  # heads of a matrix or a tree
LABEL = 0.13  # inches
MOST_NAMED = 8  # heads that changed
MANY = 150  # heads, from which on lines are thin
STYLE: Any = {  # whose type is a list of every setting that there is
    "font.size": 8, "axes.titlesize": 9, "axes.linewidth": 0.6, "svg.fonttype": "path", "svg.hashsalt": "headprobe",
    "pdf.fonttype": 42, "axes.spines.top": False, "axes.spines.right": False,
}  # fmt: skip
PAIRS_HINT = "Give a scan that has js of pairs (--pairs layer or model), or plot another kind."
HEADS_HINT = "Give a scan or a comparison: an audit has none."
QUANTITIES = {
    "js": "JS in nats", "cos": "cosine", "bc": "Bhattacharyya coefficient", "cka": "linear CKA of outputs",
    "cka_unbiased": "unbiased linear CKA of outputs", "ocos": "cosine of what is written",
    "ocos_centred": "cosine of what is written, centred",
}  # fmt: skip


def need_matplotlib() -> None:
    """Raise `EnvironmentFailure` where there is no matplotlib."""
    if find_spec("matplotlib") is None:
        raise EnvironmentFailure(
            "E-PACKAGE", 'plots need the package "matplotlib"', 'Run: pip install "headprobe[plot]"'
        )


def styled(draw: Callable[P, "Figure"]) -> Callable[P, "Figure"]:
    """`draw` with our sizes of letters and lines, whatever this machine's own settings are."""

    @wraps(draw)
    def drawn(*arguments: P.args, **named: P.kwargs) -> "Figure":
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            return draw(*arguments, **named)

    return drawn


@styled
def heatmap(page: Document, name: str | None) -> "Figure":
    """Layers × heads of a measure, the page's first one by default; `UsageError` for one that it lacks."""
    heads = _block(page, Heads, "measures of heads", HEADS_HINT)
    chosen = find_measure(heads, name)
    found = grids(heads, chosen)
    rows = sum(len(grid.rows) for grid in found)
    columns = max(len(grid.columns) for grid in found)
    figure = _figure(1.4 + CELL * columns, 0.9 + 0.5 * len(found) + CELL * 0.72 * rows)
    parts = figure.subplots(len(found), 1, squeeze=False, height_ratios=[len(grid.rows) for grid in found])[:, 0]
    shown = None
    for axes, grid in zip(parts, found, strict=True):
        values = np.array([[np.nan if value is None else value for value in row] for row in grid.values])
        shown = axes.imshow(
            values, vmin=chosen.low, vmax=chosen.high, cmap="PuOr_r" if chosen.signed else "viridis", aspect="auto"
        )
        _cells(axes, grid.rows, grid.columns)
        if len(grid.columns) <= MOST_NUMBERS:
            _numbers(axes, values, chosen, shown)
        _title(axes, grid.title.replace(f"{chosen.name} of every head, ", "") if len(found) > 1 else "")
    assert shown is not None
    bar = figure.colorbar(shown, ax=list(parts), fraction=0.04, pad=0.02, aspect=40)
    bar.set_label(printable(chosen.name + (f" in {chosen.unit}" if chosen.unit else "")), parse_math=False)
    _heading(figure, page)
    return figure


@styled
def matrix(page: Document, name: str | None, title: str | None) -> "Figure":
    """How alike heads are, in the order of their tree, which stands above."""
    found = _similarity(page, title)
    name = _quantity(found, name)
    labels = [place.short for place in found.places]
    few = len(labels) <= MOST_LABELS
    side = max(3.2, LABEL * len(labels)) if few else 6.5
    figure = _figure(side + 1.3, side + 1.2)
    tree, picture = figure.subplots(2, 1, height_ratios=[1, 7])
    _tree(tree, found, labels=None)
    tree.set_axis_off()
    low, high = -1.0 if name in found.signed else 0.0, float(np.log(2)) if name in found.distances else 1.0
    cmap = "viridis_r" if name in found.distances else "PuOr_r" if name in found.signed else "viridis"
    shown = picture.imshow(found.matrices[name], vmin=low, vmax=high, cmap=cmap, aspect="auto")
    picture.set_xticks([])
    picture.set_yticks(range(len(labels)) if few else [], labels if few else [], fontsize=6)
    figure.colorbar(shown, cax=picture.inset_axes((1.02, 0, 0.03, 1)), label=QUANTITIES.get(name, name))
    _heading(figure, page, found.title)
    return figure


@styled
def dendrogram(page: Document, title: str | None) -> "Figure":
    """The tree of heads, whose heights are distances √JS."""
    found = _similarity(page, title)
    labels = [place.short for place in found.places]
    width = LABEL * len(labels) + 0.8 if len(labels) <= 2 * MOST_LABELS else 12.0
    figure = _figure(max(4.0, width), 3.2)
    axes = figure.subplots()
    _tree(axes, found, labels=labels)
    axes.set_ylabel("distance √JS")
    _heading(figure, page, found.title)
    return figure


@styled
def head_map(page: Document, title: str | None) -> "Figure":
    """Heads as points: the nearer two of them, the more alike they attend. By classical scaling of √JS."""
    found = _similarity(page, title)
    if len(found.places) < 3:
        raise UsageError("E-PLOT", f"{len(found.places)} heads make no map", "Choose more layers.")
    places, kept = scaled(np.sqrt(np.clip(found.matrices["js"], 0, None)))
    layers = np.array([place.layer for place in found.places])
    figure = _figure(5.4, 4.6)
    axes = figure.subplots()
    shown = axes.scatter(places[:, 0], places[:, 1], c=layers, cmap="viridis", s=26, linewidths=0.4, edgecolors="k")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[], xlabel=f"the two widest axes, with {100 * kept:.0f} % of the spread")
    _layers(figure, axes, shown)
    _heading(figure, page, found.title)
    name_points(figure, axes, places, [place.short for place in found.places])
    return figure


@styled
def changes(comparison: Comparison, page: Document, name: str | None) -> "Figure":
    """A quantity of every head in both models; what is filled is more than chance (of matched heads nothing is)."""
    metrics = list(dict.fromkeys(comparison.heads["metric"]))
    name = name or next((each for each in ("rcos", "js_mean", "entropy_norm") if each in metrics), str(metrics[0]))
    if name not in metrics:
        raise UsageError("E-METRIC", f'no change of "{name}"', nearest(name, map(str, metrics)))
    rows = comparison.heads[comparison.heads["metric"] == name]
    figure = _figure(4.6, 4.2)
    axes = figure.subplots()
    sure = (rows["q"] < SIGNIFICANT).to_numpy()
    base, tuned, layer = (rows[column].to_numpy(dtype=float) for column in ("base", "tuned", "layer"))
    ends = [float(np.nanmin([base, tuned])), float(np.nanmax([base, tuned]))]
    axes.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
    shown = axes.scatter(base, tuned, c=layer, cmap="viridis", s=0)  # the scale of colours
    colours = np.array(shown.to_rgba(layer))
    axes.scatter(base[sure], tuned[sure], c=colours[sure], s=22, linewidths=0.4, edgecolors="k")
    axes.scatter(
        base[~sure],
        tuned[~sure],
        s=22,
        linewidths=0.9,
        edgecolors=[tuple(colour) for colour in colours[~sure].tolist()],
        facecolors="none",
    )
    axes.set_xlabel(f"{name} in the base")
    axes.set_ylabel(f"{name} in the tuned model")
    _layers(figure, axes, shown)
    chance = f"filled: changed by more than chance (q < {SIGNIFICANT})"
    _heading(figure, page, "heads beside those that they are matched with" if matched(comparison) else chance)
    most = np.argsort(-np.where(sure, np.abs(tuned - base), -1), kind="stable")[: min(MOST_NAMED, int(sure.sum()))]
    heads = [f"L{row['layer']} H{row['head']}" for row in rows.iloc[most].to_dict("records")]
    name_points(figure, axes, np.stack([base, tuned], axis=1), heads, most)
    return figure


def shown_here(kind: str, page: Document, name: str | None, title: str | None) -> Document:
    """A heatmap or a matrix as numbers, for a terminal."""
    if kind == "heatmap":
        heads = _block(page, Heads, "measures of heads", HEADS_HINT)
        return tuple(grids(heads, find_measure(heads, name)))
    found = _similarity(page, title)
    return (matrix_grid(found, _quantity(found, name)),)


def file_bytes(figure: "Figure", suffix: str) -> bytes:
    """The picture as a `.png`, `.svg` or `.pdf`; the same for the same numbers."""
    import matplotlib

    buffer = io.BytesIO()
    undated: dict[str, Any] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix, {})
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that no font here has
        figure.savefig(buffer, format=suffix[1:], dpi=DOTS, metadata=undated, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def find_measure(heads: Heads, name: str | None) -> Measure:
    """A measure by name, the first one by default; `UsageError` for one that is not there."""
    by_name = {measure.name: measure for measure in heads.measures}
    if name is not None and name not in by_name and f"Δ {name}" in by_name:
        name = f"Δ {name}"
    if name is not None and name not in by_name:
        raise UsageError("E-METRIC", f'no measure "{name}" of heads', nearest(name, by_name))
    return by_name[name] if name else heads.measures[0]


# --- parts of pictures ------------------------------------------------------------------------------------------


def _block(page: Document, kind: type[Any], what: str, hint: str) -> Any:
    found = next((block for block in page if isinstance(block, kind)), None)
    if found is None:
        raise UsageError("E-PLOT", f"there are no {what} to plot", hint)
    return found


def _similarity(page: Document, title: str | None) -> Similarity:
    choices: tuple[Similarity, ...] = _block(page, Similarities, "pairs of heads", PAIRS_HINT).choices
    by_title = {choice.title.lower(): choice for choice in choices}
    if title is not None and title.lower() not in by_title:
        raise UsageError("E-LAYERS", f'no heads of "{title}" were compared', nearest(title.lower(), by_title))
    return by_title[title.lower()] if title else choices[0]


def _quantity(found: Similarity, name: str | None) -> str:
    if name is not None and name not in found.matrices:
        raise UsageError("E-METRIC", f'no matrix of "{name}"', nearest(name, found.matrices))
    return name or next(iter(found.matrices))


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(min(width, 40), min(height, 40)), layout="constrained")


def _heading(figure: "Figure", page: Document, more: str = "") -> None:
    """The model's name as it is: a dollar sign in it begins no formula."""
    title = next((block.text for block in page if isinstance(block, Heading)), "")
    text = printable(title)[:80] + (f"\n{printable(more)}" if more else "")
    figure.suptitle(text, fontsize=9, parse_math=False)


def _title(axes: "Axes", text: str) -> None:
    if text:
        axes.set_title(printable(text), loc="left", fontsize=8, parse_math=False)


def _cells(axes: "Axes", rows: tuple[str, ...], columns: tuple[str, ...]) -> None:
    every = 1 if len(columns) <= 32 else 4
    axes.set_xticks(range(0, len(columns), every), columns[::every], fontsize=6)
    axes.set_yticks(range(len(rows)), rows, fontsize=6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _numbers(axes: "Axes", values: NDArray[np.float64], measure: Measure, shown: Any) -> None:
    from headprobe.view.html.heads import in_cell

    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            red, green, blue, _ = shown.cmap(shown.norm(value))
            light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
            axes.text(
                column, row, in_cell(float(value), measure), ha="center", va="center", fontsize=5,
                color="k" if light else "w",
            )  # fmt: skip


def _tree(axes: "Axes", found: Similarity, labels: list[str] | None) -> None:
    from scipy.cluster.hierarchy import dendrogram as drawn

    paths = drawn(found.merges, no_plot=True)
    for x, y in zip(paths["icoord"], paths["dcoord"], strict=True):
        axes.plot((np.array(x) - 5) / 10, y, color="0.25", linewidth=0.6 if len(found.places) < MANY else 0.25)
    axes.set_xlim(-0.5, len(found.places) - 0.5)
    axes.set_ylim(bottom=0)
    shown = labels is not None and len(labels) <= 2 * MOST_LABELS
    axes.set_xticks(range(len(labels or [])) if shown else [], labels if shown else [], rotation=90, fontsize=5)


def _layers(figure: "Figure", axes: "Axes", shown: Any) -> None:
    """The scale of layers: whole numbers."""
    from matplotlib.ticker import MaxNLocator

    figure.colorbar(shown, ax=axes, aspect=40, pad=0.02, label="layer", ticks=MaxNLocator(integer=True))
