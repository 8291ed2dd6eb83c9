"""Audits as documents: the verdict in words, what was found, what was not asked, and how to learn more."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from headprobe.audits.finding import SEVERITIES, Asked, Audit, Finding, Severity
from headprobe.audits.formats import render
from headprobe.audits.formats.plain import by_code, line, name_of
from headprobe.audits.rule import Rule
from headprobe.view.document import Block, Document, Heading, Paragraph, Table, TableColumn
from headprobe.view.wording import counted

MOST_ON_A_PAGE = 200  # findings
MOST_PLACE = 60  # characters of a cell that names a place
MOST_WORDS = 400  # characters of a message


def audit_document(audit: Audit, rules: Mapping[str, Rule], *, top: int | None = 20) -> Document:
    """What an audit found, in a sentence, then the worst findings, `top` of them (None for all), then the rest.

    `rules` have the texts of the audit's codes.
    """
    open_ = [finding for finding in audit.findings if finding.waived is None]
    waived = [finding for finding in audit.findings if finding.waived is not None]
    blocks: list[Block] = [Heading(_title(audit)), Paragraph(" ".join(verdict_sentences(audit, rules)))]
    if open_:
        blocks += [findings_table(open_, audit, rules, top), Paragraph(_messages(open_, top))]
    if waived:
        blocks.append(Paragraph(_waived(waived, top)))
    blocks += [Paragraph(text) for text in (_not_asked(audit, rules), _passed(audit, rules), _notes(audit)) if text]
    if audit.findings:
        blocks.append(Paragraph(_more(audit)))
    return tuple(blocks)


def policy_document(settings: Iterable[tuple[str, str, str]]) -> Document:
    """A policy's settings and waivers, as (what, value, where it is from)."""
    rows = tuple((line(what), line(value), line(source)) for what, value, source in settings)
    columns = (TableColumn("setting", text=True), TableColumn("value", text=True), TableColumn("from", text=True))
    return (Table("Policy", columns, rows),)


def audit_text(audit: Audit, format: str, rules: Mapping[str, Rule]) -> str:  # noqa: A002  # the option's name
    """`audit` in Markdown or in one of `headprobe.audits.formats`. Raises `UsageError` for another format.

    Markdown, which people read, has the 200 worst findings.
    """
    if format != "markdown":
        return render(audit, format, rules)
    from headprobe.view.markdown import markdown

    return markdown(audit_document(audit, rules, top=MOST_ON_A_PAGE))


# --- the parts of an audit's document ---------------------------------------------------------------------------


def _title(audit: Audit) -> str:
    against = "" if audit.baseline is None else f" against {line(audit.baseline.model, MOST_WORDS)}"
    return f"Audit of {line(audit.provenance.model, MOST_WORDS)}{against}"


def verdict_sentences(audit: Audit, rules: Mapping[str, Rule]) -> list[str]:
    """Whether the audit passed, why, and how many rules were asked."""
    failing = audit.failing
    slight = [f for f in audit.findings if f.waived is None and _grade(f.severity) < _grade(audit.fail_on)]
    waived = sum(f.waived is not None for f in audit.findings)
    sentences = []
    if failing:
        verb = "finding fails" if len(failing) == 1 else "findings fail"
        sentences.append(f"{len(failing):,} {verb} the audit: {_by_rule(failing, audit, rules)}.")
    elif any(rule.status != "skipped" for rule in audit.rules):
        sentences.append("No finding fails the audit.")
    else:
        sentences.append("Nothing was audited: no rule could be asked.")
    if slight:
        counts = Counter(finding.severity for finding in slight)
        graded = " and ".join(counted(counts[name], name) for name in reversed(SEVERITIES) if counts[name])
        verb = "does" if len(slight) == 1 else "do"
        sentences.append(f"{graded} {verb} not fail it, which takes {audit.fail_on}s.")
    if waived:
        sentences.append(f"{counted(waived, 'finding')} {'is' if waived == 1 else 'are'} waived.")
    return [*sentences, _tally(audit)]


