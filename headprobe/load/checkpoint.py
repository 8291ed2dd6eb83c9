"""A checkpoint becomes a model in eval mode, with everything suspicious about it refused or noted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from headprobe.errors import EnvironmentFailure, HeadprobeError, InputError, RefusedError, nearest
from headprobe.load.hub import Source, find
from headprobe.load.missing import check_report
from headprobe.load.preflight import Preflight, preflight
from headprobe.settings import LoadOptions

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
# What transformers raises for configs and weights that it can't make sense of; each becomes one line.
LOADING_FAULTS: tuple[type[Exception], ...] = (
    OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, AssertionError, ArithmeticError,
    EOFError, StrictDataclassError,
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to be observed and what is known of it. `notes` are for the user to read."""

    model: nn.Module
    config: Any
    source: Source
    files: tuple[Path, ...] = ()
    notes: list[str] = field(default_factory=list)

    @property
    def modality(self) -> str:
        """ "text" or "image"; raises `InputError` for a model that takes anything else."""
        return modality(self.model)


def modality(model: nn.Module) -> str:
    """What a model takes: "text" or "image"."""
    name = getattr(model, "main_input_name", "")
    known = {"input_ids": "text", "pixel_values": "image"}
    if name not in known:
        raise InputError(
            "E-MODALITY",
            f"{type(model).__name__} takes {name or 'unknown inputs'}",
            "Text and image models are supported.",
        )
    return known[name]


def load_checkpoint(name: str, options: LoadOptions) -> Checkpoint:
    """Load a checkpoint's base model for observation: eager attention, eval mode, nothing random in it.

    Raises `HeadprobeError` with the reason for anything that would make the numbers wrong.
    """
    source, looked, config = open_config(name, options)
    device = _device(options.device)
    notes = [source.note] if source.note else []
    if "auto_map" in looked.config and not options.trust_remote_code:
        notes.append(
            f'the checkpoint ships its own code, which was not run: the built-in "{config.model_type}" is used'
        )
    what = looked.weights[0] if len(looked.weights) == 1 else source.folder
    with quiet(), told("E-LOAD", f"{what} can't be loaded"):
        model, report = _load(source.folder, config, options)
    check_report(model, report, looked, source.folder)
    _check_finite(model)
    model = model.eval().requires_grad_(False).to(device)
    if model.config._attn_implementation != "eager":
        raise InputError("E-EAGER", f"{type(model).__name__} can't be run with eager attention")
    return Checkpoint(model, model.config, source, (source.folder / "config.json", *looked.weights), notes)


def open_config(name: str, options: LoadOptions) -> tuple[Source, Preflight, Any]:
    """Find a checkpoint, check its files, and read its config with the attention implementation made eager.

    The field is overwritten since a value in config.json beats the argument that the loader is given.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    source = find(name, options)
    looked = preflight(source.folder, allow_pickle=options.allow_pickle)
    model_type = looked.config["model_type"]
    if model_type not in CONFIG_MAPPING and not options.trust_remote_code:
        if "auto_map" in looked.config:
            raise RefusedError(
                "E-REMOTE",
                f"{source.folder} is of a type of its own ({model_type}) and ships the code for it",
                "Review the code, then pass --trust-remote-code.",
            )
        raise InputError(
            "E-ARCH",
            f'model type "{model_type}" is unknown to the installed transformers',
            nearest(model_type, CONFIG_MAPPING.keys()),
        )
    _check_quantization(looked.config, source.folder)
    _check_activations(looked.config, source.folder)
    with quiet(), told("E-CONFIG", f"{source.folder / 'config.json'} describes no valid model"):
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=options.trust_remote_code)
        config._attn_implementation = "eager"
    return source, looked, config


def _check_quantization(config: dict[str, Any], folder: Path) -> None:
    """An unknown method would be ignored, and the weights taken for what they are not."""
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    quantization = config.get("quantization_config")
    method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
    if quantization is not None and method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
        raise InputError("E-QUANT", f"{folder / 'config.json'} has unknown quantization {method!r}")


def _check_activations(config: dict[str, Any], folder: Path) -> None:
    from transformers.activations import ACT2FN

    where = folder / "config.json"
    for name in ("hidden_act", "hidden_activation", "activation_function"):
        activation = config.get(name)
        if isinstance(activation, str) and activation not in ACT2FN:
            raise InputError("E-CONFIG", f'{where}: unknown {name} "{activation}"', nearest(activation, ACT2FN))


def without_pooler(config: Any) -> dict[str, bool]:
    """The argument that leaves out the pooling layer, where the model's class has one.

    Checkpoints saved with another head lack its weights; it comes after all attention, so nothing needs it.
    """
    from transformers import MODEL_MAPPING

    cls = MODEL_MAPPING.get(type(config), None)
    code = getattr(getattr(cls, "__init__", None), "__code__", None)
    return {"add_pooling_layer": False} if code and "add_pooling_layer" in code.co_varnames else {}


def _load(folder: Path, config: Any, options: LoadOptions) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModel

    model, report = AutoModel.from_pretrained(
        folder,
        config=config,
        attn_implementation="eager",
        dtype="auto" if options.dtype == "auto" else DTYPES[options.dtype],
        use_safetensors=None if options.allow_pickle else True,
        trust_remote_code=options.trust_remote_code,
        ignore_mismatched_sizes=True,  # so that the report names them; they are refused all the same
        output_loading_info=True,
        local_files_only=True,
        **without_pooler(config),
    )
    return model, report


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as fault:
        raise EnvironmentFailure(
            "E-DEVICE", f"no device {wanted} in this PyTorch ({torch.__version__})", "Use --device cpu."
        ) from fault
    return device


def _check_finite(model: nn.Module) -> None:
    broken = [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]
    if broken:
        raise InputError("E-NONFINITE", f"{len(broken)} weights are not finite: {', '.join(broken[:3])}")


@contextmanager
def told(code: str, problem: str) -> Iterator[None]:
    """Turn what the libraries raise into one line of ours."""
    try:
        yield
    except HeadprobeError:
        raise
    except SafetensorError as fault:
        raise InputError("E-SAFETENSORS", f"{problem}: {first_line(fault)[:120]}", "Download it again.") from fault
    except UnpicklingError as fault:
        raise RefusedError("E-PICKLE", f"{problem}: it is no plain weights file and may want to run code") from fault
    except ImportError as fault:
        raise EnvironmentFailure("E-PACKAGE", f"{problem}: a package is missing ({first_line(fault)})") from fault
    except LOADING_FAULTS as fault:
        raise InputError(code, f"{problem}: {first_line(fault)}") from fault


def first_line(fault: BaseException) -> str:
    """The first line of an exception's message, or its name if it has none."""
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return lines[0][:300].rstrip(".:") if lines else type(fault).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """transformers' progress bars and load report kept off the terminal; what matters of them is told by us."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
