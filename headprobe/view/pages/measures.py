"""The numbers of heads as measures to choose from: a report's columns, with what the registry says of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, Unpack

import pandas as pd

from headprobe.report import NAMES, Report
from headprobe.view.columns import Described, described
from headprobe.view.document import Measure

if TYPE_CHECKING:
    from headprobe.metrics import Column

NO_MEASURES = {
    *NAMES["heads"], "tower", "sequences", "queries", "row_error", "leak", "nearest_layer", "nearest_head",
}  # fmt: skip
FIRST = ("rcos", "js_mean", "entropy_norm")  # what is shown before anybody chooses
LAST = ("zero_frac",)
ERRORS = "_se"  # how sure another column is: in the table, not on the map
NEAREST = "nearest_js"
LEAST_SPAN = 0.05  # of all values that a quantity can have (see `span`): a scale of less makes a picture of noise
FROM_ZERO = 0.5  # a scale begins at zero where the smallest value is not more than this share of the largest


def head_measures(report: Report) -> tuple[Measure, ...]:
    """Every column of numbers about heads that has values, in the order of the registry, the default one first."""
    heads, known = report.heads, described("head")
    names = [
        str(name)
        for name in heads
        if name not in NO_MEASURES
        and not str(name).endswith(ERRORS)
        and pd.api.types.is_numeric_dtype(heads[name].dtype)
        and heads[name].notna().any()
        and not (name == "zero_frac" and (heads[name].fillna(0) == 0).all())
    ]
    order = list(known)
    names.sort(key=lambda name: order.index(name) if name in known and name not in LAST else len(order))
    first = next((name for name in FIRST if name in names), None)
    if first:
        names = [first, *(name for name in names if name != first)]
    return (*(_measure(report, name, known.get(name)) for name in names), *_scores(report))


def _scores(report: Report) -> list[Measure]:
    """Every score of a type, beyond uniform attention, in the order of the heads table."""
    types = report.types
    if types.empty:
        return []
    by_head = types.set_index(["site", "head"])
    keys = list(zip(report.heads["site"], report.heads["head"], strict=True))
    names = [
        str(name)
        for name in types
        if name not in (*NAMES["heads"], "tower", "value")
        and pd.api.types.is_numeric_dtype(types[name].dtype)
        and types[name].notna().any()
    ]
    return [
        measure(
            f"{name} (type)", by_head[name].reindex(keys).tolist(), signed=True, least=2 * LEAST_SPAN, family="types",
            about=f"how much the head is one of the type {name}, beyond uniform attention",
        )
        for name in names
    ]  # fmt: skip


class Words(TypedDict, total=False):
    """What is said of a measure."""

    about: str
    unit: str
    family: str
    more: str


def measure(
    name: str, values: Iterable[float | None], *, signed: bool = False, least: float = 0.0, **words: Unpack[Words]
) -> Measure:
    """A measure with a scale that fits its values, and is at least `least` long."""
    known = tuple(None if value is None or not math.isfinite(value) else float(value) for value in values)
    low, high = scale([value for value in known if value is not None], signed=signed)
    low, high = widened(low, high, least, signed=signed)
    return Measure(name, known, low, high, decimals=decimals(low, high), signed=signed, **words)


def scale(values: Sequence[float], *, signed: bool) -> tuple[float, float]:
    """The ends of a scale: symmetric about 0 for signed values, else from 0 where that wastes little of it."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if signed:
        most = max(abs(low), abs(high)) or 1.0
        return -most, most
    if 0 <= low <= FROM_ZERO * high:
        low = 0.0
    return (low, high) if high > low else (min(0.0, low), max(high, low + 1.0) if low == 0 else high)


def widened(low: float, high: float, least: float, *, signed: bool) -> tuple[float, float]:
    """A scale of at least that length, so that noise makes no picture: longer downwards, where 0 is."""
    if signed:
        most = max(high, least / 2)
        return -most, most
    if high - low >= least:
        return low, high
    low = max(min(0.0, low), high - least)
    return low, max(high, low + least)


def decimals(low: float, high: float) -> int:
    """So many that three digits tell values of a scale apart."""
    most = max(abs(low), abs(high))
    return 3 if most < 2 else 2 if most < 20 else 1 if most < 1_000 else 0


def _measure(report: Report, name: str, found: Described | None) -> Measure:
    column = found.column if found else None
    signed = column is not None and column.low is not None and column.low < 0
    words: Words = {
        "about": column.about if column else "JS with the head that attends most like it" if name == NEAREST else "",
        "unit": column.unit if column else "nats" if name == NEAREST else "",
        "family": found.family if found else "js" if name == NEAREST else "other",
        "more": column.more if column else "different" if name == NEAREST else "",
    }
    values = report.heads[name].astype("float64")
    least = LEAST_SPAN * (math.log(2) if name == NEAREST else span(column, values.abs().max()))
    made = measure(name, values.tolist(), signed=signed, least=least, **words)
    baselines = report.baselines
    if name not in baselines or baselines[name].isna().all() or signed:
        return made
    by_site = dict(zip(baselines["site"], baselines[name].astype("float64"), strict=True))
    uniform = tuple(_known(by_site.get(site)) for site in report.heads["site"])
    return replace(made, uniform=uniform)


def span(column: Column | None, largest: float) -> float:
    """How far the values of a column can be apart; where nothing bounds them, the largest that there is."""
    if column is not None and column.high is not None:
        return column.high - (column.low or 0.0)
    return 0.0 if math.isnan(largest) else float(largest)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
