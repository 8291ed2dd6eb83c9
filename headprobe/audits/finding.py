"""What an audit says: findings, and which rules could be asked at all."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from headprobe.report import Provenance

Severity = Literal["note", "warning", "error"]
Status = Literal["passed", "failed", "skipped"]
SEVERITIES: tuple[Severity, ...] = ("note", "warning", "error")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A rule's code, what it saw, the limit, and where.

    A finding is of a head, of a pair of heads (`other_*`), of a layer (`head` None; `heads` those that it is about), or
    of the whole model (`site` None). `value` is the measured `metric`, `baseline` the same of the baseline; numbers
    that don't apply are None. `message` is one sentence with the numbers in it, `waived` the reason of the waiver that
    covers it.
    """

    code: str
    severity: Severity
    message: str
    site: int | None = None
    path: str = ""
    tower: str = ""
    kind: str = ""
    layer: int | None = None
    head: int | None = None
    other_site: int | None = None
    other_layer: int | None = None
    other_head: int | None = None
    heads: tuple[int, ...] = ()
    metric: str = ""
    value: float | None = None
    limit: float | None = None
    baseline: float | None = None
    waived: str | None = None

    @property
    def where(self) -> str:
        """The place in words: "encoder layer 3 head 5"."""
        if self.layer is None:
            return "model"
        tower = f"{self.tower} " if self.tower not in ("", self.kind) else ""
        place = f"{tower}{self.kind} layer {self.layer}"
        if self.head is None:
            return place
        if self.other_head is None:
            return f"{place} head {self.head}"
        if (self.other_site, self.other_layer) in ((self.site, self.layer), (None, None)):
            return f"{place} heads {self.head} and {self.other_head}"
        return f"{place} head {self.head} and layer {self.other_layer} head {self.other_head}"

    @property
    def fingerprint(self) -> str:
        """The same for the same rule at the same place, whatever the numbers: how CI systems follow a finding.

        A group of heads goes by its first one, so that two groups of a layer differ and one that grows stays itself.
        """
        head = self.heads[0] if self.head is None and self.heads else self.head
        names = (self.code, self.path, self.kind, self.layer, head, self.other_layer, self.other_head, self.metric)
        return hashlib.sha256(repr(names).encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A rule of the policy: whether it passed, failed, or could not be asked, and then why (`reason`)."""

    code: str
    name: str
    severity: Severity
    status: Status
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """The result of an audit. `findings` are the worst first, those that are waived among them."""

    provenance: Provenance
    baseline: Provenance | None
    findings: tuple[Finding, ...]
    rules: tuple[Asked, ...]
    fail_on: Severity = "error"
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Finding]:
        """The findings, the worst first."""
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    @property
    def failing(self) -> tuple[Finding, ...]:
        """The findings that make the audit fail: not waived, and at least as severe as `fail_on`."""
        least = SEVERITIES.index(self.fail_on)
        return tuple(f for f in self.findings if f.waived is None and SEVERITIES.index(f.severity) >= least)
