"""Pages that the code writes, and output that pages show: `python -m tests.docs` writes all of them anew.

A block that begins with a command, as in

    $ headprobe scan sample_inputs/tiny-bert --top 3

holds what the command prints, 100 columns wide.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from headprobe.audits import explain
from headprobe.view import metrics_page
from tests.conftest import ROOT

WRITTEN = {"docs/metrics.md": metrics_page.page, "docs/rules.md": explain.page}
SHOWING = ("README.md", "docs/tutorial.md")
BLOCK = re.compile(r"```\n\$ headprobe ([^\n]+)\n(.*?)\n?```", re.DOTALL)
WIDTH = "100"


def shown() -> Iterator[tuple[str, str, str]]:
    """Every page, command and output that is shown."""
    for name in SHOWING:
        for command, output in BLOCK.findall((ROOT / name).read_text(encoding="utf-8")):
            yield name, command, output


def main() -> None:
    """Write everything anew."""
    for name, page in WRITTEN.items():
        (ROOT / name).write_text(page(), encoding="utf-8")
    for name in SHOWING:
        path = ROOT / name
        path.write_text(BLOCK.sub(_again, path.read_text(encoding="utf-8")), encoding="utf-8")


def _again(block: re.Match[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "headprobe", *shlex.split(block[1])],
        capture_output=True, text=True, check=False, cwd=Path(ROOT), env={**os.environ, "COLUMNS": WIDTH},
    )  # fmt: skip
    if done.stderr:
        raise SystemExit(f"headprobe {block[1]}: {done.stderr}")
    lines = [line.rstrip() for line in done.stdout.rstrip().splitlines()]
    return "\n".join(["```", f"$ headprobe {block[1]}", *lines, "```"])


if __name__ == "__main__":
    main()
