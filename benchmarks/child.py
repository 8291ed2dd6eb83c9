"""python -m benchmarks.child '{"model": ..., "work": ...}': one piece of work in a process of its own, and its peak.

The last line that it prints is JSON. Where the work is a scan and where it is the plain forward pass, everything up to
it is the same: imports, model, a tiny scan that loads the compiled loops, a tiny forward pass.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MIB = 2**20


def memory_now() -> float:
    """MiB of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / MIB


def memory_peak() -> float:
    """The most MiB of this process that were in memory: getrusage's begins with what the parent had."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) / 1024


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of the work, and the most MiB that the process had in memory during it.

    The kernel keeps the mark, so no peak is too short to be seen; it is set back first, else the peak of loading a
    model would hide the work's own. That is Linux only.
    """
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_now()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "before": before, "peak": memory_peak()}


def main() -> None:
    """Prepare, work, print."""
    import torch

    import headprobe
    from benchmarks.models import MODELS, inputs

    task = json.loads(sys.argv[1])
    model = MODELS[task["model"]]("sdpa")
    batch = inputs(model, task["sequences"], task["tokens"])

    def forward(some: dict[str, Any]) -> None:
        with torch.no_grad():
            model(**some)

    told: dict[str, float] = {}

    def scan(some: dict[str, Any]) -> None:
        report = headprobe.scan(model, batches=[some], **task["options"])
        told.update({name: float(report.heads[name].mean()) for name in task.get("tell", ())})

    tiny = inputs(model, 1, 16)
    scan(tiny)
    forward(tiny)
    work = {"scan": scan, "forward": forward}[task["work"]]
    print(json.dumps(measured(lambda: work(batch)) | told))


if __name__ == "__main__":
    main()
