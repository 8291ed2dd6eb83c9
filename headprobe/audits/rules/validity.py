"""HP0xx: is there something to judge, and are the numbers sound?"""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from headprobe.audits.finding import Finding, Severity
from headprobe.audits.places import Row, Seen, known, listed, place, rows, told
from headprobe.audits.rule import Facts, Limits, NotAsked, Rule

ALWAYS = ("row_error", "leak", "entropy", "eff_keys", "confidence")  # defined wherever a query was seen
DERIVED = ("nearest_layer", "nearest_head", "nearest_js", "window", "kv_group", "layer", "head", "site", "heads")


class NothingJudged(Rule):
    """HP000: the audit had nothing to go by."""

    code = "HP000"
    name = "nothing-judged"
    about = "No head was measured, or no rule of the policy could be asked: that is no pass."
    rationale = "A gate that saw nothing must not open. It can be neither ignored nor waived."
    advice = "Scan with texts that leave queries to measure, and select rules that the report can answer."
    passes = "A report with heads, and one rule or more that could be asked."
    fails = "A report without heads; `--select HP2` without a baseline."
    severity: ClassVar[Severity] = "error"

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding if no query of any head was measured."""
        heads = facts.report.heads
        if heads.empty or ("queries" in heads and not heads["queries"].sum()):
            yield Finding(code=self.code, severity=limits.severity, message="no attention was measured at all")


class RowSums(Rule):
    """HP001: rows that don't sum to one."""

    code = "HP001"
    name = "row-sums"
    about = "A row of attention sums to one; `row_error` is the largest distance from it."
    rationale = (
        "Measured: softmax of 4·N(0, 1) over 128 keys, 2000 rows, is off by 4e-8 in float32, 3.5e-4 in float16 and "
        "2.7e-3 in bfloat16. The limits leave room above that, by the dtype that the model was run in."
    )
    advice = "Scan in float32; look for dropout that is left on or weights that are not probabilities."
    passes = "row_error 2e-7 in float32."
    fails = "row_error 0.08 in float32: dropout was applied to the weights."
    severity: ClassVar[Severity] = "error"
    limits: ClassVar[dict[str, float]] = {"float32": 1e-5, "float16": 1e-3, "bfloat16": 5e-3}
    ranges: ClassVar[dict[str, tuple[float, float]]] = dict.fromkeys(limits, (0.0, 1.0))
    needs = (("heads", "row_error"),)

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every head whose rows are off by more than the dtype's limit."""
        dtype = facts.report.provenance.dtype
        limit = limits.values["float32" if dtype == "float64" else dtype if dtype in limits.values else "bfloat16"]
        return told(
            self.code, limits, _above(facts, "row_error", limit, "rows are off one by up to"),
            "rows of {heads} don't sum to one",
        )  # fmt: skip


class LeakedMass(Rule):
    """HP003: mass on keys that the mask hides."""

    code = "HP003"
    name = "leaked-mass"
    about = "No mass may lie on keys that a query can't see: padding, or the future."
    rationale = (
        "Arithmetic: a hidden key's score is the dtype's lowest number, whose exponential is exactly 0 in every dtype. "
        "The limit 1e-6 is ten units in the last place of float32, which masks of a finite size may leave."
    )
    advice = "The mask is not applied, or not the one that the inputs say: check the attention mask."
    passes = "leak 0."
    fails = "leak 0.02: a padding token is looked at."
    severity: ClassVar[Severity] = "error"
    limits: ClassVar[dict[str, float]] = {"leak": 1e-6}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"leak": (0.0, 1.0)}
    needs = (("heads", "leak"),)

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every head that puts more than the limit on hidden keys."""
        seen = _above(facts, "leak", limits.values["leak"], "mass on hidden keys is up to")
        return told(self.code, limits, seen, "{heads} put mass on hidden keys")


def _above(facts: Facts, column: str, limit: float, sentence: str) -> Iterator[Seen]:
    for row in rows(facts.report.heads):
        value = row[column]
        if known(value) and value > limit:
            yield Seen(row, column, float(value), limit, f"{sentence} {value:.3g}, limit {limit:.3g}", float(value))


class NotFinite(Rule):
    """HP002: numbers that are missing where they must be defined."""

    code = "HP002"
    name = "not-finite"
    about = (
        "A quantity is undefined for a whole layer or not at all: a head, or a pair, that alone has no number was "
        "computed from something that is not finite. Row errors, leaks and entropies are defined wherever a query was."
    )
    rationale = "By definition: no metric of attention that is a distribution is infinite or NaN."
    advice = "Look for NaN or infinite weights in the checkpoint, and for overflow: scan in float32."
    passes = "`next_mass` is missing at every head of a causal layer, where it is undefined."
    fails = "`entropy` is missing at head 3 only."
    severity: ClassVar[Severity] = "error"

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding a head or layer that lacks numbers which it must have."""
        heads = facts.report.heads
        columns = [str(name) for name in heads.select_dtypes("number") if name not in DERIVED]
        partly = {
            (site, name)
            for site, group in heads.groupby("site")
            for name in columns
            if not all(known(value) for value in group[name])
            and (name in ALWAYS or any(known(value) for value in group[name]))
        }
        seen = []
        for row in rows(heads):
            lacking = [name for name in columns if (row["site"], name) in partly and not known(row[name])]
            if lacking:
                seen.append(Seen(row, lacking[0], None, None, f"no number for {', '.join(lacking)}", len(lacking)))
        yield from told(self.code, limits, seen, "numbers of {heads} are missing or not finite")
        yield from _pairs_undefined(self.code, facts, limits, {int(one.row["site"]) for one in seen})


def _pairs_undefined(code: str, facts: Facts, limits: Limits, told_already: set[int]) -> Iterator[Finding]:
    """Layers where some pairs of heads have a number and others don't, unless their heads tell it."""
    pairs, report = facts.report.pairs, facts.report
    where: dict[int, Row] = {int(row["site"]): place(row) for row in rows(report.heads.drop_duplicates("site"))}
    for column in [name for name in ("js", "cos", "bc", "kl_ab", "kl_ba") if name in pairs]:
        for site, group in pairs[pairs["site_a"] == pairs["site_b"]].groupby("site_a"):
            bad = group[[not known(value) for value in group[column]]]
            if 0 < len(bad) < len(group) and site not in told_already:
                heads = sorted({int(head) for name in ("head_a", "head_b") for head in bad[name]})
                message = f"no {column} for {len(bad)} of {len(group)} pairs, among {listed(heads)}"
                yield Finding(
                    code=code, severity=limits.severity, message=message, metric=column, heads=tuple(heads),
                    **where[int(str(site))],
                )  # fmt: skip


class ExpiredWaiver(Rule):
    """HP006: a waiver whose time is over."""

    code = "HP006"
    name = "expired-waiver"
    about = "A waiver holds until the day it names; after that it waives nothing and is a finding itself."
    rationale = "By definition. The day itself still counts."
    advice = "Mend what it waived, or renew it with a reason."
    passes = "`expires = 2031-01-31`, audited in 2030."
    fails = "The same, audited in February 2031."
    severity: ClassVar[Severity] = "error"

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """Nothing from a report alone: the audit, which knows the policy and the day, tells it."""
        if facts.report.heads.empty:
            raise NotAsked("nothing was measured")
        return ()
