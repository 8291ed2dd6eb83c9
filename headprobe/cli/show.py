"""What commands have in common when they show something."""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headprobe.cli.options import scan_options
from headprobe.errors import UsageError, nearest, printable
from headprobe.metrics import installed
from headprobe.settings import ScanOptions

TOP_ON_A_TERMINAL = 20
SUFFIXES = (".json", ".csv", ".parquet")  # of files of data
HEAD_NAMES = ("site", "path", "kind", "layer", "head", "kv_group", "sequences", "queries")
NEAREST = ("nearest_layer", "nearest_head", "nearest_js")


def check_output_options(
    options: dict[str, Any],
    formats: tuple[str, ...] = ("table", "json", "csv"),
    suffixes: tuple[str, ...] = SUFFIXES,
) -> None:
    """Refuse wrong output options before any work is done."""
    from headprobe.write import check_output

    if formats and options["format"] not in formats:
        raise UsageError(
            "E-FORMAT", f'--format "{options["format"]}" is not known', nearest(options["format"], formats)
        )
    if options["top"] is not None and options["top"] < 0:
        raise UsageError("E-OPTION", f"--top {options['top']} is too small", "Give 1 or more, or 0 for all.")
    for path in options["output"]:
        if path in ("", "-"):
            hint = f"For standard output there is --format {' or '.join(formats[1:])}." if formats else "Name a file."
            raise UsageError("E-OUTPUT", f'-o "{path}" is no path', hint)
        check_output(Path(path), suffixes)


def check_are_files(paths: Iterable[str | Path], what: str, suffixes: tuple[str, ...]) -> None:
    """Refuse a path without a suffix, which would be a folder, where a page or a plot is one file."""
    for path in map(Path, paths):
        if not path.suffix:
            known = f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"
            raise UsageError("E-FORMAT", f"-o {path}: a {what} is one file", f"Give it {known}.")


def is_report(name: str) -> bool:
    """True for a saved report: a .json file, or the folder of one."""
    path = Path(name)
    return path.is_file() if path.suffix == ".json" else (path / "report.json").is_file()


def first_look(model: str, options: dict[str, Any]) -> None:
    """Refuse in a moment what needs no torch to be seen: wrong options, unknown metrics, a local folder's files."""
    from headprobe.load import layout
    from headprobe.load.hub import local_path
    from headprobe.metrics import select

    chosen = ScanOptions.of(**scan_options(options))
    _, columns = select(chosen.metrics)
    _check_sort(options.get("sort"), columns)
    path = local_path(model)
    if path is not None:
        layout.first_look(path, chosen)


def _check_sort(sort: str | None, columns: frozenset[str]) -> None:
    known = {*HEAD_NAMES, *(c.name for m in installed().values() for c in m.columns if c.level == "head")}
    known = {name for name in known if name in columns or name in HEAD_NAMES} | {"dropped_mass"}
    known |= set(NEAREST) if "js" in columns else set()
    if sort is not None and sort not in known:
        raise UsageError("E-SORT", f'no column "{sort}" to sort by', nearest(sort, known))


def top(options: dict[str, Any]) -> int | None:
    """How many rows of a long table to show: all (None) where nobody has to scroll."""
    if options["top"] is None:
        return TOP_ON_A_TERMINAL if sys.stdout.isatty() else None
    return options["top"] or None


def say(text: str, options: dict[str, Any]) -> None:
    """A message for the person at the terminal."""
    if not options["quiet"]:
        print(printable(f"headprobe: {text}"), file=sys.stderr)


@contextmanager
def progress(options: dict[str, Any], model: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on standard error, if that is a terminal; the libraries' warnings only if asked for."""
    with warnings.catch_warnings():
        if not options["verbose"]:
            warnings.simplefilter("ignore")
        if options["quiet"] or options["no_progress"] or not sys.stderr.isatty():
            yield lambda done, total: None
            return
        with _bar(model) as watch:
            yield watch


@contextmanager
def _bar(model: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"loading {printable(model)}", total=None)

        def watch(done: int, total: int) -> None:
            bar.update(task, description="sequences", completed=done, total=total or None)

        yield watch
