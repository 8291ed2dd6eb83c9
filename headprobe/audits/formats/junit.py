"""An audit as JUnit XML, which every CI system shows: a suite is a model, a case is a rule.

A case fails exactly if its rule makes the audit fail, so the picture and the exit code agree; findings that are waived
or too slight to fail are told in the case's output.
"""

from collections.abc import Mapping
from io import BytesIO
from typing import TYPE_CHECKING

from headprobe.audits.finding import Asked, Audit, Finding
from headprobe.audits.formats.plain import by_code, line, name_of
from headprobe.audits.rule import Rule

if TYPE_CHECKING:
    from junitparser import TestCase

MOST_LINES = 1_000  # of one case: viewers show a case's text at once


def render(audit: Audit, rules: Mapping[str, Rule]) -> str:
    """XML 1.0; characters that it has no place for become visible escapes."""
    from junitparser import JUnitXml, TestSuite

    suite = TestSuite(line(audit.provenance.model))
    suite.add_property("fail_on", audit.fail_on)
    if audit.baseline is not None:
        suite.add_property("baseline", line(audit.baseline.model))
    asked = {rule.code: rule for rule in audit.rules}
    failing = {id(finding) for finding in audit.failing}
    for note in audit.notes:
        suite.add_property("note", line(note))
    suite.add_testcases(
        [
            _case(code, line(name_of(code, audit, rules)), asked.get(code), found, failing)
            for code, found in by_code(audit).items()
        ]
    )
    file = JUnitXml("headprobe audit")
    file.add_testsuite(suite)
    content = BytesIO()
    file.write(content, pretty=True)
    return content.getvalue().decode("utf-8")


def _case(code: str, name: str, asked: Asked | None, found: list[Finding], failing: set[int]) -> "TestCase":
    from junitparser import Failure, Skipped, TestCase

    case = TestCase(f"{code} {name}", classname="headprobe.audit", time=0.0)
    grave = [finding for finding in found if id(finding) in failing]
    slight = [finding for finding in found if id(finding) not in failing]
    if grave:
        more = f" (and {len(grave) - 1:,} more)" if len(grave) > 1 else ""
        failure = Failure(f"{line(grave[0].where)}: {line(grave[0].message)}{more}", grave[0].severity)
        failure.text = _lines(grave)
        case.result = [failure]
    elif asked is not None and asked.status == "skipped":
        case.result = [Skipped(line(asked.reason))]
    if slight:
        case.system_out = _lines(slight)
    return case


def _lines(findings: list[Finding]) -> str:
    lines = [_line(finding) for finding in findings[:MOST_LINES]]
    if len(findings) > MOST_LINES:
        lines.append(f"and {len(findings) - MOST_LINES:,} more")
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    waived = "" if finding.waived is None else f" (waived: {line(finding.waived)})"
    return f"{finding.severity}: {line(finding.where)}: {line(finding.message)}{waived}"
