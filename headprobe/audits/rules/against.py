"""HP004, HP005, HP007 and HP008: does the model still have what its baseline has, and can change be told at all?"""

from collections.abc import Iterable, Iterator
from typing import ClassVar

import pandas as pd

from headprobe.audits.finding import Finding, Severity
from headprobe.audits.places import Key, Row, keys, known, listed, place
from headprobe.audits.rule import Facts, Limits, NotAsked, Rule
from headprobe.audits.rules.validity import DERIVED
from headprobe.report import Report

COMPARED = ("heads", "layers", "pairs", "sequences")
UNCOMPARED = "the reports were not compared"
ALPHA = 0.05  # a change counts below this q
LEAST_SEQUENCES = 6  # the smallest two-sided p is 2/2^N: below ALPHA from 6 on


class OtherHeads(Rule):
    """HP004: heads or layers that only one of model and baseline has."""

    code = "HP004"
    name = "other-heads"
    about = "The model lacks heads or layers of attention that its baseline has, or has some that the baseline lacks."
    rationale = "By definition: what isn't there can't be compared, and a head that is gone must not pass in silence."
    advice = "Compare with a baseline of the same architecture; after pruning, make the pruned model the baseline."
    passes = "Both have 6 layers of 12 heads."
    fails = "The baseline has 6 layers, the model 5."
    severity: ClassVar[Severity] = "error"
    needs_baseline = True

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding a layer that lacks, or has, heads that the other doesn't."""
        assert facts.baseline is not None
        ours, theirs = keys(facts.report), keys(facts.baseline)
        yield from self._only(theirs, ours, "the baseline has {}, the model has not", limits)
        yield from self._only(ours, theirs, "the model has {}, the baseline has not", limits)

    def _only(self, these: dict[Key, Row], those: dict[Key, Row], sentence: str, limits: Limits) -> Iterator[Finding]:
        by_layer: dict[tuple[str, str, int, int], list[Row]] = {}
        for key, row in these.items():
            if key not in those:
                by_layer.setdefault(key[:4], []).append(row)
        for group in by_layer.values():
            heads = tuple(sorted(int(row["head"]) for row in group))
            message = sentence.format(listed(heads))
            yield Finding(code=self.code, severity=limits.severity, message=message, heads=heads, **place(group[0]))


class LostMetric(Rule):
    """HP005: a metric that the baseline has and the model lacks."""

    code = "HP005"
    name = "lost-metric"
    about = "The baseline's report has numbers that the model's report lacks: they are missing, and that is no pass."
    rationale = "By definition: what was measured before and isn't now can't be called unchanged."
    advice = "Scan both with the same options, and look for heads at which the number is undefined."
    passes = "Both reports have js."
    fails = "The baseline was scanned with all metrics, the model with `--metrics entropy`."
    severity: ClassVar[Severity] = "error"
    needs_baseline = True

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding a table that lacks columns, and one a layer and metric where heads lack a number."""
        assert facts.baseline is not None
        for table in COMPARED:
            ours, theirs = getattr(facts.report, table), getattr(facts.baseline, table)
            lost = [name for name in measured(theirs) if name not in set(measured(ours))]
            if lost:
                message = f"the baseline has {', '.join(lost)} of {table}, the model has not"
                yield Finding(code=self.code, severity=limits.severity, message=message, metric=f"{lost[0]} of {table}")
        yield from self._undefined(facts.report, facts.baseline, limits)

    def _undefined(self, report: Report, baseline: Report, limits: Limits) -> Iterator[Finding]:
        ours, theirs = keys(report), keys(baseline)
        by_place: dict[tuple[int, str], list[Row]] = {}
        for key, row in ours.items():
            for name in measured(report.heads):
                if not known(row[name]) and known(theirs.get(key, {}).get(name)):
                    by_place.setdefault((int(row["site"]), name), []).append(row)
        for (_, name), group in by_place.items():
            heads = tuple(sorted(int(row["head"]) for row in group))
            message = f"{name} of {listed(heads)} is undefined, and is defined in the baseline"
            yield Finding(
                code=self.code, severity=limits.severity, message=message, heads=heads, metric=name,
                **place(group[0]),
            )  # fmt: skip


def measured(table: pd.DataFrame) -> list[str]:
    """The columns of a table that hold numbers which a metric gave, one number or more."""
    names = [str(name) for name in table.select_dtypes("number") if name not in DERIVED]
    names = [name for name in names if not name.startswith(("site_", "layer_", "head_"))]
    return [name for name in names if any(known(value) for value in table[name])]


def sequences_of(facts: Facts) -> int:
    """How many sequences the comparison rests on: the most that any head was measured on."""
    assert facts.comparison is not None
    return int(facts.comparison.heads["sequences"].max())


class Blind(Rule):
    """HP007: too few sequences for any change to be significant."""

    code = "HP007"
    name = "blind"
    about = "On so few sequences no change can be told from chance, so the rules about change can't answer."
    rationale = (
        f"Arithmetic: the smallest two-sided p of a paired test on N sequences is 2/2^N, below {ALPHA} from "
        f"{LEAST_SEQUENCES} sequences on. A gate that can't fail is no gate, so this is an error."
    )
    advice = "Scan both with more texts; a few dozen are plenty."
    passes = "16 sequences."
    fails = "5 sequences."
    severity: ClassVar[Severity] = "error"
    needs_baseline = True

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding of the model if there are too few."""
        count = _compared(facts)
        if count < LEAST_SEQUENCES:
            message = f"{count} sequences can't show any change, at least {LEAST_SEQUENCES} can"
            yield Finding(
                code=self.code, severity=limits.severity, message=message, metric="sequences", value=count,
                limit=LEAST_SEQUENCES,
            )  # fmt: skip


class FewSequences(Rule):
    """HP008: too few sequences for the change of a single head to be significant."""

    code = "HP008"
    name = "few-sequences"
    about = "On so few sequences a change of many heads can be told from chance, that of a single one can't."
    rationale = (
        f"Arithmetic: for one head among M to have q < {ALPHA} (Benjamini-Hochberg), 2/2^N must be below {ALPHA}/M: "
        "11 sequences for 32 heads, 13 for 144, 16 for 1024."
    )
    advice = "Scan both with more texts."
    passes = "16 sequences, 72 heads."
    fails = "10 sequences, 72 heads."
    severity: ClassVar[Severity] = "warning"
    needs_baseline = True

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding of the model if there are too few for one head, but enough for many."""
        count, heads = _compared(facts), len(facts.report.heads)
        least = next(n for n in range(LEAST_SEQUENCES, 200) if 2.0 ** (1 - n) * heads < ALPHA)
        if LEAST_SEQUENCES <= count < least:
            message = f"{count} sequences can't show that one of {heads} heads changed, {least} can"
            yield Finding(
                code=self.code, severity=limits.severity, message=message, metric="sequences", value=count,
                limit=least,
            )  # fmt: skip


def _compared(facts: Facts) -> int:
    if facts.comparison is None or facts.comparison.heads.empty:
        raise NotAsked(UNCOMPARED)
    return sequences_of(facts)
