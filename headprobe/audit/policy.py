"""What an audit asks and how strictly: defaults, file, environment, flags, and which of them each value is from."""

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from headprobe.audit.finding import Finding, Severity
from headprobe.audit.policy_file import FIXED, Given, Waiver, checked, find_policy, read_policy
from headprobe.audit.rule import Limits, Rule
from headprobe.audit.rules import RULES
from headprobe.errors import UsageError

VARIABLES = {
    "fail-on": "HEADPROBE_AUDIT_FAIL_ON",
    "select": "HEADPROBE_AUDIT_SELECT",
    "ignore": "HEADPROBE_AUDIT_IGNORE",
    "limit": "HEADPROBE_AUDIT_LIMIT",
    "policy": "HEADPROBE_AUDIT_POLICY",
}


@dataclass(frozen=True)
class Policy:
    """Settings with the source of each, and waivers.

    The names of settings are "fail-on", "select", "ignore", "HP101.js", "HP101.severity", "HP101.layers" and the like.
    """

    values: dict[str, Any]
    sources: dict[str, str]
    waivers: tuple[Waiver, ...] = ()

    @property
    def fail_on(self) -> Severity:
        """The least severity that fails the audit."""
        value: Severity = self.values["fail-on"]
        return value

    def rules(self) -> list[Rule]:
        """The rules to ask, in order of their codes: selected, not ignored, not off. HP000 always."""
        return [
            rule
            for code, rule in RULES.items()
            if code in FIXED
            or (
                code.startswith(self.values["select"])
                and not code.startswith(self.values["ignore"])
                and self.values[f"{code}.severity"] != "off"
            )
        ]

    def limits(self, code: str) -> Limits:
        """A rule's settings."""
        rule = RULES[code]
        return Limits(
            values={name: self.values[f"{code}.{name}"] for name in rule.limits},
            severity=self.values[f"{code}.severity"],
            layers=self.values[f"{code}.layers"],
        )

    def waiver_of(self, finding: Finding, today: date) -> Waiver | None:
        """The waiver that covers a finding on that day."""
        return next((w for w in self.waivers if w.covers(finding) and today <= w.expires), None)

    def rows(self) -> list[tuple[str, str, str]]:
        """Every setting as (key, value, source), and every waiver."""
        settings = [(key, _shown(value), self.sources[key]) for key, value in self.values.items()]
        return settings + [
            (f"waiver {waiver.where}", f"{waiver.reason} (until {waiver.expires})", waiver.source)
            for waiver in self.waivers
        ]


def _shown(value: Any) -> str:
    if value is None:
        return "all"
    if isinstance(value, frozenset):
        return ",".join(str(layer) for layer in sorted(value))
    if isinstance(value, tuple):
        return ",".join(value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def default_policy() -> Policy:
    """What holds if nobody says otherwise."""
    values: dict[str, Any] = {"fail-on": "error", "select": ("HP",), "ignore": ()}
    for code, rule in RULES.items():
        values[f"{code}.severity"] = rule.severity
        values[f"{code}.layers"] = None
        values |= {f"{code}.{name}": limit for name, limit in rule.limits.items()}
    return Policy(values, dict.fromkeys(values, "default"))


def load_policy(
    *,
    policy: str | Path | None = None,
    fail_on: str | None = None,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    limits: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> Policy:
    """The policy from all sources, the later over the earlier: defaults, file, environment, flags (the arguments).

    The file is `policy`, else the one that HEADPROBE_AUDIT_POLICY names, else the nearest configuration file at or
    above `start` (the working directory); it is never looked for beside a model. `limits` are like "HP101.js=0.02".
    Raises `UsageError` for anything unknown or out of range.
    """
    environ = os.environ if environ is None else environ
    path = policy or environ.get(VARIABLES["policy"]) or None
    found = read_policy(Path(path)) if path else find_policy(start or Path.cwd())
    policy_now = default_policy()
    for given in (*found[0], *_environment(environ), *_flags(fail_on, select, ignore, limits)):
        policy_now.values[given.key] = given.value
        policy_now.sources[given.key] = given.source
    return Policy(policy_now.values, policy_now.sources, found[1])


def _environment(environ: Mapping[str, str]) -> Iterable[Given]:
    for key in ("fail-on", "select", "ignore"):
        text = environ.get(VARIABLES[key], "").strip()
        if text:
            yield checked(key, text if key == "fail-on" else text.split(","), VARIABLES[key])
    for text in environ.get(VARIABLES["limit"], "").replace(",", " ").split():
        yield limit_of(text, VARIABLES["limit"])


def _flags(fail_on: str | None, select: Iterable[str], ignore: Iterable[str], limits: Iterable[str]) -> Iterable[Given]:
    if fail_on is not None:
        yield checked("fail-on", fail_on, "--fail-on")
    for key, words in (("select", list(select)), ("ignore", list(ignore))):
        if words:
            yield checked(key, [part for word in words for part in word.split(",")], f"--{key}")
    for text in limits:
        yield limit_of(text, "--limit")


def limit_of(text: str, source: str) -> Given:
    """A limit from words like "HP101.js=0.02"."""
    key, equals, number = (part.strip() for part in text.partition("="))
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not equals or key.count(".") != 1 or math.isnan(value):
        raise UsageError("E-POLICY", f'{source} "{text}" sets no limit', "Write it like HP101.js=0.02.")
    return checked(key, value, source)
