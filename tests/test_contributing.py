"""The metric that CONTRIBUTING.md shows is a metric."""

import re
from pathlib import Path

from headprobe.metrics import Metric
from headprobe.testing import check_metric
from tests.conftest import ROOT


def test_the_example_metric_keeps_the_laws(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    source = "\n".join(line.removeprefix("   ") for line in blocks[0].splitlines())
    names: dict[str, type[Metric]] = {}
    exec(compile(source, "CONTRIBUTING.md", "exec"), names)
    check_metric(names["TopTwo"]())
