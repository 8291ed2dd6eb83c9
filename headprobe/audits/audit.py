"""The audit: every rule of a policy asked about a report, and what came of it."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import date

from headprobe.audits.finding import SEVERITIES, Asked, Audit, Finding, Status
from headprobe.audits.policy import Policy
from headprobe.audits.policy_file import FIXED
from headprobe.audits.rule import Facts, NotAsked, Rule
from headprobe.audits.rules import RULES
from headprobe.audits.rules.against import UNCOMPARED, measured
from headprobe.comparison import compare_reports
from headprobe.errors import HeadprobeError
from headprobe.report import Report

# What the first says of heads needs not be said again by what follows it.
STRONGER = {"HP102": ("HP101",), "HP104": ("HP101", "HP103"), "HP105": ("HP101",), "HP202": ("HP207",)}
# Why reports can't be compared, and the findings that tell it.
TOLD_BY = {"E-SHAPES": ("HP004",), "E-METRIC": ("HP005",), "E-SEQUENCES": ("HP000", "HP005")}


def audit_report(facts: Facts, policy: Policy, today: date | None = None) -> Audit:
    """What a policy finds in a report, and with a baseline in what became of it.

    Findings of redundancy (HP1xx) that the baseline has as well are no findings but a note. Waived findings stay
    listed with the reason. A rule that can't be asked is listed as skipped with the reason, unless the baseline has
    what the model's report lacks: then it fails. An audit in which nothing was measured or asked fails.

    Reports that `facts` has no comparison of are compared here; `HeadprobeError` is raised where they can't be, say
    for other texts, unless a finding tells the reason: heads or metrics that are lost.
    """
    today = today or date.today()
    facts, refusal = _compared(facts)
    asking = _Asking(facts, policy, refusal)
    for rule in policy.rules():
        asking.ask(rule)
    if refusal is not None and not {f.code for f in asking.findings} & set(TOLD_BY.get(refusal.code, ())):
        raise refusal
    findings, notes = _new(told_once(asking.findings), facts, policy)
    findings = [_waived(finding, policy, today) for finding in findings]
    findings += [*_expired(policy, today), *asking.nothing()]
    findings.sort(key=_order)
    return Audit(
        provenance=facts.report.provenance,
        baseline=None if facts.baseline is None else facts.baseline.provenance,
        findings=tuple(findings),
        rules=tuple(_with_status(asked, findings, policy) for asked in asking.asked),
        fail_on=policy.fail_on,
        notes=(*notes, *_idle_waivers(policy, findings, today)),
    )


def _compared(facts: Facts) -> tuple[Facts, HeadprobeError | None]:
    """The facts with a comparison if there is a baseline, or why there is none although there is a baseline."""
    if facts.baseline is None or facts.comparison is not None:
        return facts, None
    try:
        return replace(facts, comparison=compare_reports(facts.baseline, facts.report)), None
    except HeadprobeError as refusal:
        return facts, refusal


class _Asking:
    """Asks rules one by one and remembers what they found, or why they couldn't be asked."""

    def __init__(self, facts: Facts, policy: Policy, refusal: HeadprobeError | None) -> None:
        self.facts = facts
        self.refusal = refusal
        self.policy = policy
        self.findings: list[Finding] = []
        self.asked: list[Asked] = []
        self.tells_loss = any(rule.code == "HP005" for rule in policy.rules())

    def ask(self, rule: Rule) -> None:
        """Take down a rule's findings, or why there are none to be had."""
        limits = self.policy.limits(rule.code)
        try:
            self._ready(rule)
            found = list(rule.check(self.facts, limits))
        except NotAsked as obstacle:
            lost = self._lost(rule)
            if lost and not self.tells_loss and self.facts.baseline is not None:
                message = f"can't be asked: the baseline has {lost}, the model has not"
                self.findings.append(Finding(code=rule.code, severity="error", message=message, metric=lost))
            told = self.refusal is not None and self.facts.baseline is not None and str(obstacle) == UNCOMPARED
            self._note(rule, self.refusal.problem if told and self.refusal else str(obstacle))
            return
        self.findings += [f for f in found if limits.layers is None or f.layer is None or f.layer in limits.layers]
        self._note(rule, "")

    def _ready(self, rule: Rule) -> None:
        if rule.needs_baseline and self.facts.baseline is None:
            raise NotAsked("no baseline was given")
        missing = _missing(rule, self.facts.report)
        if missing:
            raise NotAsked(f"the report has no {missing}")

    def _lost(self, rule: Rule) -> str:
        """What the rule needs, the baseline has, and the model lacks."""
        if self.facts.baseline is None or _missing(rule, self.facts.baseline):
            return ""
        return _missing(rule, self.facts.report)

    def _note(self, rule: Rule, reason: str) -> None:
        status: Status = "skipped" if reason else "passed"
        severity = self.policy.limits(rule.code).severity
        self.asked.append(Asked(code=rule.code, name=rule.name, severity=severity, status=status, reason=reason))

    def nothing(self) -> Iterator[Finding]:
        """HP000 if no rule that looks at numbers could be asked."""
        judged = [asked for asked in self.asked if asked.code not in (*FIXED, "HP006") and asked.status != "skipped"]
        if not judged and not self.findings:
            reasons = sorted({asked.reason for asked in self.asked if asked.reason})
            why = f": {'; '.join(reasons)}" if reasons else ""
            yield Finding(code="HP000", severity="error", message=f"no rule could be asked{why}")


