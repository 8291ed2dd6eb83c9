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
    alone: bool

    @property
    def words(self) -> str:
        """In a sentence that begins with "the"."""
        of = "" if self.alone else ", the fewest of any layer"
        return f"{self.heads} heads of {self.where} act like {self.effective:.1f} different ones{of}"


def near_copies(report: Report) -> int | None:
    """How many heads nearly repeat another one; None where that was not measured."""
    heads = report.heads
    if "nearest_js" not in heads or heads["nearest_js"].isna().all():
        return None
    return int((heads["nearest_js"] < NEAR_COPY).sum())


def least_diverse(report: Report) -> LeastDiverse | None:
    """None where effective heads were not measured, or no layer has heads to compare."""
    layers = report.layers[report.layers["heads"] > 1]
    if "effective_heads" not in layers or layers["effective_heads"].isna().all():
        return None
    share = layers["effective_heads"] / layers["heads"]
    least = layers[share == share.min()].iloc[0]
    heads, effective = int(least["heads"]), float(least["effective_heads"])
    return LeastDiverse(layer_words(report, least), heads, effective, alone=len(layers) == 1)
