"""Which class a checkpoint is of, and which part of it is scanned."""

import sys
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headprobe.settings import LoadOptions

TASKS = {  # what an adapter was trained for, by peft's name for it
    "SEQ_CLS": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "SEQ_2_SEQ_LM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "CAUSAL_LM": "MODEL_FOR_CAUSAL_LM_MAPPING",
    "TOKEN_CLS": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "QUESTION_ANS": "MODEL_FOR_QUESTION_ANSWERING_MAPPING",
    "FEATURE_EXTRACTION": "MODEL_MAPPING",
}


def find_class(config: Any, folder: Path, options: LoadOptions, task: str | None = None) -> Any:
    """The class that config.json names, the one for an adapter's `task`, or `AutoModel` where neither is there.

    A class counts if it is transformers' own for this type of config, or in the checkpoint's code if that is trusted.
    """
    if options.trust_remote_code and getattr(config, "auto_map", None):
        own = _own_class(config, folder)
        if own is not None:
            return own
    found = _for_task(config, task) or next(filter(None, (_built_in(config, name) for name in named(config))), None)
    return found or _auto(config)


def named(config: Any) -> list[str]:
    """The classes that config.json names."""
    names = getattr(config, "architectures", None)
    return [name for name in names if isinstance(name, str)] if isinstance(names, list | tuple) else []


def _built_in(config: Any, name: str) -> Any:
    import transformers

    found = getattr(transformers, name, None) if name.isidentifier() and not name.startswith("_") else None
    return found if _fits(found, config) else None


def _fits(found: Any, config: Any) -> bool:
    from transformers import PreTrainedModel

    return (
        isinstance(found, type)
        and issubclass(found, PreTrainedModel)
        and found.config_class is type(config)
        and found.forward is not nn.Module.forward  # classes that only others are made of
    )


def _mapped(mapping: str, config: Any) -> Any:
    import transformers

    try:
        found = getattr(transformers, mapping).get(type(config), None)
    except ValueError:  # an entry for a class that transformers does not export
        return None
    return found if isinstance(found, type) else None


def _for_task(config: Any, task: str | None) -> Any:
    return _mapped(TASKS[task], config) if task in TASKS else None


def _auto(config: Any) -> Any:
    """AutoModel if it knows the type, else the first class of the config's module that can run."""
    from transformers import MODEL_MAPPING, AutoModel

    if type(config) in MODEL_MAPPING or not type(config).__module__.startswith("transformers."):
        return AutoModel
    module = import_module(type(config).__module__.replace("configuration_", "modeling_"))
    offered = (getattr(module, name) for name in getattr(module, "__all__", ()))
    return next((found for found in offered if _fits(found, config)), AutoModel)


def _own_class(config: Any, folder: Path) -> Any:
    """The class that config.json names, in the code that came with the checkpoint."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    references = {auto: ref for auto, ref in config.auto_map.items() if auto.startswith("AutoModel")}
    references = {auto: ref for auto, ref in references.items() if isinstance(ref, str)}
    if not references:
        return None
    by_class = {ref.rsplit(".", 1)[-1]: ref for ref in references.values()}
    wanted = next((name for name in named(config) if name in by_class), None)
    default = references.get("AutoModel") or next(iter(references.values()))
    found = get_class_from_dynamic_module(by_class[wanted] if wanted else default, folder, local_files_only=True)
    beside = sys.modules[found.__module__]
    others = (getattr(beside, name, None) for name in named(config) if not wanted)
    chosen = next((other for other in others if _fits(other, config)), found)
    return _able_to_generate(chosen)


def _able_to_generate(chosen: Any) -> Any:
    """Own code may leave out generate(), as AutoModel knows."""
    from transformers.models.auto.auto_factory import add_generation_mixin_to_remote_model

    return add_generation_mixin_to_remote_model(chosen)


def arguments(cls: Any, config: Any) -> dict[str, bool]:
    """The argument that leaves out the pooling layer, where the class has one.

    Checkpoints saved with another head lack its weights; it comes after all attention, so nothing needs it.
    """
    from transformers import AutoModel

    built = _mapped("MODEL_MAPPING", config) if cls is AutoModel else cls
    code = getattr(getattr(built, "__init__", None), "__code__", None)
    return {"add_pooling_layer": False} if code and "add_pooling_layer" in code.co_varnames else {}


def skeleton(config: Any, folder: Path, options: LoadOptions) -> Any:
    """The task model of a config, not loaded: on the current device, in eval mode."""
    cls = find_class(config, folder, options)
    build = getattr(cls, "_from_config", None) or cls.from_config
    given = {} if hasattr(cls, "_from_config") else {"trust_remote_code": options.trust_remote_code}
    model = build(config, attn_implementation="eager", dtype=torch.float32, **arguments(cls, config), **given)
    return model.eval()


def fresh(model: Any, seed: int) -> Any:
    """A model of the same class and config as `model`, with weights as training begins, on the same device."""
    parameter = next(model.parameters())
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        made = type(model)._from_config(
            model.config, attn_implementation="eager", dtype=parameter.dtype, **arguments(type(model), model.config)
        )
    return made.to(parameter.device).eval()


def scanned(task: Any) -> Any:
    """The part of a task model that has all its attention: without the head if that has none of its own."""
    from transformers import PreTrainedModel

    base = task.base_model
    if base is task:
        return _headless(task)
    is_alone = isinstance(base, PreTrainedModel) and base.main_input_name == task.main_input_name
    # DINOv3 gives its bare encoder, which starts from embeddings, the name of the pixels that it doesn't take
    is_alone = is_alone and base.main_input_name in signature(base.forward).parameters
    return base if is_alone and _holds_all_attention(set(base.modules()), task) else task


def _holds_all_attention(inside: set[nn.Module], task: nn.Module) -> bool:
    return all(module in inside for module in task.modules() if "attention" in type(module).__name__.lower())


def _headless(task: Any) -> Any:
    """The type's bare model around the task model's own parts, where it has the same: T5 and its kin.

    Their output layer is as large as the vocabulary, and a forward pass that goes through it costs twice the time.
    """
    cls = _mapped("MODEL_MAPPING", task.config)
    if cls is None or isinstance(task, cls):
        return task
    with torch.device("meta"):
        bare = cls(task.config)
    parts = dict(bare.named_children())
    same = all(type(getattr(task, name, None)) is type(part) for name, part in parts.items())
    loose = [*bare.named_parameters(recurse=False), *bare.named_buffers(recurse=False)]
    inside = {module for name in parts if same for module in getattr(task, name).modules()}
    if loose or not same or not _holds_all_attention(inside, task) or bare.main_input_name != task.main_input_name:
        return task
    for name in parts:
        setattr(bare, name, getattr(task, name))
    return bare
