"""Audits to write: one with something of everything, hostile texts, many findings."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from headprobe.audits.finding import Asked, Audit, Finding, Severity
from headprobe.audits.rule import Facts, Limits, Rule
from headprobe.report import Provenance


class TwinHeads:
    code: ClassVar[str] = "HP102"
    name: ClassVar[str] = "twin-heads"
    about: ClassVar[str] = "Two heads do the same."
    rationale: ClassVar[str] = "Heads this near are hard to tell apart."
    advice: ClassVar[str] = "Prune one of them."
    passes: ClassVar[str] = "all differ"
    fails: ClassVar[str] = "two are alike"
    severity: ClassVar[Severity] = "error"
    limits: ClassVar[dict[str, float]] = {"js": 0.02}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"js": (0.0, 0.7)}
    needs_baseline: ClassVar[bool] = False
    needs: ClassVar[tuple[tuple[str, str], ...]] = ()

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        return ()


class DeadHead(TwinHeads):
    code: ClassVar[str] = "HP101"
    name: ClassVar[str] = "dead-head"


RULES: dict[str, Rule] = {"HP101": DeadHead(), "HP102": TwinHeads()}
ASKED = (
    Asked(code="HP101", name="dead-head", severity="error", status="passed"),
    Asked(code="HP102", name="twin-heads", severity="error", status="failed"),
    Asked(code="HP201", name="lost-diversity", severity="warning", status="failed"),
    Asked(code="HP202", name="drift", severity="warning", status="skipped", reason="there is no baseline"),
)
HOSTILE = (
    "two\nlines",
    "\n::set-output name=x::y",
    "a\r\n::stop-commands::z\u2028::error::\u0085::warning::",
    "##[error]x",
    "]]> <![CDATA[ &amp; <b>",
    "\x00\x01\x08\x0b\x1b[31m\x7f\x9b\ufffe\uffff",
    "\ud800 \udfff",
    "| a | b |\n|---|---|\n`x` ``` ~~~",
    "<script>alert(1)</script><img src=x onerror=y>",
    "\u202eevil\u2066\u200f\u200b",
    "[link](javascript:x) ![](http://x) *a* _b_ # c @user #1",
    "%0A%0D::error::%25,:",
    "../../../etc/passwd",
    "[bold]x[/bold] [/INST] :smile:",
    "=1+1",
    "x" * 10_000,
    "\u202e" * 10_000,
    "",
)


def finding(**change: Any) -> Finding:
    of: dict[str, Any] = {
        "code": "HP102", "severity": "error", "message": "JS 0.0012 nats, limit 0.02", "site": 3, "kind": "encoder",
        "path": "encoder.layer.3", "layer": 3, "head": 5, "metric": "js", "value": 0.0012, "limit": 0.02,
    }  # fmt: skip
    return Finding(**{**of, **change})


def findings() -> tuple[Finding, ...]:
    return (
        finding(),
        finding(
            code="HP201", severity="warning", message="3.5 effective heads, limit 4", site=9, tower="text",
            kind="decoder", layer=2, head=None, heads=(1, 2), metric="effective_heads", value=3.5, limit=4.0,
            baseline=7.25,
        ),
        finding(head=1, other_site=4, other_layer=4, other_head=11, waived="known; until 2027-01-01"),
    )  # fmt: skip


def many(count: int) -> tuple[Finding, ...]:
    return tuple(finding(layer=i // 100, site=i // 100, head=i % 100) for i in range(count))


def audit(
    found: Sequence[Finding] | None = None,
    asked: Sequence[Asked] = ASKED,
    *,
    model: str = "org/tuned",
    baseline: str = "org/base",
    notes: tuple[str, ...] = (),
) -> Audit:
    return Audit(
        provenance=Provenance(model, "BertModel", options={}),
        baseline=Provenance(baseline, "BertModel"),
        findings=findings() if found is None else tuple(found),
        rules=tuple(asked),
        notes=notes,
    )
