"""A document on a terminal, or as plain text where there is none."""

import os
import sys
from typing import TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from headprobe.errors import printable
from headprobe.view.colours import VIRIDIS
from headprobe.view.document import Document, Grid, Heading, Paragraph, Simple, Table
from headprobe.view.plain import plain

UNLIMITED = 10_000
GAP = 2  # between columns


def console(stream: TextIO | None = None, *, width: int | None = None) -> Console:
    """A console for `stream` (standard output by default).

    What is no terminal gets all the width it needs, so that nothing is cut, and no colour unless FORCE_COLOR asks.
    """
    stream = stream or sys.stdout
    if width is None and not stream.isatty():
        width = int(os.environ["COLUMNS"]) if os.environ.get("COLUMNS", "").isdigit() else UNLIMITED
    return _Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


class _Console(Console):
    """Rich leaves the program when its reader goes away; how to leave is the command line's to say."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def show(document: Document, target: Console) -> None:
    """Print a document."""
    for i, block in enumerate(plain(document)):
        if i:
            target.print()
        target.print(lower(block, target), crop=False)


def lower(block: Simple, target: Console) -> RenderableType:
    """One block as something that Rich prints. Strings become Text, which is never read as markup."""
    match block:
        case Heading(text):
            return Text(printable(text), style="bold")
        case Paragraph(text):
            return Text("\n").join(Text(printable(line)) for line in text.split("\n"))
        case Table():
            return _table(block, target)
        case Grid():
            return _grid(block, target)


def _table(table: Table, target: Console) -> RenderableType:
    shown = _fitting(table, target.width)
    widths = _widths(table)
    needed = sum(widths[index] + GAP for index in shown) - GAP
    rich = RichTable(
        box=_box(target), pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1, 0, 0),
        width=needed if needed > target.width else None,  # wider than the terminal rather than with cut numbers
    )  # fmt: skip
    for index in shown:
        column = table.columns[index]
        rich.add_column(Text(column.title), justify="left" if column.text else "right", no_wrap=True)
    for row in table.rows:
        rich.add_row(*(Text(printable(row[index])) for index in shown))
    return Group(Text(printable(table.title), style="bold"), rich)


def _fitting(table: Table, width: int) -> list[int]:
    """The columns that fit side by side, least important left out first, in their order."""
    widths = [width + GAP for width in _widths(table)]
    shown: list[int] = []
    for i in sorted(range(len(widths)), key=lambda i: (table.columns[i].rank, i)):
        if table.columns[i].rank and sum(widths[j] for j in shown) + widths[i] > width:
            break
        shown.append(i)
    return sorted(shown)


def _widths(table: Table) -> list[int]:
    return [
        max([cell_len(column.title), *(cell_len(printable(row[i])) for row in table.rows)])
        for i, column in enumerate(table.columns)
    ]


def _box(target: Console) -> box.Box:
    return box.SIMPLE_HEAD if target.encoding.startswith("utf") else box.ASCII2


def _grid(grid: Grid, target: Console) -> RenderableType:
    """A heat map: the number in every cell, as many digits as fit, on a colour where there is colour."""
    margin = max([cell_len(label) for label in grid.rows], default=0) + 1
    width = _cell_width(grid, (target.width - margin) // max(1, len(grid.columns)))
    lines = [_labels(grid.columns, margin, width)]
    for label, row in zip(grid.rows, grid.values, strict=True):
        line = Text(printable(label).ljust(margin))
        for value in row:
            line.append(_digits(value, width, grid).rjust(width), style=_style(value, grid.low, grid.high))
        lines.append(line)
    scale = Text("scale ")
    for i, colour in enumerate(VIRIDIS):
        value = grid.low + (grid.high - grid.low) * i / (len(VIRIDIS) - 1)
        scale.append(f" {value:.2f} ", style=f"{_ink(i)} on {colour}")
    if width == 1:
        span = f"of {grid.high:.2f}" if grid.low >= 0 else f"of the way from {grid.low:.2f} to {grid.high:.2f}"
        lines.append(Text(f"\nA digit is a value in tenths {span}."))
    return Group(Text(printable(grid.title), style="bold"), *lines, Text(), scale)


def _labels(labels: tuple[str, ...], margin: int, width: int) -> Text:
    """As many labels as have room beside each other, each ending where its column does."""
    every = -(-(max(map(len, labels), default=0) + 1) // width)
    line = ""
    for i, label in enumerate(labels):
        if i % every == 0:
            line += label.rjust(margin + width * (i + 1) - len(line))
    return Text(line)


def _cell_width(grid: Grid, room: int) -> int:
    """The widest cell that is of use and fits: every number in it with a gap before it, else 1 for a digit a cell."""
    values = [value for row in grid.values for value in row if value is not None]
    widest = 1 + max((len(f"{value:.2f}") for value in values), default=1)
    for width in range(min(widest, room), 2, -1):
        shares = grid.low >= 0 and grid.high <= 1  # of which two characters tell enough
        if (shares or width > 3) and all(len(_number(value, width)) < width for value in values):
            return width
    return 1


def _number(value: float, width: int) -> str:
    """With as many of two decimals as leave a gap in a cell so wide: 0.97, .97, 1.0 or 12."""
    forms = [f"{value:.{decimals}f}" for decimals in (2, 1, 0)]
    bare = [form.replace("0.", ".") if abs(value) < 1 else form for form in forms]
    return next((form for pair in zip(forms, bare, strict=True) for form in pair if len(form) < width), forms[-1])


def _digits(value: float | None, width: int, grid: Grid) -> str:
    """A number for a cell so wide, or its share of the scale as one digit."""
    if value is None:
        return "·"
    if width > 1:
        return _number(value, width)
    low = min(0.0, grid.low)
    return str(min(9, round(10 * (value - low) / (grid.high - low)))) if grid.high > low else "0"


def _style(value: float | None, low: float, high: float) -> str:
    if value is None or high <= low:
        return ""
    step = round((len(VIRIDIS) - 1) * min(1.0, max(0.0, (value - low) / (high - low))))
    return f"{_ink(step)} on {VIRIDIS[step]}"


def _ink(step: int) -> str:
    return "white" if step < 5 else "black"
