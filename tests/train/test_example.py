"""The example runs, and pages show what it prints."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def test_example_prints_what_pages_show() -> None:
    ran = subprocess.run(
        [sys.executable, "examples/penalty.py", "--steps", "1"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/training.md")]
    shown = [re.findall(r"\$ python examples/penalty.py\n(.*?)```", page, re.DOTALL) for page in pages]
    assert shown[0] == shown[1]
    number = re.compile(r"\d+")
    assert number.sub("#", ran.stdout) == number.sub("#", shown[0][0])
