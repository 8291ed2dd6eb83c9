"""Where names of points stand so that none lies on another, or on a point."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Boxes = NDArray[np.float64]  # [box, 4]: left, bottom, right, top
WIDE, HIGH = 0.62, 1.1  # of a letter, in sizes of the letters
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
