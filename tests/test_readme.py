"""What README.md says can be run can be run, and what it shows is what comes out."""

import re
import shlex

import pytest

from tests.conftest import ROOT, Run

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"```\n\$ headprobe ([^\n]+)\n(.*?)\n```", README, re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")


@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[command for command, _ in SHOWN])
def test_shown_output_is_real(run: Run, monkeypatch: pytest.MonkeyPatch, command: str, output: str) -> None:
    monkeypatch.setenv("COLUMNS", "100")
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


def test_every_column_is_named() -> None:
    from headprobe.metrics import METRICS

    for metric in METRICS.values():
        for column in metric.columns:
            assert re.search(rf"\b{column.name}\b", README), column.name
