"""What every format needs: numbers that JSON has words for, and untrusted text on one line."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from headprobe.audits.finding import Audit, Finding
from headprobe.audits.rule import Rule
from headprobe.errors import printable

MOST_CHARACTERS = 1_000  # of one text, where a person reads it


def number(value: float | None) -> float | None:
    """`value`, or None where it is missing, not a number or infinite."""
    return float(value) if value is not None and math.isfinite(value) else None


def line(text: str, most: int = MOST_CHARACTERS) -> str:
    """`text` on one line, without anything that a terminal or an XML reader would choke on, at most `most` long."""
    short = printable(text[: most + 1])
    return short if len(short) <= most else f"{short[: most - 1]}…"


def whole(text: str) -> str:
    """All of `text`; lone surrogates, which no UTF can write, become visible escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def json_value(value: Any) -> Any:
    """`value` made of what JSON has: null for what is no finite number, text for what is no JSON value."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return {whole(str(name)): json_value(entry) for name, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [json_value(entry) for entry in value]
    return whole(str(value))


def by_code(audit: Audit) -> dict[str, list[Finding]]:
    """The findings of each rule that was asked, in the rules' order; then those of codes that are no such rule."""
    found: dict[str, list[Finding]] = {rule.code: [] for rule in audit.rules}
    for finding in audit.findings:
        found.setdefault(finding.code, []).append(finding)
    return found


def name_of(code: str, audit: Audit, rules: Mapping[str, Rule]) -> str:
    """A rule's name in words; its code if nobody knows it."""
    known = {asked.code: asked.name for asked in audit.rules}
    return rules[code].name if code in rules else known.get(code, code)
