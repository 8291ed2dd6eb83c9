"""Runs the check of every type in a process of its own, so that a hang or a crash is a line and not the end."""

import json
import multiprocessing
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LIMIT_S = 120
MEMORY = 12 * 2**30
Line = dict[str, Any]


def run_all(
    types: Sequence[str], check: Callable[[str], Line], processes: int, tell: Callable[[Line], None]
) -> list[Line]:
    """The result of every type, in the order given. `check` runs in a fork, with everything imported already."""
    context = multiprocessing.get_context("fork")
    waiting, running, results = list(reversed(types)), dict[str, tuple[Any, float]](), dict[str, Line]()
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < processes:
                name = waiting.pop()
                process = context.Process(target=_child, args=(name, check, str(_file(folder, name))))
                process.start()
                running[name] = (process, time.monotonic() + LIMIT_S)
            for name, (process, deadline) in list(running.items()):
                process.join(0.01)
                late = time.monotonic() > deadline
                if process.is_alive() and not late:
                    continue
                process.kill()
                process.join()
                del running[name]
                results[name] = _read(_file(folder, name), name, late, process.exitcode)
                tell(results[name])
    return [results[name] for name in types]


def _file(folder: str, name: str) -> Path:
    return Path(folder) / f"{name}.json"


def _child(name: str, check: Callable[[str], Line], file: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what models say of their configurations
    Path(file).write_text(json.dumps(check(name)))
    os._exit(0)


def _read(file: Path, name: str, late: bool, code: int | None) -> Line:
    if file.exists() and not late:
        line: Line = json.loads(file.read_text())
        return line
    reason = f"no result within {LIMIT_S} seconds" if late else f"the process ended with {code}"
    return {"type": name, "verdict": f"crash: {reason}"}
