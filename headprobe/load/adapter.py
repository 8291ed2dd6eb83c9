"""Adapters (LoRA and its kin): told apart without torch, and merged into the weights of their base before a scan."""

import json
import re
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headprobe.errors import EnvironmentFailure, HeadprobeError, InputError, RefusedError, UsageError
from headprobe.load.hub import HUB_NAME
from headprobe.load.preflight import PICKLED_ADAPTER, check_safetensors, read_json
from headprobe.settings import LoadOptions

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
UNMERGEABLE = {  # kinds that are no change of weights
    **dict.fromkeys(
        ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT"), "it puts learned vectors before every text"
    ),
    **dict.fromkeys(("PREFIX_TUNING", "CARTRIDGE"), "it puts learned keys before every layer's own"),
    "ADAPTION_PROMPT": "it adds attention to learned prompts",
    **dict.fromkeys(("XLORA", "POLY"), "it mixes several adapters anew for every text"),
    "SHADOW": "it runs a second model beside the first, which it may fetch from anywhere",
}


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder, what kind it is, and its base: a folder, or a name."""

    folder: Path
    kind: str
    task: str | None
    weights: Path
    base: str | Path
    commit: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """What the adapter is made of."""
        return (self.folder / CONFIG, self.weights)

    @property
    def note(self) -> str:
        """For the user to read: which base, and from where."""
        commit = f", commit {self.commit[:12]}" if self.commit else ""
        return f"adapter on base {self.base}{commit}: the {self.kind} weights were merged into it"


def read_adapter(folder: Path, options: LoadOptions) -> Adapter | None:
    """The adapter in a folder, or None if there is none.

    Raises `RefusedError` for a base elsewhere on this machine, and for settings that would import code.
    """
    path = folder / CONFIG
    if not path.is_file():
        if options.base_model is not None:
            raise UsageError("E-OPTION", f"{folder} is no adapter, so --base-model has no use", "Leave it out.")
        return None
    config = read_json(path, "E-ADAPTER")
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if not isinstance(kind, str):
        raise InputError("E-ADAPTER", f'{path} has no "peft_type"')
    if kind in UNMERGEABLE:
        raise InputError("E-ADAPTER", f"{folder} is a {kind} adapter, which is not supported: {UNMERGEABLE[kind]}")
    if config.get("megatron_config") is not None:
        raise RefusedError("E-ADAPTER", f"{path} asks for a module to be imported (megatron_config)")
    weights = _weights(folder, options.allow_pickle)
    base = options.base_model or _base(folder, config.get("base_model_name_or_path"))
    if find_spec("peft") is None:
        raise EnvironmentFailure(
            "E-ADAPTER",
            f"{folder} is a {kind} adapter on {base}, and peft is not installed",
            "Run: pip install 'headprobe[adapters]', or merge it into its base.",
        )
    task = config.get("task_type")
    return Adapter(folder, kind, task if isinstance(task, str) else None, weights, base)


def _weights(folder: Path, allow_pickle: bool) -> Path:
    path, pickled = folder / WEIGHTS, folder / PICKLED_ADAPTER
    if path.is_file():
        check_safetensors(path)
        return path
    if not pickled.is_file():
        raise InputError("E-ADAPTER", f"{path} is missing", "Download it again.")
    if not allow_pickle:
        raise RefusedError(
            "E-PICKLE",
            f"{folder} has only pickled weights ({PICKLED_ADAPTER}), which can run code when loaded",
            "Pass --allow-pickle if you trust their source.",
        )
    return pickled


def _base(folder: Path, named: Any) -> str | Path:
    """The base that an adapter names: in its own folder, or on the hub. A path to elsewhere needs a person."""
    if (folder / "config.json").is_file():
        return folder
    if not isinstance(named, str) or not named:
        raise InputError("E-ADAPTER", f"{folder / CONFIG} names no base model", "Name it with --base-model.")
    inside = (folder / named).resolve()
    if inside.is_dir() and inside.is_relative_to(folder.resolve()) and inside != folder.resolve():
        return inside
    if not HUB_NAME.fullmatch(named) or named.startswith("."):
        raise RefusedError(
            "E-ADAPTER",
            f"{folder / CONFIG} names a base outside its folder ({json.dumps(named)})",
            "Name the base yourself with --base-model.",
        )
    return named


def merge(task: Any, adapter: Adapter, head: Any) -> None:
    """Change the weights of a task model in place to those that the adapter makes of them.

    `head(name)` says whether a weight belongs to the task's head. Raises `InputError` unless everything the adapter
    holds went somewhere and everything it needs was there: peft would leave the rest as it was, with a warning.
    """
    from peft import PeftConfig, PeftModel
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if adapter.kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise InputError("E-ADAPTER", f"{adapter.folder} is a {adapter.kind} adapter, which the installed peft lacks")
    problem = f"the adapter in {adapter.folder} does not fit {adapter.base}"
    config = PeftConfig.from_pretrained(str(adapter.folder))
    config.inference_mode = True
    target, weights = _target(task, adapter), set(task.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = PeftModel(target, config)
        except re.error as fault:  # target_modules may be a pattern
            raise InputError("E-ADAPTER", f"{adapter.folder / CONFIG} has a broken pattern: {fault}") from fault
        result: Any = model.load_adapter(
            str(adapter.folder), "default", torch_device="cpu", ignore_mismatched_sizes=True
        )
        lost = [_plain(name) for name in (*result.missing_keys, *result.unexpected_keys)]
        lost = [name for name in lost if not (name in weights and head(name))]
        if lost:
            raise InputError("E-ADAPTER", f"{problem}: {len(lost)} weights, {', '.join(sorted(lost)[:3])}")
        try:
            model.merge_and_unload()
        except (AttributeError, NotImplementedError, TypeError, ValueError) as fault:
            raise _unmerged(adapter, fault) from fault


def _target(task: Any, adapter: Adapter) -> Any:
    """The model that the adapter was trained on: the task model, or its base if the names fit that one only."""
    if adapter.weights.suffix != ".safetensors":
        return task
    paths = {_plain(name).split(".lora_")[0] for name in check_safetensors(adapter.weights) if ".lora_" in name}
    inside = [model for model in (task, task.base_model) if paths <= {name for name, _ in model.named_modules()}]
    return inside[0] if inside else task


def _plain(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".default", "").replace("modules_to_save.", "")


def _unmerged(adapter: Adapter, fault: Exception) -> HeadprobeError:
    what = str(fault).splitlines()[0][:200] if str(fault) else type(fault).__name__
    return InputError("E-ADAPTER", f"{adapter.folder}: a {adapter.kind} adapter can't be merged ({what})")
