"""Files of data: a suffix says which. Every file is written whole or not at all."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pandas as pd

from headprobe.errors import EnvironmentFailure, UsageError, nearest
from headprobe.write.atomic import atomic_write, make_folder
from headprobe.write.csv import csv_bytes
from headprobe.write.json import json_bytes, read_document
from headprobe.write.parquet import has_parquet, parquet_bytes

__all__ = ["check_output", "csv_bytes", "json_bytes", "read_document", "write_output", "write_table"]

SUFFIXES = (".json", ".csv", ".parquet")


def write_output(path: Path, document: dict[str, Any], tables: dict[str, pd.DataFrame]) -> list[Path]:
    """Write a report to `path` by its suffix, a folder for none: `report.json` last, after the tables beside it."""
    check_output(path)
    if path.suffix == ".json":
        return [atomic_write(path, json_bytes(document))]
    if path.suffix:
        return [write_table(path, tables["heads"])]
    make_folder(path)
    written = [write_table(path / f"{name}.csv", table) for name, table in tables.items()]
    if has_parquet():
        written += [write_table(path / f"{name}.parquet", table) for name, table in tables.items()]
    return [*written, atomic_write(path / "report.json", json_bytes(document))]


def write_table(path: Path, table: pd.DataFrame) -> Path:
    """Write one table as `.csv` or `.parquet`."""
    return atomic_write(path, csv_bytes(table) if path.suffix == ".csv" else parquet_bytes(table))


def check_output(path: Path, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Find out before the work whether `path` can be written; raise `UsageError` or `EnvironmentFailure` if not."""
    if path.suffix and path.suffix not in suffixes and not path.is_dir():
        raise UsageError("E-FORMAT", f'-o {path}: unknown format "{path.suffix}"', nearest(path.suffix, suffixes))
    if path.suffix == ".parquet" and not has_parquet():
        raise EnvironmentFailure(
            "E-PACKAGE", f'{path} needs the package "pyarrow"', 'Run: pip install "headprobe[parquet]"'
        )
    if path.suffix and path.is_dir():
        raise UsageError("E-OUTPUT", f"-o {path} is a folder", "Give a file, or a folder's name without a suffix.")
    if not path.suffix and path.is_file():
        raise UsageError("E-OUTPUT", f"-o {path} is a file", f"Give a folder, or one of {', '.join(suffixes)}.")
    _probe(path.parent if path.suffix else path, path)


def _probe(folder: Path, path: Path) -> None:
    """Try to write, and leave nothing: a missing folder is made later, a file's must exist."""
    if path.suffix and not folder.is_dir():
        hint = "" if folder.exists() else f"Run: mkdir -p {folder}"
        raise EnvironmentFailure("E-OUTPUT", f"-o {path} can't be written: {folder} is no folder", hint)
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    try:
        with TemporaryFile(dir=existing):
            pass
    except OSError as fault:
        raise EnvironmentFailure("E-OUTPUT", f"-o {path} can't be written: {fault.strerror}") from fault
