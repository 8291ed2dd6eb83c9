"""GGUF: a model in one file, read by transformers and de-quantised. Needs no torch to be told apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headprobe.errors import EnvironmentFailure, InputError, UsageError
from headprobe.load.preflight import Preflight
from headprobe.settings import LoadOptions

NOTE = "the weights were read from GGUF: where they were quantised, attention is that of the de-quantised weights"


def gguf_path(path: Path, options: LoadOptions) -> Path | None:
    """The GGUF file that is asked for: the path itself, or the named file in it. None for other checkpoints."""
    name = options.gguf_file
    is_file = path.is_file() and path.suffix.lower() == ".gguf"
    if options.base_model is not None and (is_file or name is not None):
        raise UsageError("E-OPTION", "a GGUF file is no adapter, so --base-model has no use", "Leave it out.")
    if is_file:
        if name is not None and name != path.name:
            raise UsageError("E-OPTION", f"--gguf-file {name} and {path} are two files", "Give one of them.")
        return path
    if name is None:
        return None
    if not (path / name).is_file():
        there = sorted(file.name for file in path.glob("*.gguf")) if path.is_dir() else []
        raise InputError("E-GGUF", f"no file {name} in {path}", f"It has {', '.join(there[:5])}." if there else "")
    return path / name


def look_at_gguf(path: Path) -> Preflight:
    """A file that says it is GGUF, and the packages to read it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise InputError("E-LFS", f"{path} is a Git LFS pointer ({size} bytes)", "Run: git lfs pull")
    if not start.startswith(b"GGUF") or len(start) < 24:
        raise InputError("E-GGUF", f"{path} is no GGUF file ({size:,} bytes)", "Download it again.")
    absent = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if absent:
        raise EnvironmentFailure(
            "E-PACKAGE",
            f"{path} can't be read: {' and '.join(absent)} not installed",
            "Run: pip install 'headprobe[gguf]'",
        )
    return Preflight(path.parent, {}, (path,), frozenset(), is_gguf=True)


@contextmanager
def quiet() -> Iterator[None]:
    """The reader's own progress bar, which no setting of transformers turns off, kept off the terminal."""
    reader: Any = import_module("transformers.modeling_gguf_pytorch_utils")

    bar = reader.tqdm
    reader.tqdm = lambda tensors, **_: tensors
    try:
        yield
    finally:
        reader.tqdm = bar


def arguments(looked: Preflight) -> dict[str, Any]:
    """What tells transformers to read the file and to de-quantise it."""
    if not looked.is_gguf:
        return {}
    import transformers

    given: dict[str, Any] = {"gguf_file": looked.weights[0].name}
    settings = getattr(transformers, "GgufConfig", None)  # older versions de-quantise always
    return given if settings is None else {**given, "quantization_config": settings(dequantize=True)}
