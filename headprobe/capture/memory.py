"""Memory that was freed goes back to the system, while tiles come and go.

glibc learns from large blocks that are freed to keep blocks of up to 32 MiB for later, and no tile of a growing number
of keys fits the gap that the one before has left: five times what was in use was seen to stay. Tiles that are large are
mapped each for itself, which returns them when they are freed. New pages cost as much as ten passes over them, so small
tiles stay in the heap, of which what is free is returned now and then. Elsewhere than in glibc there is nothing to do.
"""

import ctypes
import sys
from functools import cache
from typing import Any

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
LARGE = 2**20  # bytes of a block that is mapped for itself
LARGEST = 2**25  # where glibc itself stops learning
SMALL = 2**24  # bytes of a tile that stays in the heap
OFTEN = 4  # small tiles after which what is free is returned


class LargeBlocks:
    """Large blocks are mapped for themselves from the first large tile until `close`."""

    def __init__(self) -> None:
        self._used = False
        self._small = 0

    def next(self, tile: int) -> None:
        """One of several tiles of a call comes next, of so many bytes."""
        if tile <= SMALL and not self._used:
            self._small += 1
            if self._small % OFTEN == 0:
                _trim()
        elif not self._used:
            self._used = True
            _set(LARGE)

    def close(self) -> None:
        """As before, or nearly: what glibc had learned is not known, so it is set to the most that it would learn."""
        if self._used:
            self._used = False
            _set(LARGEST)


def _set(threshold: int) -> None:
    library = _glibc()
    if library is not None:
        library.mallopt(M_MMAP_THRESHOLD, threshold)


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
