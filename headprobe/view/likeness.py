"""How much heads repeat each other, as whoever writes sentences needs it."""

from dataclasses import dataclass

from headprobe.groups import NEAR_COPY
from headprobe.report import Report
from headprobe.view.places import layer_words


@dataclass(frozen=True)
class LeastDiverse:
    """The layer whose heads act like the fewest different ones, of as many as it has."""

    where: str
    heads: int
    effective: float


def near_copies(report: Report) -> int | None:
    """How many heads nearly repeat another one; None where that was not measured."""
    heads = report.heads
    if "nearest_js" not in heads or heads["nearest_js"].isna().all():
        return None
    return int((heads["nearest_js"] < NEAR_COPY).sum())


def least_diverse(report: Report) -> LeastDiverse | None:
    """None where effective heads were not measured."""
    layers = report.layers
    if "effective_heads" not in layers or layers["effective_heads"].isna().all():
        return None
    share = layers["effective_heads"] / layers["heads"]
    least = layers[share == share.min()].iloc[0]
    return LeastDiverse(layer_words(report, least), int(least["heads"]), float(least["effective_heads"]))
