"""HP205 to HP207: heads that became sinks, changed what they do, or became copies of each other."""

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from headprobe.audits.finding import Finding, Severity
from headprobe.audits.places import Row, Seen, keys, known, rows, told
from headprobe.audits.rule import Facts, Limits, NotAsked, Rule
from headprobe.audits.rules.changed import SIGNIFICANCE, arrow, changes
from headprobe.audits.rules.redundancy import NearIdentical

ROLES = ("self_mass", "prev_mass", "next_mass", "first_mass", "special_mass")


class NewSink(Rule):
    """HP205: the first position or special tokens took over."""

    code = "HP205"
    name = "new-sink"
    about = f"`first_mass` or `special_mass` rose by more than `rise` to more than `mass`. {SIGNIFICANCE}"
    rationale = (
        "Gu et al. 2025 call a head a sink from 0.3 of the mass on the first token; 0.5 is a majority. Measured on six "
        "sets of texts: the healthy child of tiny-bert gains 0.31 at most, on short ones."
    )
    advice = "A head that looks at a sink does nothing: see whether the task still needs it."
    passes = "special_mass 0.26 -> 0.37."
    fails = "first_mass 0.10 -> 0.97."
    severity: ClassVar[Severity] = "warning"
    limits: ClassVar[dict[str, float]] = {"rise": 0.4, "mass": 0.5}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"rise": (0.0, 1.0), "mass": (0.0, 1.0)}
    needs_baseline = True

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every new sink, or one a layer; each head once."""
        rise, mass = limits.values["rise"], limits.values["mass"]
        worst: dict[tuple[int, int], Seen] = {}
        for at, row in changes(facts, "first_mass", "special_mass"):
            if row["median_change"] > rise and row["tuned"] > mass:
                seen = Seen(at, row["metric"], row["tuned"], mass, arrow(row), row["median_change"], row["base"])
                key = (int(at["site"]), int(at["head"]))
                worst[key] = max(worst.get(key, seen), seen, key=lambda one: one.badness)
        return told(self.code, limits, worst.values(), "{heads} became sinks")


class OtherRole(Rule):
    """HP206: a head left the role it had."""

    code = "HP206"
    name = "other-role"
    about = (
        "A head had at least `role` of its mass in one place (itself, the position before or after, the first one, or "
        f"special tokens), and less than `left` of that mass is left there. {SIGNIFICANCE}"
    )
    rationale = (
        "Clark et al. 2019 give a head its name by half of its mass. Measured: the healthy child of tiny-bert has "
        "no such change; half of the role's mass must be gone before it is called another role."
    )
    advice = "Heads of previous tokens carry induction and copying: look at what the model can no longer do."
    passes = "prev_mass 0.99 -> 0.93."
    fails = "prev_mass 0.99 -> 0.02."
    severity: ClassVar[Severity] = "warning"
    limits: ClassVar[dict[str, float]] = {"role": 0.5, "left": 0.5}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"role": (0.0, 1.0), "left": (0.0, 1.0)}
    needs_baseline = True

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every head that lost its leading role, or one a layer."""
        leading = self._leading(facts)
        role, left = limits.values["role"], limits.values["left"]
        worst: dict[tuple[int, int], Seen] = {}
        for at, row in changes(facts, *ROLES):
            key = (int(at["site"]), int(at["head"]))
            lost = row["base"] >= role and row["tuned"] < left * row["base"] and row["median_change"] < 0
            if lost and leading.get((int(row["site"]), int(row["head"]))) == row["metric"]:
                worst[key] = Seen(
                    at, row["metric"], row["tuned"], left * row["base"], arrow(row), -row["median_change"], row["base"]
                )
        return told(self.code, limits, worst.values(), "{heads} do something else than before")

    def _leading(self, facts: Facts) -> dict[tuple[int, int], str]:
        """The place that has most of a head's mass in the baseline, by the baseline's site and head."""
        assert facts.baseline is not None
        found = {}
        for row in rows(facts.baseline.heads):
            masses = {name: float(row[name]) for name in ROLES if known(row.get(name))}
            if masses:
                found[int(row["site"]), int(row["head"])] = max(masses, key=lambda name: masses[name])
        return found


class NewTwins(Rule):
    """HP207: heads that were different and are the same now."""

    code = "HP207"
    name = "new-twins"
    about = (
        "Two heads are nearly identical, as HP101 says, and their JS in the baseline was at least `apart` times the "
        "limit. Groups of three or more are told as one."
    )
    rationale = (
        "Arithmetic: JS is never negative, so a mean near 0 is small on nearly every query; a fall from five times the "
        "limit can't be chance and needs no test. Measured: from tiny-bert to its healthy child the closest pair goes "
        "from 0.063 to 0.050, and is 0.029 or more on other texts."
    )
    advice = "The heads were tied or copied, or training drove them together: compare their weights."
    passes = "JS 0.063 -> 0.050."
    fails = "JS 0.31 -> 0.0000."
    severity: ClassVar[Severity] = "error"
    limits: ClassVar[dict[str, float]] = {"js": 0.005, "kv_js": 0.002, "apart": 5.0}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "js": (0.0, 0.6931), "kv_js": (0.0, 0.6931), "apart": (1.0, 1e6),
    }  # fmt: skip
    needs_baseline = True
    needs = (("pairs", "js"),)

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding a pair or group that was apart in the baseline."""
        assert facts.baseline is not None
        if "js" not in facts.baseline.pairs:
            raise NotAsked("the baseline has no js of pairs")
        were = _apart(facts, limits.values)
        pairs = facts.report.pairs
        new = [
            frozenset({(int(row["site_a"]), int(row["head_a"])), (int(row["site_b"]), int(row["head_b"]))}) in were
            for row in rows(pairs)
        ]
        now = replace(facts.report, pairs=pairs[new])
        for finding in NearIdentical().check(Facts(now), limits):
            message = finding.message.replace("nearly identical", "nearly identical, which they were not before", 1)
            yield replace(finding, code=self.code, message=message, baseline=_before(finding, were))


def _before(finding: Finding, were: dict[frozenset[tuple[int, int]], float]) -> float | None:
    """What the JS of a pair was in the baseline; None for a group."""
    if finding.head is None or finding.other_head is None or finding.site is None or finding.other_site is None:
        return None
    return were.get(frozenset({(finding.site, finding.head), (finding.other_site, finding.other_head)}))


def _apart(facts: Facts, values: dict[str, float]) -> dict[frozenset[tuple[int, int]], float]:
    """The JS in nats of pairs of heads, by the model's sites, that were far apart in the baseline."""
    assert facts.baseline is not None
    ours = keys(facts.report)
    by_site = {
        (int(row["site"]), int(row["head"])): _at(ours[key]) for key, row in keys(facts.baseline).items() if key in ours
    }
    found = {}
    for row in rows(facts.baseline.pairs):
        ends = [by_site.get((int(row[f"site_{end}"]), int(row[f"head_{end}"]))) for end in "ab"]
        least = values["apart"] * (values["kv_js"] if row["same_kv_group"] else values["js"])
        if known(row["js"]) and row["js"] >= least:
            found[frozenset(end for end in ends if end is not None)] = float(row["js"])
    return found


def _at(row: Row) -> tuple[int, int]:
    return int(row["site"]), int(row["head"])
