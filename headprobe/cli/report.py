"""headprobe report"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headprobe.cli.options import accepting, written
from headprobe.cli.show import check_are_files, check_output_options, say, top
from headprobe.errors import UsageError

FORMATS = ("table", "markdown", "html")
PAGES = (".html", ".md")
Option = typer.Option


@accepting("sort", "top", "quiet")
def report(
    results: Annotated[
        list[str],
        typer.Argument(metavar="REPORT", help="What scan, compare or audit saved: a .json file or a folder."),
    ],
    output: Annotated[list[str] | None, written("Write .html (a page) or .md. Repeatable.", "Output")] = None,
    format: Annotated[  # noqa: A002  # the option's name
        str,
        Option(
            "--format",
            "-f",
            help="On standard output: table, markdown or html.",
            rich_help_panel="Output",
            show_envvar=False,
        ),
    ] = "table",
    examples: Annotated[
        bool,
        Option(
            "--examples/--no-examples",
            help="Leave out texts that a saved report holds.",
            rich_help_panel="Output",
            show_envvar=False,
            show_default=False,
        ),
    ] = True,
    **options: Any,
) -> None:
    """Show saved results again: here, as Markdown, or as one HTML page that needs no network.

    Several are shown one after the other. Loads no model.

    Examples:

        headprobe report report.json -o report.html

        headprobe report base.json changes.json audit.json -o release.html

        headprobe report report.json --format markdown >> "$GITHUB_STEP_SUMMARY"
    """
    options = {**options, "output": output or (), "format": format}
    check_output_options(options, FORMATS, PAGES)
    check_are_files(options["output"], "page", PAGES)
    from headprobe.report import Report
    from headprobe.view.saved import load_result, page_bytes, page_of
    from headprobe.write.atomic import atomic_write

    found = [load_result(name, examples=examples) for name in results]
    if options["sort"] is not None and not any(isinstance(each, Report) for each in found):
        raise UsageError("E-SORT", "nothing here has a table to sort", "Heads are sorted where a scan is shown.")
    whole = [page_of(each, sort=options["sort"], top=options["top"] or None) for each in found]
    for name in options["output"]:
        atomic_write(Path(name), page_bytes(Path(name).suffix, whole))
        say(f"wrote {name}", options)
    if options["format"] != "table":
        suffix = ".md" if options["format"] == "markdown" else ".html"
        sys.stdout.write(page_bytes(suffix, whole).decode())
    elif not options["output"]:
        _show([page_of(each, sort=options["sort"], top=top(options)) for each in found])


def _show(documents: list[Any]) -> None:
    from headprobe.view.terminal import console, show

    for i, document in enumerate(documents):
        if i:
            sys.stdout.write("\n")
        show(document, console())


def save_page(result: Any, path: Path) -> None:
    """Write a report, comparison or audit as `.html` or `.md`, whole or not at all."""
    from headprobe.view.saved import page_bytes, page_of
    from headprobe.write.atomic import atomic_write

    atomic_write(path, page_bytes(path.suffix, [page_of(result)]))
