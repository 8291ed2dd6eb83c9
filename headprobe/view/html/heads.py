"""Layers × heads as tables whose cells have colours, a small picture of every measure, and data for the script."""

from typing import Any

import numpy as np

from headprobe.view.colours import SEQUENTIAL, SIGNED, STEPS, step
from headprobe.view.document import Heads, Layer, Measure, Place
from headprobe.view.html.pictures import CLEAR, Indices, indices, png
from headprobe.view.html.widths import width_class

DIGITS = 4  # significant ones of a number in the page's data
EVERY = 2  # a label in so many is left where they don't all fit


def heads_part(heads: Heads, prefix: str) -> dict[str, Any]:
    """The maps of the first measure, one a stack, and what there is to choose."""
    first = heads.measures[0]
    return {
        "maps": [_map(stack, rows, heads, first, prefix) for stack, rows in heads.stacks().items()],
        "first": first,
        "about": heads.about,
        "families": _families(heads.measures),
        "thumbs": [_thumb(heads, measure) for measure in heads.measures],
        "scale": {False: png(_ramp(), SEQUENTIAL), True: png(_ramp(), SIGNED)},
    }


def heads_data(heads: Heads) -> dict[str, Any]:
    """Every number of every head, for the script."""
    return {
        "places": [[place.name, place.title, place.short, place.group] for place in heads.places],
        "measures": [_measure(measure) for measure in heads.measures],
        "labels": heads.labels,
        "alike": [[[i, _rounded(js)] for i, js in row] for row in heads.alike],
        "marks": heads.marks,
        "notable": [[[number, _rounded(value)] for number, value in row] for row in heads.notable],
        "notableBy": heads.notable_by,
    }


def shown(value: float | None, decimals: int, *, signed: bool = False) -> str:
    """A number as the page writes it."""
    if value is None:
        return ""
    return f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"


def in_cell(value: float | None, measure: Measure) -> str:
    """A number short enough for a cell of a map."""
    if value is None:
        return ""
    decimals = min(measure.decimals, 2)
    text = f"{value:z.{decimals}f}"
    return f"{value:z.1f}" if len(text) > 5 and decimals else text


def _map(
    stack: str, layers: dict[Layer, dict[int, int]], heads: Heads, measure: Measure, prefix: str
) -> dict[str, Any]:
    columns = range(1 + max(head for row in layers.values() for head in row))
    rows = []
    for (_, layer), row in layers.items():
        cells = []
        for head in columns:
            at = row.get(head)
            cells.append(None if at is None else _cell(heads.places, at, row.get(head - 1), measure, prefix))
        rows.append({"layer": layer, "cells": cells})
    return {
        "stack": stack, "rows": rows, "columns": list(columns), "every": EVERY, "width": width_class(len(columns)),
    }  # fmt: skip


def _cell(
    places: tuple[Place, ...], at: int, before: int | None, measure: Measure, prefix: str
) -> dict[str, Any]:  # fmt: skip
    place, value = places[at], measure.values[at]
    begins = before is not None and place.group is not None and place.group != places[before].group
    chosen = step(value, measure.low, measure.high)
    return {
        "name": prefix + place.name,
        "colour": "none" if chosen is None else f"{'d' if measure.signed else 's'}{chosen}",
        "text": in_cell(value, measure),
        "begins": begins,
    }


def _families(measures: tuple[Measure, ...]) -> list[tuple[str, list[tuple[int, Measure]]]]:
    found: dict[str, list[tuple[int, Measure]]] = {}
    for i, measure in enumerate(measures):
        found.setdefault(measure.family, []).append((i, measure))
    return list(found.items())


def _thumb(heads: Heads, measure: Measure) -> dict[str, Any]:
    """A measure as a picture of a few bytes, with its words for whoever does not see it."""
    stacks = heads.stacks()
    width = max(1 + max(head for row in layers.values() for head in row) for layers in stacks.values())
    bands: list[Indices] = []
    for layers in stacks.values():
        values = np.full((len(layers), width), np.nan)
        for line, row in enumerate(layers.values()):
            for head, i in row.items():
                value = measure.values[i]
                values[line, head] = np.nan if value is None else value
        bands += [np.full((1, width), CLEAR, dtype=np.uint8)] * bool(bands)
        bands.append(indices(values, measure.low, measure.high, STEPS))
    picture = np.vstack(bands)
    known = [(value, i) for i, value in enumerate(measure.values) if value is not None]
    most, least = max(known), min(known)
    words = (
        f"{measure.name}: {shown(least[0], measure.decimals)} in {heads.places[least[1]].title} to"
        f" {shown(most[0], measure.decimals)} in {heads.places[most[1]].title}"
    )
    return {
        "address": png(picture, SIGNED if measure.signed else SEQUENTIAL), "words": words, "name": measure.name,
        "about": measure.about, "width": picture.shape[1], "height": picture.shape[0],
    }  # fmt: skip


def _ramp() -> Indices:
    return np.arange(STEPS, dtype=np.uint8)[None]


def _measure(measure: Measure) -> dict[str, Any]:
    return {
        "name": measure.name, "about": measure.about, "unit": measure.unit, "family": measure.family,
        "more": measure.more, "low": _rounded(measure.low), "high": _rounded(measure.high),
        "signed": measure.signed, "decimals": measure.decimals,
        "values": [_rounded(value) for value in measure.values],
        "uniform": [_rounded(value) for value in measure.uniform],
    }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{DIGITS}g}")
