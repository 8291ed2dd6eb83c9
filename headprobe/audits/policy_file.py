"""The `[audit]` table of a configuration file, checked: whatever it sets exists and is in range."""

import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, NoReturn

from headprobe.audits.finding import SEVERITIES, Finding
from headprobe.audits.rules import RULES
from headprobe.errors import InputError, UsageError, nearest
from headprobe.settings import SITE_KINDS, find_file, parse_layers

FIXED = ("HP000",)  # rules that no policy can soften
UNWAIVABLE = ("HP000", "HP006")
KEYS = ("fail-on", "select", "ignore", "rules", "waivers")
WAIVER_KEYS = ("code", "layer", "head", "kind", "reason", "expires")
Table = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """A checked setting and where it comes from."""

    key: str
    value: Any
    source: str


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """Findings that are accepted for a reason until a day, which still counts.

    `layer`, `head` and `kind` narrow it down; a finding of several heads or of a pair is covered if `head` is one of
    them.
    """

    code: str
    reason: str
    expires: date
    layer: int | None = None
    head: int | None = None
    kind: str | None = None
    source: str = ""

    def covers(self, finding: Finding) -> bool:
        """Whether the finding is one that this waiver speaks of, whatever the day."""
        heads = {finding.head, *finding.heads}
        if (finding.other_site, finding.other_layer) in ((finding.site, finding.layer), (None, None)):
            heads.add(finding.other_head)
        return (
            finding.code == self.code
            and self.layer in (None, finding.layer)
            and self.kind in (None, finding.kind)
            and (self.head is None or self.head in heads)
        )

    @property
    def where(self) -> str:
        """The place in words."""
        words = [self.code]
        words += [] if self.kind is None else [self.kind]
        words += [] if self.layer is None else [f"layer {self.layer}"]
        words += [] if self.head is None else [f"head {self.head}"]
        return " ".join(words)


Found = tuple[tuple[Given, ...], tuple[Waiver, ...]]


