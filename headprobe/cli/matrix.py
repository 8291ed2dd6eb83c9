"""headprobe matrix"""

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headprobe.cli.options import OPTIONS, OUTPUT, accepting, scan_options
from headprobe.cli.show import check_output_options, first_look, progress, say
from headprobe.errors import UsageError, nearest

PAIR_METRICS = ("js", "cos", "bc", "kl", "cka", "cka_unbiased", "ocos", "ocos_centred")
MATRIX_OPTIONS = tuple(name for name in OPTIONS if name not in ("metrics", "pairs", "layers", "probe", "examples"))
MATRIX_OUTPUT = tuple(name for name in OUTPUT if name not in ("sort", "top"))


@accepting(*MATRIX_OPTIONS, *MATRIX_OUTPUT)
def matrix(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A hub name, a folder, or a saved report (.json).")],
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            "-m",
            help="js, cos, bc or kl of what heads look at; cka, cka_unbiased, ocos or ocos_centred of what they give.",
            rich_help_panel="Measurement",
            show_envvar=False,
        ),
    ] = "js",
    layer: Annotated[
        int | None,
        typer.Option(
            "--layer",
            "-l",
            help="One layer; without it the whole model.",
            rich_help_panel="Measurement",
            show_envvar=False,
        ),
    ] = None,
    tower: Annotated[
        str | None,
        typer.Option(
            "--tower",
            help="The part of the model, e.g. vision_model.encoder, where several have such a layer.",
            rich_help_panel="Measurement",
            show_envvar=False,
        ),
    ] = None,
    **options: Any,
) -> None:
    """Show how alike the heads of a layer, or of the whole model, are.

    Examples:

        headprobe matrix bert-base-uncased --layer 3

        headprobe matrix gpt2 --metric cos -o gpt2-cos.csv

        headprobe matrix out/report.json --layer 0 --metric kl
    """
    if metric not in PAIR_METRICS:
        raise UsageError("E-METRIC", f'no pair metric "{metric}"', nearest(metric, PAIR_METRICS))
    check_output_options({**options, "top": None})
    found, report = _matrix(model, metric, (layer, tower), options)
    for path in options["output"]:
        _write(Path(path), found, options)
    if options["format"] == "table":
        from headprobe.view.report import matrix_document
        from headprobe.view.terminal import console, show

        show(matrix_document(report, found, metric), console())
    else:
        from headprobe.write import csv_bytes, json_bytes

        table = _flat(found)
        content = csv_bytes(table) if options["format"] == "csv" else json_bytes(_document(table))
        sys.stdout.write(content.decode())


def _matrix(model: str, metric: str, place: tuple[int | None, str | None], options: dict[str, Any]) -> tuple[Any, Any]:
    layer, tower = place
    if model.endswith(".json") and Path(model).is_file():
        from headprobe.report import Report

        report = Report.load(model)
    else:
        first_look(model, options)
        with progress(options, model) as watch:
            from headprobe.pipeline import scan

            pairs, layers = ("model", None) if layer is None else ("layer", str(layer))
            report = scan(model, watch=watch, metrics=(metric,), pairs=pairs, layers=layers, **scan_options(options))
    return report.matrix(metric, layer=layer, kind=options["kind"], tower=tower), report


def _flat(matrix: Any) -> Any:
    """The matrix as a table with a name for every row and column."""
    labels = [f"site{site}.layer{layer}.head{head}" for site, layer, head in matrix.index]
    return matrix.set_axis(labels, axis=0).set_axis(labels, axis=1).rename_axis("head").reset_index()


def _document(table: Any) -> dict[str, Any]:
    values = table.drop(columns="head").to_numpy().tolist()
    return {"heads": table["head"].tolist(), "matrix": [[None if math.isnan(v) else v for v in row] for row in values]}


def _write(path: Path, matrix: Any, options: dict[str, Any]) -> None:
    from headprobe.write import json_bytes, write_table
    from headprobe.write.atomic import atomic_write

    if not path.suffix:
        raise UsageError("E-FORMAT", f"-o {path}: a matrix is one file", "Give it .csv, .parquet or .json.")
    table = _flat(matrix)
    if path.suffix == ".json":
        atomic_write(path, json_bytes(_document(table)))
    else:
        write_table(path, table)
    say(f"wrote {path}", options)
