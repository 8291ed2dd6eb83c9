"""What is measured is kept with its run, and the page shows both."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import PARTS, TITLES, arguments, measure
from benchmarks.child import measured
from benchmarks.measure import Failed, LeftOut, OtherWork, Row, Settings, compared
from benchmarks.store import BEGIN, END, PAGE, Found, Results, line, number

ABOUT = {"commit": "abc", "machine": "a machine", "threads": 2, "versions": {"Python": "3"}}


def some(work: str) -> Found:
    return Found([compared(work, "theirs", [1.0, 2.0], [2.0, 3.0], must="≤ 1")], other_work=0.25)


def test_parts_that_are_not_rerun_stay_with_their_run(tmp_path: Path) -> None:
    page, path = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    first = Results().put("a", "2020", ABOUT, some("one")).put("b", "2020", ABOUT, some("two"))
    first.put("b", "2021", ABOUT | {"commit": "def"}, some("three")).write({"a": "A", "b": "B"}, path, page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| one | theirs | 1.50 s | 2.50 s | 0.583× (0.5 to 0.667) | ≤ 1 |  |" in text
    assert "**A** (`--only a`, run 1, other work: 0.25 cores):" in text
    assert "**B** (`--only b`, run 2, other work: 0.25 cores):" in text
    assert "| three |" in text
    assert "two" not in text
    assert "old" not in text
    assert "commit abc" in text
    assert "commit def" in text
    assert Results.read(path).parts["a"]["run"] == "2020"


def test_a_run_of_which_nothing_is_left_is_forgotten() -> None:
    results = Results().put("a", "2020", ABOUT, some("one")).put("a", "2021", ABOUT, some("one"))
    assert list(results.runs) == ["2021"]


def test_what_is_left_out_says_why() -> None:
    results = Results().put("a", "2020", ABOUT, Found([], "no such thing here"))
    text = results.markdown({"a": "A", "b": "B"})
    assert "**A** (`--only a`, run 1): no such thing here." in text
    assert "**B** (`--only b`): not measured yet." in text


@pytest.mark.parametrize(("fault", "kept"), [(LeftOut("not here"), True), (Failed("out of memory"), False)])
def test_only_what_can_not_be_measured_here_keeps_older_rows(
    monkeypatch: pytest.MonkeyPatch, fault: LeftOut, kept: bool
) -> None:
    def part(settings: Settings) -> list[Row]:
        raise fault

    monkeypatch.setitem(PARTS, "pairs", part)
    assert measure("pairs", Settings()) == (Found([], str(fault)), kept)


def test_the_page_is_what_the_results_say() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()
    assert table == Results.read().markdown(TITLES)
    assert list(TITLES) == list(PARTS)


def test_numbers() -> None:
    assert [number(value) for value in (0.01234, 0.5, 1.234, 12.34, 1234.5)] == [
        "0.0123",
        "0.5",
        "1.23",
        "12.3",
        "1,234",
    ]
    row = {"work": "w", "against": "a", "ours": 1.0, "theirs": None, "ratio": None, "unit": "s", "reading": "×",
           "must": "", "aim": "", "spread": None}  # fmt: skip
    assert line(row) == "| w | a | 1.00 s |  |  |  |  |"


def test_options() -> None:
    chosen = arguments(["--only", "pairs", "--only", "long", "--quick", "--long-tokens", "4096"])
    assert (chosen.only, chosen.quick, chosen.long_tokens) == (["pairs", "long"], True, 4096)


def pages(count: int) -> None:
    """New bytes, which nothing that was freed before can stand in for."""
    np.ndarray(count // 8, buffer=mmap.mmap(-1, count)).fill(1)


def test_a_peak_is_that_of_the_work() -> None:
    pages(2**28)  # before it are not counted
    found = measured(lambda: pages(2**26))
    assert 60 < found["peak"] - found["before"] < 100


def test_our_own_work_is_no_other_work() -> None:
    others = OtherWork()
    measured(lambda: [np.ones(2**20).sum() for _ in range(50)])
    cores = others.cores()
    assert cores is None or 0 <= cores <= 1024
