"""A page in headings, paragraphs, tables and grids alone: what a terminal and Markdown have."""

import math

from headprobe.view.document import (
    Block,
    Document,
    Examples,
    Facts,
    Grid,
    Heading,
    Heads,
    Measure,
    Paragraph,
    Section,
    Similarities,
    Similarity,
    Simple,
    Summary,
    Table,
    TableColumn,
)

MOST_CELLS = 32  # heads on a side: a matrix of more is looked at in a page or a file


def plain(document: Document) -> tuple[Simple, ...]:
    """The document's blocks, each as simple ones that say the same. What needs a picture is left out."""
    following = (*document[1:], None)
    shown = (block for block, after in zip(document, following, strict=True) if not isinstance(after, Examples))
    return tuple(simple for block in shown for simple in _lower(block))


def grids(heads: Heads, measure: Measure) -> list[Grid]:
    """A measure as layers × heads, a grid for each stack that has numbers of it."""
    made = []
    for stack, layers in heads.stacks().items():
        columns = range(1 + max(head for row in layers.values() for head in row))
        values = tuple(
            tuple(measure.values[row[head]] if head in row else None for head in columns) for row in layers.values()
        )
        if all(value is None for row in values for value in row):
            continue
        title = f"{measure.name} of every head" + (f", {stack} attention" if stack else "")
        labels = tuple(f"L{layer}" for _, layer in layers)
        made.append(Grid(title, labels, tuple(f"H{head}" for head in columns), values, measure.low, measure.high))
    return made


def _lower(block: Block) -> list[Simple]:
    match block:
        case Section(title=title, about=about):
            return [Heading(title), *([Paragraph(about)] if about else [])]
        case Summary():
            return _summary(block)
        case Heads():
            return list(grids(block, block.measures[0]))
        case Similarities():
            return _matrix(block)
        case Facts():
            columns = (TableColumn("", text=True), TableColumn("", text=True))
            return [Table(block.title, columns, block.entries)]
        case Examples():
            return []
        case _:
            return [block]


def _summary(summary: Summary) -> list[Simple]:
    """The sentences, and the steps with the commands that take them."""
    steps = [f"{step.text} {step.command}".strip() for step in summary.steps]
    said: list[Simple] = [Paragraph(" ".join(summary.sentences))]
    return [*said, Paragraph("\n".join(["What to do next:", *steps]))] if steps else said


def _matrix(similarities: Similarities) -> list[Simple]:
    """The first matrix, if it is small enough to be read as numbers."""
    first = similarities.choices[0]
    return [] if len(first.places) > MOST_CELLS else [matrix_grid(first, next(iter(first.matrices)))]


def matrix_grid(found: Similarity, name: str) -> Grid:
    """A quantity of a matrix as numbers."""
    values = tuple(tuple(None if math.isnan(value) else float(value) for value in row) for row in found.matrices[name])
    low = -1.0 if name in found.signed else 0.0
    known = [value for row in values for value in row if value is not None]
    high = max(known) if name in found.distances else 1.0
    rows = tuple(place.short for place in found.places)
    columns = tuple(f"L{place.layer}H{place.head}" for place in found.places)
    return Grid(f"{name} of heads, {found.title[0].lower()}{found.title[1:]}", rows, columns, values, low, high)
