"""How --max-memory is shared out, and what a scan costs: the one place that both a scan and its forecast ask.

Memory, in tiles of probabilities [batch, head, row, key] as float32: while a tile is made the model's own code holds
up to three (scores, scores with the mask, softmax); the receiver holds it, the rows of another tile that it is compared
with, which are made in the same way, and their products. Eight tiles of an eighth of the budget bound all of it.

Time: every row metric reads each probability; M1 multiplies each row with all before it; a site that does not fit one
tile is computed again for that, once as a whole and once more for every tile that comes after.
"""

from dataclasses import dataclass
from typing import Any

from headprobe.errors import EnvironmentFailure

TILES = 8  # that live at once, at most
HELD = 3  # of them are rows that M1 holds
FLOAT = 4  # bytes
CACHED = 2**23  # bytes of a tile, for each core, that may stay in the last cache
ADVICE = "Lower --batch-size or --max-length, choose --layers, or raise --max-memory."
ROWS = 16  # of a tile, at least, where the batch size is not given: each tile costs some milliseconds of its own


@dataclass(frozen=True)
class Budget:
    """Bytes for attention beyond the model and its forward pass."""

    bytes: int

    @property
    def tile(self) -> int:
        """Bytes of a tile."""
        return self.bytes // TILES

    def cached(self, workers: int) -> int:
        """Bytes of a tile that may stay in the last cache while so many cores work on it."""
        return min(self.tile, CACHED * workers)

    def rows(self, batch: int, heads: int, keys: int) -> int:
        """Query rows that fit a tile. Raises `EnvironmentFailure` where not a single one does."""
        a_row = batch * heads * keys * FLOAT
        if a_row > self.tile:
            fits = self.tile // max(1, heads * keys * FLOAT)
            raise EnvironmentFailure(
                "E-MEMORY",
                f"--max-memory of {self.bytes:,} bytes does not hold one query of {heads} heads × {keys:,} keys"
                + (f" in each of {batch} sequences" if batch > 1 else ""),
                f"Lower --batch-size to {fits}." if fits else f"Raise it to {TILES * heads * keys * FLOAT:,} bytes.",
            )
        return self.tile // a_row

    def check_kept(self, kept: int) -> None:
        """Raise `EnvironmentFailure` where what pairs across layers keep leaves too little for their rows."""
        if 2 * kept > self.bytes:
            raise EnvironmentFailure(
                "E-MEMORY",
                f"--pairs model keeps queries and keys of all layers of a batch: --max-memory must be over {2 * kept:,}"
                " bytes here",
                ADVICE,
            )

    def check_sums(self, held: int) -> None:
        """Raise `EnvironmentFailure` where the sums that metrics of outputs hold beside all tiles take too much."""
        if held > self.bytes:
            raise EnvironmentFailure(
                "E-MEMORY",
                f"cka, ocos and norms hold {held:,} bytes of products of features: --max-memory must be as much",
                "Choose --layers or fewer of the three, or raise --max-memory.",
            )


def sequences_at_once(config: Any, positions: int, budget: Budget, *, across: bool) -> int:
    """The most sequences of so many positions that may go together, told from a model's config.

    So that a tile has rows enough, and that what pairs `across` layers keep fits: queries and keys of all layers, or
    their attention.
    """
    layers, heads = (most(config, name) or 16 for name in ("num_hidden_layers", "num_attention_heads"))
    width = most(config, "hidden_size") or 64 * heads
    fits = budget.tile // (ROWS * heads * positions * FLOAT)
    if across:
        stacks = 3 if getattr(config, "is_encoder_decoder", False) else 1
        kept = stacks * layers * positions * min(heads * positions, 2 * width) * FLOAT
        fits = min(fits, budget.bytes // (4 * kept))
    return int(max(1, fits))


def most(config: Any, name: str) -> int:
    """A number of a model's config, the largest where its stages have one each, 0 where there is none."""
    value = getattr(config, name, None)
    value = max(value, default=0) if isinstance(value, list | tuple) else value
    return value if isinstance(value, int) else 0


def rows_together(queries: int, rows: int) -> int:
    """How many of a site's rows M1 holds at once, to compare them with those before, which it computes again each time.

    Three tiles of `rows` each: one more is at hand, three make the others, and as much may lie free. Beyond a tile no
    more than a quarter of all rows, whose products with each other are then a quarter of what is held.
    """
    return max(rows, min(HELD * rows, queries // 4))


def times_computed(queries: int, rows: int, *, approx: bool = False) -> float:
    """How often a site's attention is computed in a scan with M1, on average over its rows.

    Once where it is whole. Else once for the model, once for M1, and again for every later share of rows, or once more
    for all of them where M1 is estimated.
    """
    tiles = -(-queries // rows_together(queries, rows))
    if queries <= rows:
        return 1.0
    return 3.0 if approx else 2 + (tiles - 1) / 2
