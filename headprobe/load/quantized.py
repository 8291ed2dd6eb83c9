"""Quantised checkpoints: which package reads them, and what a reader of the numbers must know."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headprobe.errors import EnvironmentFailure, InputError

PACKAGES = {  # what transformers needs beside itself, by method
    "aqlm": ("aqlm", "accelerate"),
    "auto-round": ("auto_round",),
    "awq": ("gptqmodel", "accelerate"),
    "bitnet": ("accelerate",),
    "bitsandbytes": ("bitsandbytes", "accelerate"),
    "compressed-tensors": ("compressed_tensors",),
    "eetq": ("kernels", "accelerate"),
    "fbgemm_fp8": ("fbgemm_gpu", "accelerate"),
    "fouroversix": ("fouroversix",),
    "fp8": ("accelerate",),
    "fp_quant": ("fp_quant",),
    "gptq": ("optimum", "gptqmodel"),
    "higgs": ("flute", "accelerate"),
    "hqq": ("hqq",),
    "mxfp4": ("accelerate",),
    "mxfp8": ("accelerate",),
    "nvfp4": ("kernels",),
    "quanto": ("optimum.quanto", "accelerate"),
    "quark": ("quark",),
    "sinq": ("sinq",),
    "spqr": ("spqr_quant", "accelerate"),
    "torchao": ("torchao",),
    "vptq": ("vptq", "accelerate"),
}
INSTALLED_AS = {
    "auto_round": "auto-round", "compressed_tensors": "compressed-tensors", "fbgemm_gpu": "fbgemm-gpu",
    "flute": "flute-kernel", "optimum.quanto": "optimum-quanto", "quark": "amd-quark",
}  # fmt: skip
DEQUANTISED = ("fp8", "mxfp8", "mxfp4", "metal", "compressed-tensors")  # which transformers turns into plain weights


def check_quantization(config: dict[str, Any], folder: Path) -> str | None:
    """The method's name, or None for plain weights.

    Raises `InputError` for an unknown method, which would be ignored and the weights taken for what they are not, and
    `EnvironmentFailure` where a package is missing.
    """
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

    settings = _settings(config)
    if settings is None:
        return None
    method = _method(settings)
    known = {*AUTO_QUANTIZATION_CONFIG_MAPPING, "bitsandbytes"}
    if not isinstance(method, str) or method not in known:
        raise InputError("E-QUANT", f"{folder / 'config.json'} has unknown quantization {method!r}")
    absent = [name for name in PACKAGES.get(method, ()) if not _is_there(name)]
    if absent:
        names = [INSTALLED_AS.get(name, name) for name in absent]
        raise EnvironmentFailure(
            "E-QUANT",
            f"{folder} has {method} weights; not installed: {', '.join(names)}",
            f"Run: pip install {' '.join(names)}. Many methods need a GPU too.",
        )
    return method


def _settings(config: dict[str, Any]) -> Any:
    """Where a model has several parts, the part for texts may say it."""
    inner = config.get("text_config")
    own = config.get("quantization_config")
    return inner.get("quantization_config") if own is None and isinstance(inner, dict) else own


def _method(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    method = settings.get("quant_method")
    is_bits = settings.get("load_in_8bit") or settings.get("load_in_4bit")
    method = "bitsandbytes" if is_bits else method
    return "bitsandbytes" if method in ("bitsandbytes_4bit", "bitsandbytes_8bit") else method


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of the package that holds it
        return False


def dequantise(config: Any, method: str | None) -> None:
    """Ask transformers for plain weights where it can make them."""
    settings = getattr(config, "quantization_config", None)
    if method in DEQUANTISED and isinstance(settings, dict):
        settings["dequantize"] = True


def cast(task: Any, method: str | None, dtype: Any) -> None:
    """De-quantised layers ignore the dtype that was asked for where a weight was stored plain; None keeps all."""
    if method in DEQUANTISED and dtype is not None:
        task.to(dtype)


def quantization_note(method: str) -> str:
    """What a reader must know."""
    if method in DEQUANTISED:
        return f"the weights are {method}-quantised: attention is that of the de-quantised weights"
    return f"the weights are {method}-quantised: attention is what the quantised model computes"
