"""The one intermediate form of everything shown: what is said, not how it looks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Heading:
    """A title."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True)
class TableColumn:
    """A table's column. `rank` 0 is always shown; the higher, the wider the page must be."""

    title: str
    rank: int = 0
    text: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells that are ready to read."""

    title: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """A heat map: a number for each row and column label, None where there is none, and the range of its scale."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    low: float
    high: float


Block = Heading | Paragraph | Table | Grid
Document = tuple[Block, ...]
