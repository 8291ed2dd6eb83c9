"""The one intermediate form of everything shown: what is said, not how it looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a table of metrics is shown without numpy
    import numpy as np
    from numpy.typing import NDArray


Layer = tuple[int, int]  # its site and its number


@dataclass(frozen=True)
class Heading:
    """A title."""

    text: str


@dataclass(frozen=True)
class Section:
    """The start of a part of a page: its title, the name that links lead to, and what it shows."""

    title: str
    name: str
    about: str = ""
    short: str = ""  # in a list of the page's parts


@dataclass(frozen=True)
class Paragraph:
    """A few sentences."""

    text: str


@dataclass(frozen=True)
class Step:
    """Something to do next, with the command that does it where there is one."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class Summary:
    """The result in words: sentences for somebody who reads nothing else, numbers to remember, and what to do next.

    `figures` are pairs of a number and what it counts. `verdict` is "passed" or "failed", "" where nothing is judged.
    """

    sentences: tuple[str, ...]
    figures: tuple[tuple[str, str], ...] = ()
    steps: tuple[Step, ...] = ()
    verdict: str = ""


@dataclass(frozen=True)
class TableColumn:
    """A table's column. `rank` 0 is always shown; the higher, the wider the page must be."""

    title: str
    rank: int = 0
    text: bool = False
    about: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells that are ready to read.

    Where things can be linked, `names` are what the rows are called, and `links` has for a column's index the name
    that each row's cell leads to ("" for none).
    """

    title: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    names: tuple[str, ...] = ()
    links: dict[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Grid:
    """A heat map: a number for each row and column label, None where there is none, and the range of its scale."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    low: float
    high: float


@dataclass(frozen=True)
class Place:
    """A head's place. `stack` tells layers of one number apart, "" where they need not be; `group` is its kv group."""

    site: int
    layer: int
    head: int
    stack: str = ""
    group: int | None = None

    @property
    def title(self) -> str:
        """In a sentence: "layer 3 head 7"."""
        return f"{self.stack} layer {self.layer} head {self.head}".strip()

    @property
    def short(self) -> str:
        """In a table: "L3 H7"."""
        return f"{self.stack} L{self.layer} H{self.head}".strip()

    @property
    def name(self) -> str:
        """What links lead to: "layer-3-head-7"."""
        words = "".join(
            char if char.isalnum() and char.isascii() else "-" if char in " ._-" else f"{ord(char):x}-"
            for char in self.stack.lower()
        )
        return f"{words}-layer-{self.layer}-head-{self.head}".strip("-")


@dataclass(frozen=True)
class Measure:
    """A number for every head, None where it is undefined, with what it takes to show it.

    `family` is what it is listed under, `more` what a larger value means, `uniform` what uniform attention under the
    same mask has (empty where that is not known). The scale is from `low` to `high`, of a `signed` one about 0.
    """

    name: str
    values: tuple[float | None, ...]
    low: float
    high: float
    about: str = ""
    unit: str = ""
    family: str = ""
    more: str = ""
    decimals: int = 3
    signed: bool = False
    uniform: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Heads:
    """All heads by layer, and measures of them to choose from, the first one first shown.

    In the order of `places`: `labels` are words that say what a head does, `alike` the heads that attend most like it
    (indices of places with their JS in nats), `marks` say what else is known of it, in a sentence each, and `notable`
    are the sequences (number, value of `notable_by`) that it responds to most. Each may be empty. `about` says how the
    picture is read.
    """

    places: tuple[Place, ...]
    measures: tuple[Measure, ...]
    labels: tuple[tuple[str, ...], ...] = ()
    alike: tuple[tuple[tuple[int, float], ...], ...] = ()
    marks: tuple[tuple[str, ...], ...] = ()
    notable: tuple[tuple[tuple[int, float], ...], ...] = ()
    notable_by: str = ""
    about: str = ""

    def stacks(self) -> dict[str, dict[Layer, dict[int, int]]]:
        """By stack, then (site, layer), then head: where in `places` it is."""
        found: dict[str, dict[Layer, dict[int, int]]] = {}
        for i, place in enumerate(self.places):
            found.setdefault(place.stack, {}).setdefault((place.site, place.layer), {})[place.head] = i
        return found


@dataclass(frozen=True, eq=False)
class Similarity:
    """How alike heads are: a matrix [head, head] for each quantity, of `places` in the order of their tree.

    `merges` is the tree in SciPy's form over the same heads. Quantities are distances (0 is the same) or similarities
    (1 is the same), `distances` names the first; `signed` those whose scale begins at -1. `silhouettes` are the means
    of the tree cut into 2, 3, … groups, empty where there is nothing to cut.
    """

    title: str
    places: tuple[Place, ...]
    matrices: dict[str, NDArray[np.float64]]
    merges: NDArray[np.float64]
    distances: frozenset[str] = frozenset({"js"})
    signed: frozenset[str] = frozenset()
    silhouettes: tuple[float, ...] = ()


@dataclass(frozen=True)
class Similarities:
    """Matrices to choose from, the first one first shown; `about` says how the picture is read."""

    choices: tuple[Similarity, ...]
    about: str = ""


@dataclass(frozen=True)
class Strip:
    """Attention of one head on one text, as weights between its tokens [query, key], for a page that shows examples.

    `keys` are the tokens that are looked at, where they are others. `caption` says what is to be seen.
    """

    place: Place
    tokens: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    caption: str = ""
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examples:
    """Attention of some heads on some texts. Texts may be private: whoever makes this block was asked to.

    `pairs` are two heads each on one text, side by side under the first one's caption. `about` says how it is read.
    """

    strips: tuple[Strip, ...]
    pairs: tuple[tuple[Strip, Strip], ...] = ()
    about: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and what they stand for, one below the other."""

    title: str
    entries: tuple[tuple[str, str], ...]


Simple = Heading | Paragraph | Table | Grid
Block = Simple | Section | Summary | Heads | Similarities | Examples | Facts
Document = tuple[Block, ...]
