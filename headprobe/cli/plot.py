"""headprobe plot"""

from pathlib import Path
from typing import Annotated, Any

import typer

from headprobe.cli.options import accepting, written
from headprobe.cli.show import check_are_files, check_output_options, say
from headprobe.errors import UsageError, nearest

KINDS = ("heatmap", "matrix", "dendrogram", "map", "compare")
IN_WORDS = ("heatmap", "matrix")  # what can be shown in a terminal
WITHOUT = {  # options that a kind has no use for, and why
    ("heatmap", "part"): "It shows all heads.", ("compare", "part"): "It shows all heads.",
    ("dendrogram", "metric"): "A tree is made of js.", ("map", "metric"): "A map is made of js.",
}  # fmt: skip
PICTURES = (".png", ".svg", ".pdf")
Option = typer.Option


@accepting("quiet")
def plot(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="heatmap, matrix, dendrogram, map or compare.")],
    result: Annotated[
        str, typer.Argument(metavar="REPORT", help="What scan or compare saved: a .json file or a folder.")
    ],
    metric: Annotated[
        str | None,
        Option("--metric", "-m", help="What to show: a column of heads, or of pairs for a matrix.", show_envvar=False),
    ] = None,
    part: Annotated[
        str | None,
        Option("--part", "-p", help='Which heads, like "layer 3"; default: all that were compared.', show_envvar=False),
    ] = None,
    output: Annotated[list[str] | None, written("Write .png, .svg or .pdf. Repeatable.")] = None,
    **options: Any,
) -> None:
    """Draw a saved result for a paper or a slide. Without -o heat maps are shown here.

    Needs matplotlib: pip install "headprobe[plot]".

    Examples:

        headprobe plot heatmap report.json --metric entropy_norm -o entropy.pdf

        headprobe plot matrix report.json --part "layer 3" -o layer3.png

        headprobe plot compare changes.json --metric rcos -o rcos.svg
    """  # fmt: skip
    if kind not in KINDS:
        raise UsageError("E-PLOT", f'no plot "{kind}"', nearest(kind, KINDS))
    for name, value in (("metric", metric), ("part", part)):
        if value is not None and (kind, name) in WITHOUT:
            raise UsageError("E-OPTION", f"a {kind} has no --{name}", WITHOUT[kind, name])
    _check(kind, output or [])
    paths = [Path(name) for name in output or ()]
    from headprobe.view.saved import load_result, page_of

    found = load_result(result)
    document = page_of(found)
    if not paths:
        _show(kind, document, metric, part)
        return
    from headprobe.view.plots import file_bytes
    from headprobe.write.atomic import atomic_write

    figure = _drawn(kind, found, document, metric, part)
    for path in paths:
        atomic_write(path, file_bytes(figure, path.suffix))
        say(f"wrote {path}", options)


def _check(kind: str, output: list[str]) -> None:
    """Refuse what is wrong before any work is done."""
    from headprobe.view.plots import need_matplotlib

    check_output_options({"top": None, "output": output}, formats=(), suffixes=PICTURES)
    check_are_files(output, "plot", PICTURES)
    if output:
        need_matplotlib()
    elif kind not in IN_WORDS:
        raise UsageError("E-OUTPUT", f"a {kind} is a picture", "Say where: -o plot.png, .svg or .pdf.")


def _drawn(kind: str, found: Any, document: Any, metric: str | None, part: str | None) -> Any:
    from headprobe.comparison import Comparison
    from headprobe.view import plots

    if kind == "compare":
        if not isinstance(found, Comparison):
            raise UsageError(
                "E-PLOT", "only a comparison can be plotted so", "Make one: headprobe compare ... -o x.json"
            )
        return plots.changes(found, document, metric)
    if kind == "heatmap":
        return plots.heatmap(document, metric)
    if kind == "matrix":
        return plots.matrix(document, metric, part)
    return plots.dendrogram(document, part) if kind == "dendrogram" else plots.head_map(document, part)


def _show(kind: str, document: Any, metric: str | None, part: str | None) -> None:
    from headprobe.view.plots import shown_here
    from headprobe.view.terminal import console, show

    show(shown_here(kind, document, metric, part), console())
