"""What can be said of a checkpoint's folder from its files alone, in milliseconds and without torch.

transformers tells eight different faults with one message, and lets some through that make part of a model random.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headprobe.errors import InputError, RefusedError, UsageError
from headprobe.settings import MOST_LAYERS

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED_ADAPTER = "adapter_model.bin"
FOREIGN = {  # other formats, by a file that gives them away
    "*.gguf": "GGUF",
    "*.onnx": "ONNX",
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "consolidated*.safetensors": "the model author's own layout (consolidated.safetensors)",
}


@dataclass(frozen=True)
class Preflight:
    """What passed: a folder, its config, its weight files, and the names of the tensors in them.

    A GGUF file has its config inside. An adapter belongs to the model that is here.
    """

    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]
    tensors: frozenset[str]
    is_gguf: bool = False
    adapter: Any = None
    quantization: str | None = None


def preflight(folder: Path, *, allow_pickle: bool) -> Preflight:
    """Read a checkpoint's config and the headers of its weights; refuse what can't be loaded or mustn't be.

    Raises `InputError` for what is missing or corrupt, `RefusedError` for pickled weights and for shards outside the
    folder, `EnvironmentFailure` where a package is missing.
    """
    if not folder.exists():
        raise InputError("E-PATH", f"no folder at {folder}")
    if not folder.is_dir():
        raise UsageError("E-FILE", f"{folder} is a file", "Give its folder.")
    config = _config(folder)
    weights = _weight_files(folder, allow_pickle)
    headers = {path: check_safetensors(path) for path in weights if path.suffix == ".safetensors"}
    _refuse_integers(list(headers.values()), config)
    if not (folder / SINGLE).is_file():
        _check_promises(folder, headers)
    tensors = frozenset(name for header in headers.values() for name in header if name != "__metadata__")
    return Preflight(folder, config, tuple(weights), tensors)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise _no_config(folder)
    config = read_json(path, "E-CONFIG")
    if not isinstance(config, dict):
        raise InputError("E-CONFIG", f"{path} is not a JSON object")
    if not isinstance(config.get("model_type"), str):
        raise InputError("E-CONFIG", f'{path} has no "model_type"')
    if config.get("transformers_weights") is not None:
        named = json.dumps(config["transformers_weights"])
        raise RefusedError("E-TRAVERSAL", f"{path} redirects the weights to {named}", "Remove transformers_weights.")
    for name in ("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads", "decoder_attention_heads"):
        heads = config.get(name)
        if isinstance(heads, int) and heads < 1:
            raise InputError("E-CONFIG", f"{path} says {heads} attention heads ({name})")
    layers = config.get("num_hidden_layers")
    if isinstance(layers, int) and layers > MOST_LAYERS:  # whose modules alone would take minutes to build
        raise InputError("E-LAYERS", f"{path} asks for {layers} layers")
    return config


def _no_config(folder: Path) -> Exception:
    if (folder / "adapter_config.json").is_file():
        return InputError("E-ADAPTER", f"{folder} is itself an adapter and no base", "Merge it into its base first.")
    if (folder / "model_index.json").is_file():
        return InputError(
            "E-DIFFUSERS", f"{folder} is a diffusers pipeline", f"Give a component, e.g. {folder}/text_encoder."
        )
    checkpoints = [path.name for path in folder.glob("checkpoint-*") if path.is_dir()]
    if checkpoints:
        return InputError(
            "E-PARENT",
            f"{folder} holds checkpoints and is none itself",
            f"Give {folder / max(checkpoints, key=_step)}.",
        )
    foreign = _foreign(folder)
    if foreign:
        hint = "Name the file with --gguf-file." if foreign == "GGUF" else "headprobe reads safetensors checkpoints."
        return InputError("E-FORMAT", f"{folder} holds {foreign} and no config.json", hint)
    return InputError("E-NOCONFIG", f"no config.json in {folder}", "Give the folder of a Hugging Face checkpoint.")


def _step(name: str) -> tuple[int, str]:
    """checkpoint-1000 comes after checkpoint-200."""
    number = name.rsplit("-", 1)[-1]
    return (int(number) if number.isdigit() else -1, name)


def _foreign(folder: Path) -> str:
    return next((name for pattern, name in FOREIGN.items() if any(folder.glob(pattern))), "")


def _weight_files(folder: Path, allow_pickle: bool) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return _shards(folder)
    if any(folder.glob("model-*-of-*.safetensors")):
        raise InputError("E-INDEX", f"{folder} has shards but no {INDEX}", "Download the index too.")
    pickled = sorted(folder.glob("pytorch_model*.bin"))
    if pickled and allow_pickle:
        return pickled
    if pickled:
        raise RefusedError(
            "E-PICKLE",
            f"{folder} has only pickled weights ({pickled[0].name}), which can run code when loaded",
            "Convert them to safetensors, or pass --allow-pickle if you trust their source.",
        )
    foreign = _foreign(folder)
    found = f"found {foreign}, need {SINGLE}" if foreign else f"no {SINGLE}"
    hint = "Name the file with --gguf-file." if foreign == "GGUF" else ""
    raise InputError("E-FORMAT" if foreign else "E-WEIGHTS", f"no weights in {folder}: {found}", hint)


def _shards(folder: Path) -> list[Path]:
    index = read_json(folder / INDEX, "E-INDEX")
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError("E-INDEX", f"{folder / INDEX} is malformed: no weight_map of file names")
    names = sorted(set(weight_map.values()))
    if not names:
        raise InputError("E-INDEX", f"{folder / INDEX} is malformed: it names no shards")
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            raise RefusedError("E-TRAVERSAL", f"{folder / INDEX} points outside the folder ({json.dumps(name)})")
        if not name.endswith(".safetensors"):
            raise RefusedError(
                "E-PICKLE", f"{folder / INDEX} points to {json.dumps(name)}, which is no safetensors file"
            )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        have = len(names) - len(missing)
        raise InputError(
            "E-SHARD", f"{folder / missing[0]} is missing ({have} of {len(names)} shards present)", "Download it again."
        )
    return [folder / name for name in names]


def _check_promises(folder: Path, headers: dict[Path, dict[str, Any]]) -> None:
    """Every tensor must be in the shard that the index names."""
    if not headers:
        return
    for tensor, shard in read_json(folder / INDEX, "E-INDEX")["weight_map"].items():
        if tensor not in headers[folder / shard]:
            raise InputError("E-INDEX", f"{folder / shard} lacks {tensor}, which {INDEX} says is in it")


def check_safetensors(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: 8 bytes of length, JSON, then data that it describes to the last byte."""
    size = path.stat().st_size
    if size == 0:
        raise InputError("E-SAFETENSORS", f"{path} is empty (0 bytes)", "Download it again.")
    with path.open("rb") as file:
        start = file.read(200)
        if start.startswith(b"version https://git-lfs"):
            raise InputError("E-LFS", f"{path} is a Git LFS pointer ({size} bytes)", "Run: git lfs pull")
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else size
        if length > size - 8:
            raise InputError(
                "E-SAFETENSORS", f"{path} is truncated or no safetensors file: its header of {length:,} bytes does not"
                f" fit in {size:,} bytes", "Download it again.",
            )  # fmt: skip
        file.seek(8)
        raw = file.read(length)
    try:
        header = json.loads(raw)
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        described = 8 + length + max(ends, default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as fault:
        raise InputError("E-SAFETENSORS", f"the header of {path} is corrupt", "Download it again.") from fault
    if described != size:
        what = "truncated" if described > size else "longer than it says"
        raise InputError(
            "E-SAFETENSORS",
            f"{path} is {what}: {size:,} bytes, its header describes {described:,}",
            "Download it again.",
        )
    _check_tensors(path)
    return dict(header)


def _check_tensors(path: Path) -> None:
    """The library's own check of dtypes, shapes and offsets."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as fault:
        what = str(fault).splitlines()[0].removeprefix("Error while deserializing header: ")[:120]
        raise InputError("E-SAFETENSORS", f"the header of {path} is corrupt ({what})", "Download it again.") from fault


def _refuse_integers(headers: list[dict[str, Any]], config: dict[str, Any]) -> None:
    """Integers and 8-bit floats mean nothing without the scales that a quantization_config tells of."""
    inner = config.get("text_config")
    if "quantization_config" in config or (isinstance(inner, dict) and "quantization_config" in inner):
        return
    found = {
        name: "8-bit float" if str(entry.get("dtype")).startswith("F8") else "integer"
        for header in headers
        for name, entry in header.items()
        if name.endswith((".weight", ".bias")) and str(entry.get("dtype")).startswith(("I", "U", "F8"))
    }
    for name, kind in found.items():
        raise InputError("E-DTYPE", f"{len(found)} {kind} weights ({name}) but no quantization_config in config.json")


def read_json(path: Path, code: str) -> Any:
    """The JSON of a file, or an `InputError` that says where it breaks."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as fault:
        raise InputError(code, f"{path} is not valid JSON (line {fault.lineno} column {fault.colno})") from fault
    except UnicodeDecodeError as fault:
        raise InputError(code, f"{path} is not UTF-8 (byte {fault.start})") from fault
    except RecursionError as fault:
        raise InputError(code, f"{path} is nested too deeply") from fault
    except OSError as fault:
        raise InputError(code, f"{path} can't be read: {fault.strerror}") from fault
