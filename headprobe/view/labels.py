"""Where names of points stand so that none lies on another, or on a point."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Point = tuple[float, float]
Boxes = NDArray[np.float64]  # [box, 4]: left, bottom, right, top
WIDE, HIGH = 0.62, 1.1  # of a letter, in sizes of the letters
NAME = 5.5  # points: the size of names
RADIUS = 3.0  # of a point that names keep off


def placed(points: NDArray[np.float64], names: Sequence[str], size: float, room: Point) -> list[Point | None]:
    """For each point, in `points` [point, 2] between 0 and `room`, the lower left corner of its name: None for none.

    All in points of type, `size` that of the letters. Earlier names have the choice before later ones.
    """
    taken: Boxes = np.concatenate([points - RADIUS, points + RADIUS], axis=1)
    found: list[Point | None] = []
    for (x, y), name in zip(points.tolist(), names, strict=True):
        width, height = WIDE * size * len(name), HIGH * size
        for left, bottom in _around(x, y, width, height):
            box = np.array([left, bottom, left + width, bottom + height])
            inside = left >= 0 and bottom >= 0 and box[2] <= room[0] and box[3] <= room[1]
            if inside and not _meets(taken, box):
                taken = np.vstack([taken, box])
                found.append((left, bottom))
                break
        else:
            found.append(None)
    return found


def name_points(
    figure: "Figure", axes: "Axes", points: NDArray[np.float64], names: list[str], rows: NDArray[np.int64] | None = None
) -> None:  # fmt: skip
    """Names beside the points, or beside those of `rows`, where there is room for them."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is measured now stays where it is
    inch = 72 / figure.dpi
    corner = axes.get_window_extent()
    at = (axes.transData.transform(points) - [corner.x0, corner.y0]) * inch
    rows = np.arange(len(points)) if rows is None else rows
    others = np.setdiff1d(np.arange(len(points)), rows)
    at = np.concatenate([at[rows], at[others]])
    room = (corner.width * inch, corner.height * inch)
    spots = placed(at, [*names, *[""] * len(others)], NAME, room)[: len(names)]
    for name, spot in zip(names, spots, strict=True):
        if spot is not None:
            axes.annotate(name, spot, xycoords="axes points", fontsize=NAME, va="bottom", parse_math=False)
    named = sum(spot is not None for spot in spots)
    if named < len(points) and not len(others):
        axes.set_xlabel(f"{axes.get_xlabel()}; room for the names of {named} of {len(names)} heads")


def _around(x: float, y: float, width: float, height: float) -> Iterator[Point]:
    """Corners of a name right, left, above and below of a point, and between them."""
    off = RADIUS + 0.5
    right, left, middle = x + off, x - off - width, x - width / 2
    yield from ((right, y - height / 2), (left, y - height / 2), (middle, y + off), (middle, y - off - height))
    for bottom in (y + 1, y - 1 - height):
        yield from ((right - 1, bottom), (left + 1, bottom))


def _meets(boxes: Boxes, box: NDArray[np.float64]) -> bool:
    apart = (boxes[:, 0] >= box[2]) | (boxes[:, 2] <= box[0]) | (boxes[:, 1] >= box[3]) | (boxes[:, 3] <= box[1])
    return bool((~apart).any())
