"""headprobe metrics: the catalogue, read without torch."""

from typing import Annotated

import typer

from headprobe.errors import UsageError, nearest
from headprobe.metrics import Column, Metric, installed


def metrics(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A metric or a column; without it all metrics.")
    ] = None,
) -> None:
    """List every metric with its formula, range, direction, baseline and source.

    Examples:

        headprobe metrics

        headprobe metrics redundancy

        headprobe metrics rcos
    """
    from headprobe.view.document import Document, Heading, Paragraph, Table, TableColumn
    from headprobe.view.terminal import console, show

    every = installed()
    if name is None:
        columns = (TableColumn("metric", text=True), TableColumn("columns", text=True))
        rows = tuple(
            (metric.name, ", ".join(dict.fromkeys(c.name for c in metric.columns))) for metric in every.values()
        )
        document: Document = (Table("Metrics", columns, rows), Paragraph("headprobe metrics NAME tells more of one."))
        show(document, console())
        return
    owners = [metric for metric in every.values() if name == metric.name or name in {c.name for c in metric.columns}]
    if not owners:
        valid = {*every, *(c.name for metric in every.values() for c in metric.columns)}
        raise UsageError("E-METRIC", f'no metric or column "{name}"', nearest(name, valid))
    for metric in owners:
        chosen = tuple(c for c in metric.columns if name in (metric.name, c.name))
        titles = ("column", "table", "range", "unit", "more means", "what")
        table = Table("Columns", tuple(TableColumn(title, text=True) for title in titles), tuple(map(_row, chosen)))
        show((Heading(metric.name), Paragraph(_about(metric)), table), console())


def _about(metric: Metric) -> str:
    import inspect

    about = " ".join((inspect.getdoc(metric) or "").split())
    facts = {"Formula": metric.formula, "Baseline (uniform attention)": metric.baseline, "Source": metric.source}
    return "\n".join([about, "", *(f"{title}: {text}" for title, text in facts.items())])


def _row(column: Column) -> tuple[str, ...]:
    low = "-∞" if column.low is None else f"{column.low:g}"
    high = "∞" if column.high is None else f"{column.high:.3g}"
    return (column.name, f"{column.level}s", f"{low} to {high}", column.unit, column.more, column.about)
