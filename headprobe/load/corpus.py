"""Texts to run a model on: files, standard input, or the built-in sample."""

import csv
import hashlib
import io
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from headprobe.errors import EnvironmentFailure, InputError, UsageError, nearest
from headprobe.settings import InputOptions

BUILT_IN = "texts-1"
FIELDS = ("text", "content", "prompt", "sentence")  # tried in this order where --field doesn't say
T = TypeVar("T")
FORMATS = (".txt", ".jsonl", ".csv", ".parquet")
_READ: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()  # what standard input held


@dataclass(frozen=True)
class Corpus:
    """Texts in their order, where they come from, and how many were empty and left out."""

    texts: tuple[str, ...]
    source: str
    empty: int = 0
    targets: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the texts and their order."""
        joined = "\0".join((*self.texts, *self.targets))
        return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()


def corpus(options: InputOptions, targets: list[str] | None = None) -> Corpus:
    """The texts that the options name, the built-in sample if they name none.

    `limit` takes the first so many; with a `seed` it draws them, keeping their order. Raises `InputError` for files
    that can't be read and where no text is left.
    """
    source = ", ".join(options.text) if options.text else f"built-in {BUILT_IN}"
    read = read_texts(options.text, options.field) if options.text else list(_built_in())
    return from_texts(read, source, options, targets)


def targets_of(options: InputOptions) -> list[str] | None:
    """The texts that a decoder is to read, if the options name some."""
    return read_texts(options.target_text, options.field) if options.target_text else None


def read_texts(paths: tuple[str, ...], field: str | None) -> list[str]:
    """All texts of some files, empty ones too."""
    return [text for path in paths for text in _read(path, field)]


def from_texts(read: list[str], source: str, options: InputOptions, targets: list[str] | None = None) -> Corpus:
    """A corpus of texts at hand, each with its target where there are some."""
    read = [clean(text) for text in read]
    if targets is not None:
        check_targets(targets, len(read), "texts")
    kept = [i for i, text in enumerate(read) if text.strip()]
    if not kept:
        raise InputError("E-DATA", f"no usable text in {source} ({len(read)} read, {len(read)} empty)")
    empty = len(read) - len(kept)
    kept = chosen(kept, options)
    return Corpus(tuple(read[i] for i in kept), source, empty, tuple(targets[i] for i in kept) if targets else ())


def check_targets(targets: list[str], count: int, what: str) -> None:
    """Raise `InputError` unless there is one target text for each of `count` inputs."""
    if len(targets) != count:
        raise InputError(
            "E-TARGETS", f"{len(targets)} target texts for {count} {what}", "Give one target for each, in their order."
        )


def chosen(items: list[T], options: InputOptions) -> list[T]:
    """The first `limit` items, or with a `seed` so many drawn at random, in their order."""
    if options.limit is not None and options.seed is not None and options.limit < len(items):
        drawn = sorted(random.Random(options.seed).sample(range(len(items)), options.limit))
        return [items[i] for i in drawn]
    return items[: options.limit]


def _built_in() -> Iterator[str]:
    lines = files("headprobe.load").joinpath(f"data/{BUILT_IN}.jsonl").read_text(encoding="utf-8")
    for line in lines.splitlines():
        yield json.loads(line)["text"]


def _read(name: str, field: str | None) -> list[str]:
    if name == "-":
        return _lines(_decode(_standard_input(), "standard input"))
    path = Path(name)
    suffix = path.suffix.lower()
    if path.is_dir():
        raise InputError("E-DATA", f"{path} is a folder", "Give the files in it.")
    if suffix not in FORMATS:
        if not path.exists():
            raise InputError("E-DATA", f"no text file at {path}")
        raise UsageError(
            "E-FORMAT",
            f'{path}: "{path.suffix}" is no format of texts',
            f"Valid: {', '.join(FORMATS)}, or - for standard input.",
        )
    if suffix == ".parquet":
        return _parquet(path, field)
    content = _decode(_bytes(path), str(path))
    if suffix == ".txt":
        return _lines(content)
    rows = _jsonl(content, path) if suffix == ".jsonl" else _csv(content, path)
    return _column(rows, field, path)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as fault:
        raise InputError("E-DATA", f"no text file at {path}") from fault
    except OSError as fault:
        raise InputError("E-DATA", f"{path} can't be read: {fault.strerror}") from fault


def _lines(content: str) -> list[str]:
    """Lines as files have them: a form feed or a Unicode separator inside a text doesn't end it."""
    lines = content.replace("\r\n", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def _standard_input() -> bytes:
    """All of it, also when it is asked for again: two models are run on it, or a null model after the model."""
    stream = sys.stdin.buffer
    if stream not in _READ:
        _READ[stream] = stream.read()
    return _READ[stream]


def _decode(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        raise InputError(
            "E-ENCODING",
            f"{where} is not UTF-8 (line {line}, byte {fault.start})",
            "Convert it, e.g. with iconv -t utf-8.",
        ) from fault


def records(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a .jsonl file with the numbers of their lines."""
    return list(_jsonl(_decode(_bytes(path), str(path)), path))


def _jsonl(content: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as fault:  # ValueError for numbers of thousands of digits too
            raise InputError("E-DATA", f"{path}:{number} is not valid JSON") from fault
        if not isinstance(row, dict):
            raise InputError("E-DATA", f"{path}:{number} is not a JSON object")
        yield number, row


def _csv(content: str, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as fault:
        raise InputError("E-DATA", f"{path}:{reader.line_num + 1} is not valid CSV: {fault}") from fault


def _parquet(path: Path, field: str | None) -> list[str]:
    content = io.BytesIO(_bytes(path))
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table
    except ImportError as fault:
        raise EnvironmentFailure(
            "E-PACKAGE", f'{path} needs the package "pyarrow"', 'Run: pip install "headprobe[parquet]"'
        ) from fault
    try:
        rows = read_table(content).to_pylist()
    except (ArrowException, OSError) as fault:
        raise InputError("E-DATA", f"{path} is not valid Parquet") from fault
    return _column(iter(enumerate(rows, 1)), field, path)


def _column(rows: Iterator[tuple[int, dict[str, Any]]], field: str | None, path: Path) -> list[str]:
    """One field of every row. A missing or null value counts as an empty text, anything but text is an error."""
    texts: list[str] = []
    for number, row in rows:
        if not texts:
            field = _field(row, field, path)
        text = row.get(str(field))
        if not isinstance(text, str | None):
            raise InputError(
                "E-DATA", f'{path}:{number}: "{field}" is no text but {json.dumps(text, default=str)[:40]}'
            )
        texts.append(clean(text or ""))
    return texts


def clean(text: str) -> str:
    """The text as any tokenizer takes it: a lone surrogate is no character."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _field(row: dict[str, Any], field: str | None, path: Path) -> str:
    names = [str(name) for name in row if name is not None]
    if field is not None:
        if field not in names:
            raise UsageError("E-FIELD", f'{path} has no field "{field}"', nearest(field, names))
        return field
    strings = [name for name in names if isinstance(row[name], str)]
    known = [name for name in FIELDS if name in names]
    if known or len(strings) == 1:
        return (known or strings)[0]
    raise UsageError(
        "E-FIELD", f"{path} has {len(strings)} text fields ({', '.join(strings[:8])})", "Choose one with --field."
    )