def read_policy(path: Path) -> Found:
    """Settings and waivers of a file with an `[audit]` or `[tool.headprobe.audit]` table."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as fault:
        raise InputError("E-PATH", f"can't read the policy {path}: {fault.strerror}") from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise UsageError("E-POLICY", f"{path} is not valid TOML: {fault}") from fault
    for names in (("audit",), ("tool", "headprobe", "audit")):
        table: Any = content
        for name in names:
            table = table.get(name) if isinstance(table, dict) else None
        if table is not None:
            return _audit_table(table, str(path))
    raise UsageError("E-POLICY", f"{path} has no table [audit]", "Begin it with a line [audit].")


def find_policy(start: Path) -> Found:
    """Settings and waivers of the nearest configuration file at or above `start`, none if it has no policy."""
    values, path = find_file(start)
    return _audit_table(values["audit"], str(path)) if "audit" in values else ((), ())


def _audit_table(table: Any, source: str) -> Found:
    if not isinstance(table, dict):
        _refuse(source, "audit is no table", "Write [audit].")
    table = {name.replace("_", "-"): value for name, value in table.items()}
    _known(source, "audit", table, KEYS)
    settings = [checked(key, table[key], source) for key in ("fail-on", "select", "ignore") if key in table]
    rules = table.get("rules", {})
    if not isinstance(rules, dict) or not all(isinstance(rule, dict) for rule in rules.values()):
        _refuse(source, "audit.rules holds a value that is no table", "Write [audit.rules.HP101].")
    settings += [
        checked(f"{code}.{name}", value, source) for code, rule in rules.items() for name, value in rule.items()
    ]
    waivers = table.get("waivers", [])
    if not isinstance(waivers, list) or not all(isinstance(waiver, dict) for waiver in waivers):
        _refuse(source, "audit.waivers is no list of tables", "Write [[audit.waivers]].")
    return tuple(settings), tuple(_waiver(waiver, f"{source}, waiver {i + 1}") for i, waiver in enumerate(waivers))


def _refuse(source: str, problem: str, hint: str = "") -> NoReturn:
    raise UsageError("E-POLICY", f"{source}: {problem}", hint)


def _known(source: str, table: str, values: Table, valid: tuple[str, ...]) -> None:
    for name in values:
        if name not in valid:
            _refuse(source, f'{table} has no key "{name}"', nearest(name, valid))


def checked(key: str, value: Any, source: str) -> Given:
    """A setting of the policy, refused by `UsageError` if there is none of that name or its value is wrong."""
    if key == "fail-on":
        return Given(key, _choice(key, value, SEVERITIES, source), source)
    if key in ("select", "ignore"):
        return Given(key, tuple(_prefixes(key, value, source)), source)
    code, _, name = key.partition(".")
    if code not in RULES:
        _refuse(source, f'no rule "{code}"', nearest(code, RULES))
    if code in FIXED:
        _refuse(source, f"{code} can't be changed")
    if name == "severity":
        return Given(key, _choice(key, value, ("off", *SEVERITIES), source), source)
    if name == "layers":
        return Given(key, _layers(key, value, source), source)
    if name not in RULES[code].limits:
        _refuse(source, f'{code} has no setting "{name}"', nearest(name, (*RULES[code].limits, "severity", "layers")))
    return Given(key, _number(key, value, RULES[code].ranges[name], source), source)


def _choice(key: str, value: Any, valid: tuple[str, ...], source: str) -> str:
    if not isinstance(value, str) or value not in valid:
        _refuse(source, f"{key} is {value!r}", nearest(str(value), valid))
    return value


def _prefixes(key: str, value: Any, source: str) -> Iterator[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        _refuse(source, f"{key} is {value!r}", 'Write it like ["HP1", "HP201"].')
    for word in words:
        prefix = word.strip().upper()
        if not prefix or not any(code.startswith(prefix) for code in RULES):
            _refuse(source, f'{key} has "{word}", which is no rule', nearest(word, RULES))
        yield prefix


def _layers(key: str, value: Any, source: str) -> frozenset[int]:
    if isinstance(value, bool) or not isinstance(value, int | str):
        _refuse(source, f"{key} is {value!r}", 'Write it like "0-3,7".')
    try:
        return frozenset(parse_layers(str(value)))
    except UsageError as fault:
        _refuse(source, f"{key}: {fault.problem}", fault.hint)


def _number(key: str, value: Any, bounds: tuple[float, float], source: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(source, f"{key} is {value!r}, which is no number")
    low, high = bounds
    if not (math.isfinite(value) and low <= value <= high):
        _refuse(source, f"{key} is {value:g}", f"Give {low:g} to {high:g}.")
    return float(value)


def _waiver(table: Table, source: str) -> Waiver:
    _known(source, "a waiver", table, WAIVER_KEYS)
    for name in ("code", "reason", "expires"):
        if not table.get(name):
            _refuse(source, f"a waiver needs {name}", 'Like expires = 2031-01-31, reason = "known since …".')
    code, reason = table["code"], table["reason"]
    if not isinstance(code, str) or code not in RULES:
        _refuse(source, f'no rule "{code}"', nearest(str(code), RULES))
    if code in UNWAIVABLE:
        _refuse(source, f"{code} can't be waived")
    if not isinstance(reason, str) or not reason.strip():
        _refuse(source, "the reason of a waiver is a sentence")
    if table.get("head") is not None and table.get("layer") is None:
        _refuse(source, "a waiver of a head needs its layer")
    kind = table.get("kind")
    return Waiver(
        code=code,
        reason=reason.strip(),
        expires=_day(table["expires"], source),
        layer=_index("layer", table.get("layer"), source),
        head=_index("head", table.get("head"), source),
        kind=None if kind is None else _choice("kind", kind, SITE_KINDS, source),
        source=source,
    )


def _day(value: Any, source: str) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        _refuse(source, f"expires is {value!r}, which is no day", "Write it like 2031-01-31.")


def _index(name: str, value: Any, source: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        _refuse(source, f"{name} is {value!r}", "Give a number from 0 on.")
    return value if isinstance(value, int) else None
