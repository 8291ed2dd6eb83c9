"""Blocks of a document as what the templates fill in: pictures drawn, colours chosen, data packed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headprobe.errors import printable
from headprobe.view.colours import SEQUENTIAL, SIGNED, STEPS, step
from headprobe.view.document import (
    Block,
    Document,
    Examples,
    Facts,
    Grid,
    Heading,
    Heads,
    Paragraph,
    Section,
    Similarities,
    Summary,
    Table,
    TableColumn,
)
from headprobe.view.html.examples import examples_part
from headprobe.view.html.heads import heads_data, heads_part
from headprobe.view.html.matrix import matrix_data, matrix_part
from headprobe.view.html.widths import width_class

Part = dict[str, Any]
PAPER = 4  # columns of this rank and above find no room on paper
WIDE = 12  # columns that paper has room for in letters of the usual size
LONG = 24  # characters of a cell


@dataclass(frozen=True)
class Shown:
    """A section of an article: what is in its heading, and its parts."""

    name: str
    title: str
    short: str
    about: str
    parts: list[Part]


@dataclass(frozen=True)
class Article:
    """A document on the page. `prefix` keeps its names apart from those of others; `data` is for the script."""

    name: str
    title: str
    prefix: str
    lead: list[Part]
    sections: list[Shown] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


def article(document: Document, prefix: str) -> Article:
    """A document as parts in sections; what comes before the first section is the lead."""
    title = next((block.text for block in document if isinstance(block, Heading)), "")
    made = Article(f"{prefix}top", title, prefix, [])
    rows = {prefix + name for block in document if isinstance(block, Table) for name in block.names}
    titled = False
    for block in document:
        if isinstance(block, Section):
            made.sections.append(Shown(prefix + block.name, block.title, block.short or block.title, block.about, []))
        elif isinstance(block, Heading) and not titled:
            titled = True
        else:
            (made.sections[-1].parts if made.sections else made.lead).append({**_part(block, prefix), "named": rows})
    made.data.update(_visible(dict(_data(document, prefix))))
    return made


def _visible(value: Any) -> Any:
    """The script's data, every text in it on one line with nothing invisible in it."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): _visible(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_visible(each) for each in value]
    return value


def _data(document: Document, prefix: str) -> Iterator[tuple[str, Any]]:
    yield "prefix", prefix
    heads = next((block for block in document if isinstance(block, Heads)), None)
    if heads is not None:
        yield "heads", heads_data(heads)
    matrices = next((block for block in document if isinstance(block, Similarities)), None)
    if matrices is not None:
        yield "matrices", matrix_data(matrices)
    if heads is not None or matrices is not None:
        yield "colours", {"s": SEQUENTIAL, "d": SIGNED}


def _part(block: Block, prefix: str) -> Part:
    for kind, lower in LOWERED.items():
        if isinstance(block, kind):
            return lower(block, prefix)
    raise TypeError(f"no part for {type(block).__name__}")


def _heading(block: Heading, prefix: str) -> Part:
    return {"kind": "heading", "text": block.text}


def _paragraph(block: Paragraph, prefix: str) -> Part:
    lines = [line for line in block.text.split("\n") if line.strip()]
    return {"kind": "paragraph", "lines": lines, "notes": all(line.startswith("Note: ") for line in lines)}


def _summary(block: Summary, prefix: str) -> Part:
    return {"kind": "summary", "of": block}


def _table(block: Table, prefix: str) -> Part:
    links = {column: [name and prefix + name for name in names] for column, names in block.links.items()}
    names = [prefix + name for name in block.names] or [""] * len(block.rows)
    rows = [
        {"name": name, "cells": [(cell, links[i][row] if i in links else "") for i, cell in enumerate(cells)]}
        for row, (name, cells) in enumerate(zip(names, block.rows, strict=True))
    ]
    classes = [_column_class(i, column, block) for i, column in enumerate(block.columns)]
    return {
        "kind": "table", "title": block.title, "columns": block.columns, "classes": classes, "rows": rows,
        "note": block.note, "printed": _printed(block),
    }  # fmt: skip


def _printed(table: Table) -> str:
    """Classes that say which columns are not on paper, and whether the others are many."""
    left_out = [f"x{i}" for i, column in enumerate(table.columns, 1) if column.rank >= PAPER]
    return " ".join([*left_out, *["wide"] * (len(table.columns) - len(left_out) > WIDE)])


def _column_class(at: int, column: TableColumn, table: Table) -> str:
    """Columns of words are set to the left, and those of long words get room to break them in."""
    if not column.text:
        return ""
    return "t long" if any(len(row[at]) > LONG for row in table.rows) else "t"


def _facts(block: Facts, prefix: str) -> Part:
    return {"kind": "facts", "title": block.title, "entries": block.entries}


def _grid(block: Grid, prefix: str) -> Part:
    values = np.array([[np.nan if value is None else value for value in row] for row in block.values])
    rows = [
        {
            "label": label,
            "cells": [{"step": step(value, block.low, block.high), "value": value} for value in row],
        }
        for label, row in zip(block.rows, values.tolist(), strict=True)
    ]
    return {
        "kind": "grid", "title": block.title, "columns": block.columns, "rows": rows, "steps": STEPS,
        "low": block.low, "high": block.high, "width": width_class(len(block.columns)),
    }  # fmt: skip


def _heads(block: Heads, prefix: str) -> Part:
    return {"kind": "heads", **heads_part(block, prefix)}


def _similarities(block: Similarities, prefix: str) -> Part:
    return {"kind": "similarities", **matrix_part(block, prefix)}


def _examples(block: Examples, prefix: str) -> Part:
    return examples_part(block, prefix)


LOWERED: dict[type, Callable[[Any, str], Part]] = {
    Heading: _heading, Paragraph: _paragraph, Summary: _summary, Table: _table, Facts: _facts, Grid: _grid,
    Heads: _heads, Similarities: _similarities, Examples: _examples,
}  # fmt: skip
