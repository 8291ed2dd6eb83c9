"""What pages say can be run can be run, what they show is what comes out, and what the code writes is as written."""

import re
import shlex

import pytest

from tests.conftest import ROOT, Run
from tests.docs import WIDTH, WRITTEN, shown

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = list(shown())
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command", "output"), SHOWN, ids=[f"{page}: {command}" for page, command, _ in SHOWN])
def test_shown_output_is_real(run: Run, monkeypatch: pytest.MonkeyPatch, page: str, command: str, output: str) -> None:
    monkeypatch.setenv("COLUMNS", WIDTH)
    found = run(*shlex.split(command))
    assert (found.code, found.err) == (int("collapsed" in command), "")
    mine = [line.rstrip() for line in found.out.rstrip().splitlines()]
    if "inspect" in command:  # its forecast is this machine's
        mine, output = mine[:-2], "\n".join(output.splitlines()[:-2])
    assert [NUMBER.sub("#", line) for line in mine] == [NUMBER.sub("#", line) for line in output.splitlines()]
    numbers, shown = (re.findall(r"-?\d+\.\d+", "\n".join(lines)) for lines in (mine, output.splitlines()))
    assert [float(number) for number in numbers] == pytest.approx([float(number) for number in shown], abs=0.011)


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^headprobe (\w+) MODEL", README, re.MULTILINE))))
def test_commands_exist(run: Run, command: str) -> None:
    assert run(command, "--help").code == 0


@pytest.mark.parametrize("name", WRITTEN)
def test_written_pages_are_as_the_code_writes_them(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == WRITTEN[name](), "run make docs"


def test_links_lead_somewhere() -> None:
    for page in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_column_is_named() -> None:
    from headprobe.metrics import METRICS

    for metric in METRICS.values():
        for column in metric.columns:
            assert re.search(rf"\b{column.name}\b", README), column.name
