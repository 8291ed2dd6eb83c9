"""headprobe: what the attention heads of a checkpoint do, and which of them repeat each other."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headprobe.auditing import audit
    from headprobe.capture import observing
    from headprobe.comparing import compare
    from headprobe.comparison import Comparison
    from headprobe.pipeline import scan
    from headprobe.report import Report

__all__ = ["Comparison", "Report", "__version__", "audit", "compare", "observing", "scan"]
__version__ = "0.1.0"

_HOMES = {
    "Comparison": "headprobe.comparison",
    "Report": "headprobe.report",
    "audit": "headprobe.auditing",
    "compare": "headprobe.comparing",
    "observing": "headprobe.capture",
    "scan": "headprobe.pipeline",
}


def __getattr__(name: str) -> Any:
    """Resolved on first use, so that importing headprobe stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
