"""Training with headprobe: penalties that keep heads apart, and the metrics of heads in the Trainer's own log."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headprobe.train.callback import HeadMetricsCallback
    from headprobe.train.penalty import DiversityPenalty
    from headprobe.train.repulsive import RepulsiveCallback, RepulsiveHeads

__all__ = ["DiversityPenalty", "HeadMetricsCallback", "RepulsiveCallback", "RepulsiveHeads"]

_HOMES = {
    "DiversityPenalty": "headprobe.train.penalty",
    "HeadMetricsCallback": "headprobe.train.callback",
    "RepulsiveCallback": "headprobe.train.repulsive",
    "RepulsiveHeads": "headprobe.train.repulsive",
}


def __getattr__(name: str) -> Any:
    """Resolved on first use: the callback needs transformers' Trainer, penalties don't."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
