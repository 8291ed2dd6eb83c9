"""What every metric says of itself, for `headprobe metrics`. Reads the registry alone, which imports no torch."""

import inspect
from collections.abc import Iterable

from headprobe.metrics import Column, Metric
from headprobe.view.document import Document, Heading, Paragraph, Table, TableColumn

TITLES = ("column", "table", "range", "unit", "more means", "what")


def documented(metric: Metric, columns: Iterable[Column]) -> Document:
    """A metric in words, and some of its columns, for a terminal."""
    facts = {"Formula": metric.formula, "Baseline (uniform attention)": metric.baseline, "Source": metric.source}
    words = "\n".join([about(metric), "", *(f"{title}: {text}" for title, text in facts.items())])
    rows = tuple(map(described_row, columns))
    table = Table("Columns", tuple(TableColumn(title, text=True) for title in TITLES), rows)
    return (Heading(metric.name), Paragraph(words), table)


def catalogue(metrics: Iterable[Metric]) -> Document:
    """Every metric's name and columns."""
    columns = (TableColumn("metric", text=True), TableColumn("columns", text=True))
    rows = tuple((metric.name, ", ".join(dict.fromkeys(c.name for c in metric.columns))) for metric in metrics)
    return (Table("Metrics", columns, rows), Paragraph("headprobe metrics NAME tells more of one."))


def about(metric: Metric) -> str:
    """What its docstring says."""
    return " ".join((inspect.getdoc(metric) or "").split())


def described_row(column: Column) -> tuple[str, ...]:
    """A column in words, under `TITLES`."""
    low = "-∞" if column.low is None else f"{column.low:g}"
    high = "∞" if column.high is None else f"{column.high:.3g}"
    return (column.name, f"{column.level}s", f"{low} to {high}", column.unit, column.more, column.about)
