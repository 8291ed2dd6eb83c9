"""An audit as a page: passed or failed and why, what to do about it, every rule that was asked, and the evidence."""

import shlex
from collections.abc import Mapping

from headprobe.audits.finding import Audit, Finding
from headprobe.audits.formats.plain import by_code, name_of
from headprobe.audits.rule import Rule
from headprobe.view.audit import findings_table, verdict_sentences
from headprobe.view.document import Block, Document, Heading, Paragraph, Section, Step, Summary, Table, TableColumn
from headprobe.view.pages.evidence import facts, noted, rests_on
from headprobe.view.pages.words import shown_name

MOST_MESSAGES = 50  # of a rule
MOST_FINDINGS = 1_000


def audit_page(audit: Audit, rules: Mapping[str, Rule], *, top: int | None = None) -> Document:
    """Everything about an audit that people look at; `rules` have the texts of its codes."""
    open_ = [finding for finding in audit.findings if finding.waived is None]
    waived = [finding for finding in audit.findings if finding.waived is not None]
    blocks: list[Block] = [Heading(_title(audit)), _summary(audit, rules)]
    blocks += noted(audit.notes)
    if open_:
        table = findings_table(open_, audit, rules, min(top or MOST_FINDINGS, MOST_FINDINGS))
        blocks += [Section("Findings", "findings", "The worst first."), table]
        blocks += _why(audit, open_, rules)
    if waived:
        about = "Findings that somebody decided to live with, and the reason."
        blocks += [Section("Waived", "waived", about), _waived(waived)]
    blocks += [Section("Every rule", "rules", short="Rules"), _asked(audit, rules)]
    known = [facts("Model", audit.provenance)]
    known += [facts("Baseline", audit.baseline)] if audit.baseline is not None else []
    return (*blocks, *rests_on(*known))


def _title(audit: Audit) -> str:
    against = "" if audit.baseline is None else f" against {shown_name(audit.baseline.model)}"
    return f"Audit of {shown_name(audit.provenance.model)}{against}"


def _summary(audit: Audit, rules: Mapping[str, Rule]) -> Summary:
    failing = audit.failing
    figures = [(f"{len(failing):,}", "findings that fail it" if len(failing) != 1 else "finding that fails it")]
    counts = {status: sum(rule.status == status for rule in audit.rules) for status in ("passed", "failed", "skipped")}
    figures += [
        (f"{counts['passed']:,}", "rules passed"),
        (f"{counts['failed']:,}", "rules failed"),
        (f"{counts['skipped']:,}", "could not be asked"),
    ]
    verdict = "failed" if failing else "passed" if len(audit.rules) > counts["skipped"] else ""
    return Summary(tuple(verdict_sentences(audit, rules)), tuple(figures), tuple(_steps(audit, rules)), verdict)


def _steps(audit: Audit, rules: Mapping[str, Rule]) -> list[Step]:
    """For each rule that fails what it advises, and how to ask again."""
    codes = list(dict.fromkeys(finding.code for finding in audit.failing))
    steps = [
        Step(f"{code}: {rules[code].advice}", f"headprobe audit --explain {code}")
        for code in codes[:3]
        if code in rules
    ]
    model = shlex.quote(shown_name(audit.provenance.model))
    baseline = "" if audit.baseline is None else f" --baseline {shlex.quote(shown_name(audit.baseline.model))}"
    return [*steps, Step("Ask again.", f"headprobe audit {model}{baseline}")]


def _why(audit: Audit, found: list[Finding], rules: Mapping[str, Rule]) -> list[Block]:
    """Rule by rule: what its findings say, and what it asks."""
    blocks: list[Block] = [Section("What they mean", "meaning", short="Meaning")]
    for code, findings in by_code(audit).items():
        mine = [finding for finding in findings if finding in found]
        if not mine:
            continue
        blocks.append(Heading(f"{code} {name_of(code, audit, rules)}"))
        told = [f"{finding.where}: {finding.message}".replace("\n", " ") for finding in mine[:MOST_MESSAGES]]
        more = [f"and {len(mine) - MOST_MESSAGES:,} more"] if len(mine) > MOST_MESSAGES else []
        blocks.append(Paragraph("\n".join([*told, *more])))
        if code in rules:
            blocks.append(Paragraph(rules[code].about.replace("`", "")))
    return blocks


def _waived(found: list[Finding]) -> Table:
    columns = tuple(TableColumn(title, text=True) for title in ("code", "severity", "where", "reason"))
    rows = tuple((f.code, f.severity, f.where, f.waived or "no reason given") for f in found[:MOST_FINDINGS])
    return Table("Waived findings", columns, rows)


def _asked(audit: Audit, rules: Mapping[str, Rule]) -> Table:
    titles = ("code", "rule", "severity", "status", "findings", "what it asks, or why it could not")
    columns = tuple(TableColumn(title, text=title != "findings") for title in titles)
    counts = {code: len(found) for code, found in by_code(audit).items()}
    rows = tuple(
        (
            rule.code, rule.name, rule.severity, rule.status, str(counts.get(rule.code, 0)),
            rule.reason or (rules[rule.code].about.replace("`", "") if rule.code in rules else ""),
        )
        for rule in audit.rules
    )  # fmt: skip
    return Table("Rules of the policy", columns, rows)
