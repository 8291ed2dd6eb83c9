"""The loader's report: a weight that the checkpoint lacks would be random numbers, and is an error here."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from headprobe.errors import InputError
from headprobe.load.preflight import Preflight


def check_report(task: Any, model: nn.Module, report: dict[str, Any], looked: Preflight) -> list[str]:
    """Raise `InputError` unless every weight of the scanned model came from the checkpoint and no layer was left out.

    `task` is what was loaded, `model` the part of it that is scanned. A pooling layer may be missing, since it comes
    after all attention; a task head may be missing or left over. Returns what the head lacks, which is random now.
    """
    folder, in_head = looked.folder, head_of(task, model)
    mismatched = sorted(entry for entry in report["mismatched_keys"] if not in_head(entry[0]))
    if mismatched:
        name, found, needed = mismatched[0]
        raise InputError(
            "E-SHAPE",
            f"{len(mismatched)} weights of {folder} have the wrong shape:"
            f" {name} is {list(found)} in the file, config.json needs {list(needed)}",
        )
    lost = sorted({*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])})
    missing = [name for name in lost if not in_head(name)]
    unexpected = sorted(report["unexpected_keys"])
    if missing:
        raise _missing(missing, unexpected, len(model.state_dict()), looked, folder)
    if report["error_msgs"]:
        raise InputError("E-LOAD", f"{folder} can't be loaded: {str(report['error_msgs'][0]).splitlines()[0]}")
    _check_left_over_layers(task, unexpected, folder)
    return [name for name in lost if in_head(name)]


def head_of(task: Any, model: nn.Module) -> Callable[[str], bool]:
    """Tells by a weight's name in the task model whether it comes after all attention of the scanned part."""
    prefix = next((f"{path}." for path, module in task.named_modules() if module is model and path), "")
    scanned = {prefix + name for name in model.state_dict()}
    output = task.get_output_embeddings()
    last = {f"{path}." for path, module in task.named_modules() if output is not None and module is output}

    def in_head(name: str) -> bool:
        return name not in scanned or "pooler" in name.split(".") or name.startswith(tuple(last))

    return in_head


def _missing(missing: list[str], unexpected: list[str], total: int, looked: Preflight, folder: Path) -> InputError:
    hint = "Their values would be random, so nothing was measured."
    firsts = {name.split(".", 1)[0] for name in looked.tensors}
    alike = get_close_matches(missing[0], unexpected, n=1, cutoff=0.7)
    if len(missing) == total and len(firsts) == 1:
        hint = f'The file\'s names all start with "{firsts.pop()}.".'
    elif alike:
        hint = f"The file has {alike[0]} instead. {hint}"
    shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return InputError("E-MISSING", f"{len(missing)} of {total} weights are not in {folder}: {shown}", hint)


def _check_left_over_layers(model: nn.Module, unexpected: list[str], folder: Path) -> None:
    """A numbered layer that the checkpoint has and the model lacks would silently go unmeasured."""
    stacks = {path: len(module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    for name in unexpected:
        parts = name.split(".")
        for i, part in enumerate(parts):
            owners = [path for path in stacks if f".{'.'.join(parts[:i])}".endswith(f".{path}")]
            if part.isdigit() and owners and int(part) >= stacks[max(owners, key=len)]:
                layers = stacks[max(owners, key=len)]
                raise InputError(
                    "E-LAYERS", f"{folder} holds {name}, but config.json says {layers} layers", "Correct config.json."
                )