def _tally(audit: Audit) -> str:
    statuses = Counter(rule.status for rule in audit.rules)
    passed = f"{statuses['passed']} passed"
    told = {finding.code for finding in audit.findings}
    slightly = sum(rule.status == "passed" and rule.code in told for rule in audit.rules)
    if slightly:
        passed += f" ({slightly} of them with findings)"
    return (
        f"Of {counted(len(audit.rules), 'rule')}, {statuses['failed']} failed, {passed} and"
        f" {statuses['skipped']} could not be asked."
    )


def _grade(severity: Severity) -> int:
    return SEVERITIES.index(severity)


def _by_rule(findings: Iterable[Finding], audit: Audit, rules: Mapping[str, Rule]) -> str:
    counts = Counter(finding.code for finding in findings)
    return ", ".join(f"{count:,} of {_rule(code, audit, rules)}" for code, count in counts.items())


def _rule(code: str, audit: Audit, rules: Mapping[str, Rule]) -> str:
    name = line(name_of(code, audit, rules), MOST_PLACE)
    return code if name == code else f"{code} ({name})"


def findings_table(found: list[Finding], audit: Audit, rules: Mapping[str, Rule], top: int | None) -> Table:
    """The first `top` findings (None for all): what was seen, where, and the limit."""
    shown = found[:top] if top else found
    compared = any(_number(finding.baseline) for finding in shown)
    columns = [
        TableColumn("code", text=True), TableColumn("severity", text=True), TableColumn("where", text=True),
        TableColumn("what", 2, text=True), TableColumn("metric", 3, text=True),
        TableColumn("value"), TableColumn("limit"),
    ]  # fmt: skip
    columns += [TableColumn("baseline", 1)] * compared
    rows = tuple(
        (
            finding.code,
            finding.severity,
            line(finding.where, MOST_PLACE),
            line(name_of(finding.code, audit, rules), MOST_PLACE),
            line(finding.metric, MOST_PLACE),
            _number(finding.value),
            _number(finding.limit),
            *([_number(finding.baseline)] * compared),
        )
        for finding in shown
    )
    title = "Findings, the worst first" + _share(len(shown), len(found))
    return Table(title, tuple(columns), rows)


def _share(shown: int, all_: int) -> str:
    return f", {shown:,} of {all_:,}" if shown < all_ else ""


def _number(value: float | None) -> str:
    """Four significant digits; nothing for what is missing or not a number."""
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:.4g}"


def _messages(found: list[Finding], top: int | None) -> str:
    """What the findings say, a line each."""
    shown = found[:top] if top else found
    return "\n".join(f"{f.code} {line(f.where, MOST_PLACE)}: {line(f.message, MOST_WORDS)}" for f in shown)


def _waived(waived: list[Finding], top: int | None) -> str:
    """With the reason of each waiver, which says until when it holds."""
    shown = waived[:top] if top else waived
    lines = [f"{f.code} {line(f.where, MOST_PLACE)}: {line(f.waived or 'no reason given', MOST_WORDS)}" for f in shown]
    return "\n".join([f"Waived{_share(len(shown), len(waived))}:", *lines])


def _not_asked(audit: Audit, rules: Mapping[str, Rule]) -> str:
    """The rules that could not be asked, by reason."""
    reasons: dict[str, list[Asked]] = {}
    for rule in audit.rules:
        if rule.status == "skipped":
            reasons.setdefault(rule.reason, []).append(rule)
    lines = [
        f"{', '.join(_rule(rule.code, audit, rules) for rule in skipped)}: {line(reason, MOST_WORDS)}"
        for reason, skipped in reasons.items()
    ]
    return "\n".join(["Could not be asked:", *lines]) if lines else ""


def _passed(audit: Audit, rules: Mapping[str, Rule]) -> str:
    told = {finding.code for finding in audit.findings}
    passed = [rule.code for rule in audit.rules if rule.status == "passed" and rule.code not in told]
    return f"Passed without findings: {', '.join(_rule(code, audit, rules) for code in passed)}." if passed else ""


def _notes(audit: Audit) -> str:
    return "\n".join(f"Note: {line(note, MOST_WORDS).rstrip('.')}." for note in audit.notes)


def _more(audit: Audit) -> str:
    codes = [code for code, found in by_code(audit).items() if found]
    also = f" (or {', '.join(codes[1:6])}{', …' if len(codes) > 6 else ''})" if len(codes) > 1 else ""
    return f"What a rule asks, why, and what to do about it: headprobe audit --explain {codes[0]}{also}"
