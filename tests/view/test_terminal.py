"""Heat maps on a terminal: numbers that can be told apart, whatever they are and however little room there is."""

import io

import numpy as np
import pytest

from headprobe.view.document import Grid
from headprobe.view.terminal import console, show

ROWS = ("L0", "L11")


def lines(grid: Grid, width: int) -> list[str]:
    stream = io.StringIO()
    show((grid,), console(stream, width=width))
    return stream.getvalue().splitlines()


def drawn(columns: int, low: float, high: float) -> Grid:
    values = np.random.default_rng(columns).uniform(low, high, (2, columns))
    values[0, 0], values[1, -1] = low, high
    rows = tuple(tuple(map(float, row)) for row in values)
    return Grid("a grid", ROWS, tuple(f"H{i}" for i in range(columns)), rows, low, high)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("columns", [1, 4, 8, 12, 16, 24, 32])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.05), (0, 4.2), (0, 30), (0, 700), (0, 123_456), (-1, 1)])
def test_every_number_stands_alone(low: float, high: float, columns: int, width: int) -> None:
    grid = drawn(columns, low, high)
    shown = lines(grid, width)
    assert max(map(len, shown[: 2 + len(ROWS)])) <= width
    for row, line in zip(grid.values, shown[2:4], strict=True):
        words = line.split()[1:]
        if len(words) == 1 < columns:
            assert [int(digit) / 10 for digit in words[0]] == pytest.approx(
                [min(0.9, ((value or 0) - low) / (high - low)) for value in row], abs=0.051
            )
        else:
            near = [10.0 ** -len(word.partition(".")[2]) / 2 + 1e-9 for word in words]
            apart = np.array(list(map(float, words))) - np.array(row, dtype=float)
            assert np.less_equal(np.abs(apart), near).all()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("columns", [3, 12, 32])
def test_a_label_stands_over_its_column(columns: int, width: int) -> None:
    shown = lines(drawn(columns, 0, 1), width)
    wide = (len(shown[2]) - len("L11 ")) // columns
    labels = shown[1].split()
    assert labels[0] == "H0"
    for label in labels:
        end = shown[1].index(label + " ") + len(label) if f"{label} " in shown[1] else len(shown[1])
        assert end == len("L11 ") + wide * (int(label[1:]) + 1)


def test_what_is_missing_has_a_dot() -> None:
    grid = Grid("a grid", ("L0",), ("H0", "H1"), ((None, 0.5),), 0.0, 1.0)
    assert lines(grid, 80)[2].split() == ["L0", "·", "0.50"]
