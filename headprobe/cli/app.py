"""The program: its commands, and the options that belong to all of them."""

from pathlib import Path
from typing import Annotated

import typer

from headprobe import __version__
from headprobe.cli.audit import audit
from headprobe.cli.bench import bench
from headprobe.cli.compare import compare
from headprobe.cli.inspect import inspect
from headprobe.cli.matrix import matrix
from headprobe.cli.metrics import metrics
from headprobe.cli.options import OPTIONS, OUTPUT
from headprobe.cli.plot import plot
from headprobe.cli.report import report
from headprobe.cli.scan import scan
from headprobe.settings import discover

LISTS = {"text", "metrics", "output"}  # of which a file may also name just one

app = typer.Typer(
    name="headprobe",
    help="What the attention heads of a checkpoint do, and which of them repeat each other.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "HEADPROBE",
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
)
for command in (scan, compare, audit, report, plot, matrix, inspect, metrics, bench):
    app.command(name=command.__name__)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headprobe {__version__}")
        raise typer.Exit()


@app.callback(
    invoke_without_command=True,
    epilog="Exit codes: 0 done, 1 findings, 2 wrong usage, 3 input, 4 environment, 5 refused for safety, 70 a bug.",
)
def _program(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            help="Print the version and stop.",
            show_envvar=False,
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", show_envvar=False)] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return
    values, _ = discover(Path.cwd(), {*OPTIONS, *OUTPUT})
    values = {name.replace("-", "_"): value for name, value in values.items()}
    for name in LISTS & set(values):
        values[name] = values[name] if isinstance(values[name], list) else [values[name]]
    commands = ("scan", "compare", "audit", "matrix", "inspect")
    context.default_map = dict.fromkeys(commands, values)
