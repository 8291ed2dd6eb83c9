"""What the rules about change share: rows of a comparison at the model's own places, and which of them count."""

from collections.abc import Iterator

from headprobe.audits.places import Row, keys, known, rows
from headprobe.audits.rule import Facts, NotAsked
from headprobe.audits.rules.against import ALPHA, LEAST_SEQUENCES, UNCOMPARED, sequences_of
from headprobe.comparison import Comparison

SIGNIFICANCE = (
    f"Every change counted has q < {ALPHA} (paired over sequences, adjusted over all heads of the metric), and a "
    "median change beyond the limit: with enough texts the smallest change is significant."
)


def comparison_of(facts: Facts) -> Comparison:
    """The comparison. Raises `NotAsked` where there is none."""
    if facts.comparison is None or facts.baseline is None:
        raise NotAsked(UNCOMPARED)
    return facts.comparison


def places(facts: Facts) -> dict[tuple[int, int], Row]:
    """The model's row of `heads` by site and head of the baseline, by which a comparison names heads."""
    assert facts.baseline is not None
    ours = keys(facts.report)
    return {(int(row["site"]), int(row["head"])): ours[key] for key, row in keys(facts.baseline).items() if key in ours}


def changes(facts: Facts, *metrics: str) -> Iterator[tuple[Row, Row]]:
    """Significant changes of the metrics, each as the model's row of that head and the comparison's row.

    Raises `NotAsked` where none of the metrics was compared, or on too few sequences for anything to be significant.
    """
    table = comparison_of(facts).heads
    chosen = table[table["metric"].isin(metrics)]
    if chosen.empty:
        raise NotAsked(f"the reports have no {' or '.join(metrics)} by sequence")
    if sequences_of(facts) < LEAST_SEQUENCES:
        raise NotAsked(f"{sequences_of(facts)} sequences can't show any change: see HP007")
    where = places(facts)
    for row in rows(chosen):
        at = where.get((int(row["site"]), int(row["head"])))
        numbers = all(known(row[name]) for name in ("q", "median_change", "base", "tuned"))
        if at is not None and numbers and row["q"] < ALPHA:
            yield at, row


def arrow(row: Row) -> str:
    """A change in words: "rcos 0.31 -> 0.98"."""
    return f"{row['metric']} {row['base']:.3f} -> {row['tuned']:.3f} (median change {row['median_change']:+.3f})"
