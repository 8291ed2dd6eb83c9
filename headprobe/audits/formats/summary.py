"""The summary of a step of GitHub Actions: Markdown that the page of a run shows."""

from collections.abc import Mapping
from pathlib import Path

from headprobe.errors import EnvironmentFailure
from headprobe.write.atomic import atomic_write

VARIABLE = "GITHUB_STEP_SUMMARY"
MOST_BYTES = 1_000_000  # GitHub refuses a summary of more than 1 MiB altogether
NOTE = b"\n\nThe rest is left out: a summary has a limit. The files of the audit hold all of it.\n"


def append_summary(markdown: str, environment: Mapping[str, str]) -> Path | None:
    """Add `markdown` to the file that `GITHUB_STEP_SUMMARY` names, and return it; None where there is no such variable.

    What would make the summary too large is cut off at a line break, with a note. Raises `EnvironmentFailure` where
    the file can't be written.
    """
    if not environment.get(VARIABLE):
        return None
    path = Path(environment[VARIABLE])
    try:
        before = path.read_bytes() if path.exists() else b""
    except OSError as fault:
        raise EnvironmentFailure("E-OUTPUT", f"{VARIABLE} {path} can't be read: {fault.strerror}") from fault
    if before and not before.endswith(b"\n"):
        before += b"\n"
    added = markdown.encode("utf-8", "backslashreplace").rstrip(b"\n") + b"\n"
    return atomic_write(path, before + capped(added, MOST_BYTES - len(before)))


def capped(content: bytes, most: int) -> bytes:
    """`content`, or as many whole lines of it as fit in `most` bytes together with a note; nothing if not even that."""
    if len(content) <= most:
        return content
    room = most - len(NOTE)
    if room < 0:
        return b""
    return content[: content.rfind(b"\n", 0, room) + 1].rstrip(b"\n") + NOTE
