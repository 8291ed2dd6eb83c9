"""Memory that was freed goes back to the system, while tiles come and go.

glibc learns from large blocks that are freed to keep blocks of up to 32 MiB for later, and no tile of a growing number
of keys fits the gap that the one before has left: five times what was in use was seen to stay. To return each block
when it is freed is no way out: new pages cost as much as ten passes over them. So what is free stays with the process
until it has grown by too much. Elsewhere than in glibc there is nothing to do.
"""

import ctypes
import mmap
import sys
from functools import cache
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST = 2**25  # bytes of a block that is never kept: the most that glibc itself would learn to keep
SMALL = 2**24  # bytes of a tile that is kept in the last cache, and freed blocks of its size with the process
RESIDENT = Path("/proc/self/statm")


class Memory:
    """Freed memory stays with the process, until `close` or until that has grown by `free` bytes."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._least: int | None = None

    def check(self) -> None:
        """One of several parts of a call comes next: return what is free if it is too much."""
        if self._least is None:
            _set(M_MMAP_THRESHOLD, LARGEST)
            _set(M_TRIM_THRESHOLD, self._free)
            self.give_back()
        elif _resident() > self._least + self._free:
            self.give_back()

    def give_back(self) -> None:
        """Return what is free."""
        _trim()
        self._least = _resident()

    def close(self) -> None:
        """As before, or nearly: what glibc had learned is not known, so it is set to the most that it would learn."""
        if self._least is not None:
            self._least = None
            _set(M_TRIM_THRESHOLD, 2 * LARGEST)
            _trim()


def _set(option: int, size: int) -> None:
    library = _glibc()
    if library is not None:
        library.mallopt(option, size)


def _resident() -> int:
    """Bytes of the process that are in memory; 0 where the kernel doesn't say."""
    try:
        return int(RESIDENT.read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def _trim() -> None:
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
