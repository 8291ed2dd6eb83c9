"""An audit as annotations of GitHub Actions: commands in the log, one a line."""

from collections.abc import Mapping

from headprobe.audits.finding import SEVERITIES, Audit, Finding, Severity
from headprobe.audits.formats.plain import line, name_of
from headprobe.audits.rule import Rule

MOST = 10  # GitHub shows so many annotations of a type in a step, and drops the rest without a word
COMMANDS: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "notice"}


def render(audit: Audit, rules: Mapping[str, Rule]) -> str:
    """Annotations of the worst findings that are not waived, and of what could not be asked; empty if all is well.

    Every line starts with a command of ours, and nothing untrusted can end one or start another.
    """
    skipped = [rule.code for rule in audit.rules if rule.status == "skipped"]
    lines: list[str] = []
    for severity in reversed(SEVERITIES):
        found = [finding for finding in audit.findings if finding.severity == severity and finding.waived is None]
        room = MOST - 1 if severity == "note" and skipped else MOST
        shown = found if len(found) <= room else found[: room - 1]
        lines += [_annotation(finding, audit, rules) for finding in shown]
        if len(found) > len(shown):
            rest = f"{len(found) - len(shown):,} more of {audit.provenance.model}"
            lines.append(_command(COMMANDS[severity], "headprobe audit", rest))
    if skipped:
        said = f"{len(skipped)} of {len(audit.rules)} rules could not be asked: {', '.join(skipped)}"
        lines.append(_command("notice", "headprobe audit", said))
    return "".join(f"{text}\n" for text in lines)


def _annotation(finding: Finding, audit: Audit, rules: Mapping[str, Rule]) -> str:
    title = f"{finding.code} {name_of(finding.code, audit, rules)}: {finding.where}"
    return _command(COMMANDS[finding.severity], title, f"{audit.provenance.model}: {finding.message}")


def _command(command: str, title: str, message: str) -> str:
    escaped = _data(line(title, 200)).replace(":", "%3A").replace(",", "%2C")
    return f"::{command} title={escaped}::{_data(line(message))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
