"""examples/train_with_penalty.py runs, and pages show its table with every run and metric."""

import importlib.util
import re
import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

PATH = ROOT / "examples" / "train_with_penalty.py"


def example() -> Any:
    spec = importlib.util.spec_from_file_location("train_with_penalty", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_it_runs_from_a_shell() -> None:
    ran = subprocess.run(
        [sys.executable, str(PATH), "--steps", "2", "--seeds", "2"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr) == (0, "")
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/training-example.md")]
    shown = [re.findall(r"\$ python examples/train_with_penalty.py\n(.*?)```", page, re.DOTALL) for page in pages]
    assert shown[0] == shown[1] != []
    assert cells(ran.stdout) == cells(shown[0][0])
    assert "lin against plain" in ran.stdout


def cells(text: str) -> tuple[list[str], list[str]]:
    """The table's columns and its runs."""
    head = next(line for line in text.splitlines() if line.startswith("┃ run"))
    names = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    return [cell.strip() for cell in head.strip("┃").split("┃")], names


def test_rows_are_what_their_labels_say() -> None:
    module = example()
    rows = module.rows(torch.Generator().manual_seed(0), 200)
    for ids, label in zip(rows["input_ids"].tolist(), rows["labels"].tolist(), strict=True):
        first, second = (ids.index(marker) for marker in module.MARKERS)
        assert label == (first < second)
        assert (ids[0], ids[-1]) == module.EDGES
    assert 60 < int(rows["labels"].sum()) < 140


def test_runs_of_a_seed_start_alike() -> None:
    module = example()
    one, other = (module.fresh(3).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_conclusion_is_what_the_numbers_say() -> None:
    module = example()
    plain, better = [80.0, 82.0, 81.0], [90.0, 92.5, 91.0]
    runs = [
        module.Run(run, seed, {"accuracy": values[seed]})
        for run, values in (("plain", plain), ("lin", better), ("svgd", [80.5, 81.0, 81.2]))
        for seed in range(3)
    ]
    lin, svgd = module.compared(runs)
    assert "+10.2 points" in lin
    assert "more than chance" in lin
    assert "no more than seeds differ" in svgd
    assert float(lin.split("mean: +")[1].split()[0]) == pytest.approx(10.1667 - 4.3027 / 6, abs=0.051)
