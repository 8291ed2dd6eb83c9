"""Files of one kind that a user names, one by one or by their folder, always in the same order."""

from dataclasses import dataclass
from pathlib import Path

from headprobe.errors import InputError


@dataclass(frozen=True)
class Found:
    """Files in their order, and how many others lay beside them."""

    paths: list[Path]
    skipped: int


def find_files(names: tuple[str, ...], suffixes: tuple[str, ...], what: str) -> Found:
    """The named files, and of named folders all files with one of the suffixes, sorted by relative path.

    Hidden files, links that leave their folder and files of other kinds are skipped and counted; a file that is named
    itself is never skipped. Raises `InputError` where there is nothing.
    """
    paths: list[Path] = []
    skipped = 0
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside, others = _inside(path, suffixes)
            if not inside:
                raise InputError(
                    "E-DATA", f"no {what} in {path} ({others} other files)", f"Valid: {', '.join(suffixes)}."
                )
            paths += inside
            skipped += others
        elif path.exists():
            paths.append(path)
        else:
            raise InputError("E-DATA", f"no {what} at {path}")
    return Found(paths, skipped)


def _inside(folder: Path, suffixes: tuple[str, ...]) -> tuple[list[Path], int]:
    root = folder.resolve()
    try:
        files = [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    except OSError as fault:
        raise InputError("E-DATA", f"{folder} can't be read: {fault.strerror}") from fault
    kept = [path for path in files if path.suffix.lower() in suffixes and _belongs(path, folder, root)]
    return sorted(kept, key=lambda path: path.relative_to(folder).as_posix()), len(files) - len(kept)


def _belongs(path: Path, folder: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.is_file() and path.resolve().is_relative_to(root)
