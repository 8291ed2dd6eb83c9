"""Fingerprints of files: safetensors has no checksum of its own."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def file_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 by file name. hashlib releases the interpreter, so that a scan can go on meanwhile."""
    hashes = {}
    for path in paths:
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
