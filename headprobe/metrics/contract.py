"""What a metric is: columns, `observe(tile) -> total`, `compute(total) -> Values`, and totals that add.

Files in this room are read by `headprobe metrics`, which must not pay for torch: they use the methods of the tensors
they are given, and import torch inside the function that needs more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile

Level = Literal["head", "layer", "pair"]
Shape = Literal["rows", "sequence"]


@dataclass(frozen=True)
class Column:
    """One column of a report's table.

    `level` names the table. `low` and `high` bound the value (None: no bound), `unit` is "nats", "tokens", "mass",
    "heads", "keys" or "" for a pure number. `more` says what a larger value means. A head column that is `paired` is
    also kept for every sequence, so that two reports can be compared sequence by sequence.
    """

    name: str
    level: Level
    about: str
    unit: str = ""
    low: float | None = 0.0
    high: float | None = None
    more: str = ""
    paired: bool = False


class Total(Protocol):
    """What a metric keeps of the tiles it has seen: an additive quantity."""

    def __add__(self, other: Self, /) -> Self: ...


@dataclass(frozen=True)
class Values:
    """What `compute` gives for one site, in float64, NaN where a quantity is undefined.

    `heads` maps a column to [head], `layers` to a scalar tensor, `pairs` to [head, head] (row against column).
    `sequences` maps a head column to [sequence, head], in the order of the sequence numbers `numbers`. `baseline` maps
    a head column to a scalar tensor: its value for uniform attention under the same mask, where the metric knows it.
    """

    heads: dict[str, Tensor] = field(default_factory=dict)
    layers: dict[str, Tensor] = field(default_factory=dict)
    pairs: dict[str, Tensor] = field(default_factory=dict)
    sequences: dict[str, Tensor] = field(default_factory=dict)
    numbers: tuple[int, ...] = ()
    baseline: dict[str, Tensor] = field(default_factory=dict)


class Metric(Protocol):
    """A metric: one object, two functions.

    `name` selects it, `columns` says what it adds to a report, `formula` and `source` are shown to users, `baseline`
    says what uniform attention under the same mask gives. `shape` tells how it reads attention:

    * "rows": a function of each query's row over the heads of a site; any tile will do;
    * "sequence": needs all rows of a sequence. It observes them once, with the tile that holds the last of them
      (`tile.ends`), and reads the others by `tile.part(first, last)`, which computes them again if need be; of a tile
      before that its total is empty.

    A metric that compares heads with each other (`pairwise`) is left out where no pairs are wanted; where pairs across
    layers are, it is also given tiles that hold the heads of several sites.
    """

    @property
    def name(self) -> str: ...
    @property
    def columns(self) -> tuple[Column, ...]: ...
    @property
    def shape(self) -> Shape: ...
    @property
    def pairwise(self) -> bool: ...
    @property
    def formula(self) -> str: ...
    @property
    def baseline(self) -> str: ...
    @property
    def source(self) -> str: ...

    def observe(self, tile: AttentionTile) -> Any:
        """The total of one tile. It must not change the tile, and must ignore rows and keys of padding."""

    def compute(self, total: Any) -> Values:
        """The values of one site from the sum of its tiles' totals."""


def reads_outputs(metric: Metric) -> bool:
    """True for a metric of what heads give, beyond what they look at."""
    return bool(getattr(metric, "outputs", False))
