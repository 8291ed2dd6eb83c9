"""Words of pictures: none lies on another, and none is cut."""

from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from headprobe.view import plots
from headprobe.view.labels import HIGH, RADIUS, WIDE, placed
from headprobe.view.saved import page_of
from tests.view.made import HOSTILE, made
from tests.view.test_page import compared

pytest.importorskip("matplotlib")


def overlap(one: Any, other: Any) -> bool:
    return bool(one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3])


@pytest.mark.parametrize("seed", range(3))
def test_names_lie_on_nothing(seed: int) -> None:
    points = np.random.default_rng(seed).uniform(0, 200, (60, 2))
    names = [f"L{i} H{i % 7}" for i in range(60)]
    found = placed(points, names, 6, (200, 200))
    boxes = [
        (*spot, spot[0] + WIDE * 6 * len(name), spot[1] + HIGH * 6)
        for name, spot in zip(names, found, strict=True)
        if spot
    ]
    assert 10 < len(boxes) < 60
    dots = [(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in points]
    assert not any(overlap(*pair) for pair in combinations(boxes, 2))
    assert not any(overlap(box, dot) for box in boxes for dot in dots)
    assert all(box[0] >= 0 and box[2] <= 200 and box[1] >= 0 and box[3] <= 200 for box in boxes)


def test_a_name_alone_is_right_of_its_point() -> None:
    ((left, bottom),) = placed(np.array([[50.0, 50.0]]), ["L0 H0"], 6, (200, 200))  # type: ignore[misc]  # is placed
    assert left > 50
    assert bottom < 50 < bottom + HIGH * 6


def texts(figure: Any) -> list[tuple[str, tuple[float, ...]]]:
    """Every word that is drawn, with its box in pixels."""
    from matplotlib.text import Text

    figure.draw_without_rendering()
    drawn = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    hidden = [axes for axes in figure.axes if not axes.axison]
    kept = [text for text in drawn if text.axes not in hidden]
    return [(text.get_text(), tuple(text.get_window_extent().extents)) for text in kept]


SHAPES = {
    "svg", "metadata", "RDF", "Work", "type", "format", "creator", "Agent", "title", "defs", "style", "g", "path",
    "use", "clipPath", "rect", "image",
}  # fmt: skip
DRAWN = {
    "heatmap": lambda page: plots.heatmap(page, None),
    "matrix": lambda page: plots.matrix(page, None, None),
    "dendrogram": lambda page: plots.dendrogram(page, None),
    "map": lambda page: plots.head_map(page, None),
}


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize("size", [(4, 8), (6, 12), (24, 16), (2, 40)])
def test_no_word_of_a_picture_lies_on_another(kind: str, size: tuple[int, int]) -> None:
    found = texts(DRAWN[kind](page_of(made(*size))))
    assert [(a[0], b[0]) for a, b in combinations(found, 2) if overlap(a[1], b[1])] == []


def test_no_word_of_a_comparison_lies_on_another() -> None:
    comparison = compared()
    found = texts(plots.changes(comparison, page_of(comparison), "rcos"))
    assert [(a[0], b[0]) for a, b in combinations(found, 2) if overlap(a[1], b[1])] == []
    assert any(name.startswith("L0 H") for name, _ in found)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_drawn_as_shapes(name: str) -> None:
    figure = plots.heatmap(page_of(made(1, 2, model=name)), None)
    for suffix in (".png", ".pdf"):
        assert plots.file_bytes(figure, suffix)
    drawn = ElementTree.fromstring(plots.file_bytes(figure, ".svg"))
    for element in drawn.iter():
        assert element.tag.rpartition("}")[2] in SHAPES
        assert not any(attribute.lower().startswith("on") for attribute in element.attrib)