def _missing(rule: Rule, report: Report) -> str:
    lacking = [f"{name} of {table}" for table, name in rule.needs if name not in measured(getattr(report, table))]
    return ", ".join(lacking)


def told_once(findings: Iterable[Finding]) -> list[Finding]:
    """Without findings that a stronger rule tells of the same heads: a group of uniform heads is alike, too."""
    findings = list(findings)
    told: dict[tuple[str, int | None], set[int]] = {}
    for finding in findings:
        for weaker in STRONGER.get(finding.code, ()):
            told.setdefault((weaker, finding.site), set()).update(finding.heads)
    return [
        finding
        for finding in findings
        if not finding.heads or not set(finding.heads) <= told.get((finding.code, finding.site), set())
    ]


def _new(findings: list[Finding], facts: Facts, policy: Policy) -> tuple[list[Finding], list[str]]:
    """The findings without those of redundancy that the baseline has as well, and a note of these."""
    if facts.baseline is None:
        return findings, []
    before: list[Finding] = []
    for code in {finding.code for finding in findings if finding.code.startswith("HP1")}:
        try:
            before += RULES[code].check(Facts(facts.baseline), policy.limits(code))
        except (NotAsked, KeyError):
            continue  # the baseline can't be asked: whatever the model has is new
    known = [finding for finding in findings if any(_same(finding, old) for old in before)]
    if not known:
        return findings, []
    places = "; ".join(f"{finding.code} {finding.where}" for finding in known)
    return [finding for finding in findings if finding not in known], [f"found in the baseline as well: {places}"]


def _same(new: Finding, old: Finding) -> bool:
    """Whether the baseline's finding `old` tells all that `new` tells."""
    names: tuple[str, ...] = ("code", "tower", "kind", "layer", "other_layer")
    if new.heads and old.heads and (new.other_layer in (None, new.layer)):
        alike = set(new.heads) <= set(old.heads) and old.other_layer in (None, old.layer)
        return alike and all(getattr(new, name) == getattr(old, name) for name in names[:-1])
    names += ("head", "other_head", "heads")
    return all(getattr(new, name) == getattr(old, name) for name in names)


def _waived(finding: Finding, policy: Policy, today: date) -> Finding:
    waiver = None if finding.code in FIXED else policy.waiver_of(finding, today)
    return finding if waiver is None else replace(finding, waived=f"{waiver.reason} (until {waiver.expires})")


def _expired(policy: Policy, today: date) -> Iterator[Finding]:
    """HP006 for every waiver whose day is over."""
    if not any(rule.code == "HP006" for rule in policy.rules()):
        return
    for waiver in policy.waivers:
        if today > waiver.expires:
            yield Finding(
                code="HP006",
                severity=policy.limits("HP006").severity,
                message=f'the waiver of {waiver.where} expired on {waiver.expires}: "{waiver.reason}"',
                metric=f"waiver {waiver.where}",
            )


def _idle_waivers(policy: Policy, findings: Iterable[Finding], today: date) -> Iterator[str]:
    findings = list(findings)
    for waiver in policy.waivers:
        if today <= waiver.expires and not any(waiver.covers(finding) for finding in findings):
            yield f"the waiver of {waiver.where} covers no finding"


def _with_status(asked: Asked, findings: Iterable[Finding], policy: Policy) -> Asked:
    """Failed if one of the rule's findings fails the audit; else its reason counts the findings that don't."""
    least = SEVERITIES.index(policy.fail_on)
    own = [finding for finding in findings if finding.code == asked.code]
    failing = [f for f in own if f.waived is None and SEVERITIES.index(f.severity) >= least]
    if failing:
        return replace(asked, status="failed")
    if not own:
        return asked
    waived = sum(finding.waived is not None for finding in own)
    counts = [f"{waived} waived"] * bool(waived) + [f"{len(own) - waived} below {policy.fail_on}"] * (len(own) > waived)
    return replace(asked, reason=", ".join(counts))


def _order(finding: Finding) -> tuple[bool, int, str, int, int]:
    """The worst first; waived ones last."""
    severity = SEVERITIES.index(finding.severity)
    site, head = (-1 if number is None else number for number in (finding.site, finding.head))
    return finding.waived is not None, -severity, finding.code, site, head
