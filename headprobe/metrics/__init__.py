"""Every metric by name, ours and those that installed packages register under the entry point `headprobe.metrics`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points

from headprobe.errors import EnvironmentFailure, UsageError, nearest
from headprobe.metrics.alignment import Alignment
from headprobe.metrics.bhattacharyya import Bhattacharyya
from headprobe.metrics.cka import CKA
from headprobe.metrics.contract import Column, Metric, Values, reads_outputs
from headprobe.metrics.cosine import Cosine
from headprobe.metrics.effective import EffectiveHeads
from headprobe.metrics.entropy import Entropy
from headprobe.metrics.induction import Induction
from headprobe.metrics.js import JensenShannon
from headprobe.metrics.kl import KL
from headprobe.metrics.norms import NormWeighted
from headprobe.metrics.ocos import OutputCosine
from headprobe.metrics.penalty import Penalty
from headprobe.metrics.position import Position
from headprobe.metrics.redundancy import Redundancy
from headprobe.metrics.regions import Regions
from headprobe.metrics.validity import Validity

__all__ = ["METRICS", "Column", "Metric", "Values", "installed", "reads_outputs", "select"]

METRICS: dict[str, Metric] = {
    "validity": Validity(),
    "redundancy": Redundancy(),
    "penalty": Penalty(),
    "entropy": Entropy(),
    "position": Position(),
    "regions": Regions(),
    "alignment": Alignment(),
    "induction": Induction(),
    "kl": KL(),
    "js": JensenShannon(),
    "cosine": Cosine(),
    "bhattacharyya": Bhattacharyya(),
    "effective": EffectiveHeads(),
    "cka": CKA(),
    "ocos": OutputCosine(),
    "norms": NormWeighted(),
}


# Columns that name a row of a table, which a metric can't give.
ROW_NAMES = (
    "site", "path", "tower", "kind", "layer", "head", "heads", "kv_group", "window", "sequences", "queries",
    "same_kv_group",
)  # fmt: skip


@cache
def installed() -> dict[str, Metric]:
    """All metrics: the built-in ones first, then plug-ins in order of name.

    Raises `EnvironmentFailure` for a plug-in that can't be imported or whose name or columns are taken.
    """
    found = dict(METRICS)
    for point in sorted(entry_points(group="headprobe.metrics"), key=lambda point: point.name):
        try:
            loaded = point.load()
        except (ImportError, AttributeError, TypeError) as failure:
            raise EnvironmentFailure(
                "E-PLUGIN", f"metric plug-in {point.name} ({point.value}) can't be loaded: {failure}"
            ) from failure
        metric: Metric = loaded() if isinstance(loaded, type) else loaded
        taken = {(c.level, c.name) for other in found.values() for c in other.columns}
        taken |= {(level, name) for level in ("head", "layer", "pair") for name in ROW_NAMES}
        clash = sorted(c.name for c in metric.columns if (c.level, c.name) in taken)
        if metric.name in found or clash:
            raise EnvironmentFailure(
                "E-PLUGIN",
                f"metric plug-in {point.name} ({point.value}) uses a taken name: {', '.join(clash) or metric.name}",
                "Uninstall it or ask its author to rename it.",
            )
        found[metric.name] = metric
    return found


def select(words: Iterable[str]) -> tuple[list[Metric], frozenset[str]]:
    """The metrics that `words` (names of metrics or of columns) ask for, and the columns to report.

    No words mean everything. Validity is always measured. Raises `UsageError` for an unknown word.
    """
    every = installed()
    wanted: dict[str, set[str]] = {"validity": {column.name for column in every["validity"].columns}}
    words = list(words)
    for word in words or every:
        owners = [
            metric for metric in every.values() if word == metric.name or word in {c.name for c in metric.columns}
        ]
        if not owners:
            names = {*every, *(c.name for metric in every.values() for c in metric.columns)}
            raise UsageError("E-METRIC", f'no metric or column "{word}"', nearest(word, names))
        for metric in owners:
            columns = {c.name for c in metric.columns}
            wanted.setdefault(metric.name, set()).update({word} if word in columns and word != metric.name else columns)
    return [every[name] for name in every if name in wanted], frozenset().union(*wanted.values())
