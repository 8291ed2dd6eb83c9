"""headprobe metrics: the catalogue, read without torch."""

from typing import Annotated

import typer

from headprobe.errors import UsageError, nearest
from headprobe.metrics import installed


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
    from headprobe.view.catalogue import catalogue, documented
    from headprobe.view.terminal import console, show

    every = installed()
    if name is None:
        show(catalogue(every.values()), console())
        return
    owners = [metric for metric in every.values() if name == metric.name or name in {c.name for c in metric.columns}]
    if not owners:
        valid = {*every, *(c.name for metric in every.values() for c in metric.columns)}
        raise UsageError("E-METRIC", f'no metric or column "{name}"', nearest(name, valid))
    for metric in owners:
        show(documented(metric, [c for c in metric.columns if name in (metric.name, c.name)]), console())
