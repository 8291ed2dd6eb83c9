"""What heads are for, and scales that noise does not fill, as a page has them."""

from dataclasses import replace

import numpy as np
import pytest

from headprobe.headtypes import TYPES
from headprobe.view.html import page
from headprobe.view.pages.measures import head_measures, widened
from headprobe.view.pages.scan import scan_page
from headprobe.view.pages.types import SEEN, SHOWN, type_blocks
from headprobe.view.places import places
from tests.view.made import made
from tests.view.parsing import Page


def test_every_type_is_said_in_words() -> None:
    assert {one.label for one in TYPES} == set(SEEN)


def test_heads_of_a_type_are_counted_and_the_clearest_is_linked() -> None:
    found = made(2, 16)
    labels = ["broad"] * 14 + ["local"] * 2 + [""] * 16
    values = np.linspace(0.5, 0.9, 32)
    names = found.heads[["site", "path", "kind", "layer", "head"]]
    found = replace(found, types=names.assign(type=labels, value=values))
    _, table = type_blocks(found, places(found))
    rows = [row[:4] for row in table.rows]  # type: ignore[union-attr]  # a table, by what comes after a section
    assert rows[0] == ("broad", SEEN["broad"], "14", f"L0 H13 ({values[13]:.2f})")
    assert rows[1] == ("local", SEEN["local"], "2", f"L0 H15 ({values[15]:.2f})")
    assert rows[2][:3] == ("no clear type", rows[2][1], "16")
    assert f"+{14 - SHOWN}" in str(table)
    links = [each.attributes["href"] for each in Page(page([scan_page(found)])).all("a") if each.text == rows[0][3]]
    assert links == ["#layer-0-head-13"]


def test_without_types_nothing_is_said_of_them() -> None:
    assert type_blocks(made(1, 3), places(made(1, 3))) == []


@pytest.mark.parametrize(
    ("low", "high", "signed", "expected"),
    [
        (0.989, 0.993, False, (0.943, 0.993)),
        (0.001, 0.004, False, (0.0, 0.05)),
        (0.2, 0.4, False, (0.2, 0.4)),
        (-0.01, 0.01, True, (-0.025, 0.025)),
        (-0.4, 0.4, True, (-0.4, 0.4)),
    ],
)
def test_a_scale_has_a_least_length(low: float, high: float, signed: bool, expected: tuple[float, float]) -> None:
    assert widened(low, high, 0.05, signed=signed) == pytest.approx(expected)


def test_noise_makes_no_picture() -> None:
    found = made(2, 4)
    found = replace(found, heads=found.heads.assign(rcos=np.linspace(0.99, 0.992, 8)))
    rcos = next(measure for measure in head_measures(found) if measure.name == "rcos")
    assert (rcos.low, rcos.high) == pytest.approx((0.942, 0.992))
