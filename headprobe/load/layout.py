"""What lies in a folder: a checkpoint, one of Sentence Transformers, an adapter, or a GGUF file. Needs no torch."""

import json
from dataclasses import replace
from pathlib import Path

from headprobe.errors import InputError, RefusedError
from headprobe.load.adapter import CONFIG, read_adapter
from headprobe.load.gguf import gguf_path, look_at_gguf
from headprobe.load.hub import Source, find, from_hub
from headprobe.load.preflight import Preflight, preflight, read_json
from headprobe.settings import LoadOptions

FOR_INPUTS = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")


def first_look(path: Path, options: LoadOptions) -> None:
    """Refuse what is wrong with the files at a path, without looking for an adapter's base elsewhere."""
    if gguf_path(path, options) is not None:
        _look(path, options)
        return
    adapter = read_adapter(_for_adapter(path), options)
    if adapter is None or isinstance(adapter.base, Path):
        _look(path if adapter is None or adapter.base == path else Path(adapter.base), options)


def open_folder(name: str, options: LoadOptions) -> tuple[Source, Preflight]:
    """Find a checkpoint, and an adapter's base, and look at their files.

    The source's folder is where tokenizers and processors are; what was looked at says where the model is.
    """
    source = find(name, options)
    if gguf_path(source.folder, options) is not None:
        looked = _look(source.folder, options)
        return replace(source, folder=looked.folder, gguf=looked.weights[0].name), looked
    adapter = read_adapter(_for_adapter(source.folder), options)
    if adapter is None:
        looked = _look(source.folder, options)
        return replace(source, folder=_for_inputs(source.folder, looked.folder)), looked
    base = _base(adapter.base, options)
    if base.folder != adapter.folder and (base.folder / CONFIG).is_file():
        raise InputError("E-ADAPTER", f"the base {base.name} is itself an adapter", "Merge it into its base first.")
    looked = replace(_look(base.folder, options), adapter=replace(adapter, commit=base.commit))
    note = "; ".join(filter(None, (source.note, base.note)))
    return replace(source, folder=_for_inputs(source.folder, looked.folder), note=note), looked


def _base(base: str | Path, options: LoadOptions) -> Source:
    """An adapter's base. What the user named may be anywhere, what the adapter names is a hub name by now."""
    plain = replace(options, revision=None, base_model=None, gguf_file=None)
    if isinstance(base, Path):
        return Source(base, str(base))
    return find(base, plain) if options.base_model else from_hub(base, plain)


def _look(path: Path, options: LoadOptions) -> Preflight:
    file = gguf_path(path, options)
    if file is not None:
        return look_at_gguf(file)
    return preflight(transformer_folder(path), allow_pickle=options.allow_pickle)


def _for_inputs(folder: Path, model: Path) -> Path:
    """The folder whose tokenizer or processor is to be used: that of the model unless the outer one has its own."""
    return folder if any((folder / name).is_file() for name in FOR_INPUTS) else model


def _for_adapter(folder: Path) -> Path:
    """Sentence Transformers keeps the adapter of its transformer beside that."""
    return folder if (folder / CONFIG).is_file() else transformer_folder(folder)


def transformer_folder(folder: Path) -> Path:
    """Where a Sentence Transformers folder has its transformer: modules.json says so."""
    listing = folder / "modules.json"
    modules = read_json(listing, "E-CONFIG") if listing.is_file() else []
    for module in modules if isinstance(modules, list) else []:
        kind, path = (module.get(key) for key in ("type", "path")) if isinstance(module, dict) else (None, None)
        if isinstance(kind, str) and kind.endswith(("Transformer", "CLIPModel")) and isinstance(path, str):
            if "\0" in path or not (folder / path).resolve().is_relative_to(folder.resolve()):
                raise RefusedError("E-TRAVERSAL", f"{listing} points outside the folder ({json.dumps(path)})")
            return folder / path
    return folder
