"""The one place that writes files."""

import os
from pathlib import Path

from headprobe.errors import EnvironmentFailure


def make_folder(path: Path) -> None:
    """A folder and those above it; raises `EnvironmentFailure` where that can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise EnvironmentFailure("E-OUTPUT", f"{path} can't be made: {fault.strerror}") from fault


def atomic_write(path: Path, content: bytes) -> Path:
    """Put `content` at `path` in one step: a reader sees the old file or the new one, never a part.

    Raises `EnvironmentFailure` (full disk, no permission); then the old file is as it was and nothing else is left.
    """
    target = path.resolve()  # through a symlink, so that the link stays
    temporary = target.with_name(f".{target.name}.headprobe-{os.getpid()}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as fault:
        raise EnvironmentFailure(
            "E-DISK", f"{path} can't be written: {fault.strerror}", "What was there before is unchanged."
        ) from fault
    return path
