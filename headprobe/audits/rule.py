"""What a rule is: a small class with a stable code, and the facts that it is asked about."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from headprobe.audits.finding import Finding, Severity
from headprobe.comparison import Comparison
from headprobe.report import Report


@dataclass(frozen=True)
class Facts:
    """What a rule may look at: the model's report, and with a baseline that one's report and their comparison."""

    report: Report
    baseline: Report | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Limits:
    """A rule's settings under a policy: limits by name, severity, and the layers that it is asked of (None: all)."""

    values: dict[str, float]
    severity: Severity
    layers: frozenset[int] | None = None


class Rule(Protocol):
    """A rule: its `code` (HP102), what it finds, and why its limits are what they are.

    `limits` are the defaults by name and `rationale` says where they come from; `advice` says what to do about a
    finding; `passes` and `fails` describe an example of each outcome. `needs` names the columns, as (table, column),
    without which the rule can't be asked of a report; where a baseline has one that the model's report lacks, that
    fails. `ranges` are the smallest and largest value that a policy may give each limit.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    about: ClassVar[str]
    rationale: ClassVar[str]
    advice: ClassVar[str]
    passes: ClassVar[str]
    fails: ClassVar[str]
    severity: ClassVar[Severity]
    limits: ClassVar[dict[str, float]] = {}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {}
    needs_baseline: ClassVar[bool] = False
    needs: ClassVar[tuple[tuple[str, str], ...]] = ()

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """The rule's findings, none if all is well. Raises `NotAsked` where the facts don't allow an answer."""


class NotAsked(Exception):
    """The facts at hand don't allow an answer, for a reason that is told: no baseline, say."""
