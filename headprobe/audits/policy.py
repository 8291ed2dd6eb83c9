"""What an audit asks and how strictly: defaults, file, environment, flags, and which of them each value is from."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from headprobe.audits.finding import Finding, Severity
from headprobe.audits.policy_file import FIXED, Given, Waiver, checked, find_policy, read_policy
from headprobe.audits.rule import Limits, Rule
from headprobe.audits.rules import RULES
from headprobe.errors import UsageError

VARIABLES = {
    "fail-on": "HEADPROBE_AUDIT_FAIL_ON",
    "select": "HEADPROBE_AUDIT_SELECT",
    "ignore": "HEADPROBE_AUDIT_IGNORE",
    "set": "HEADPROBE_AUDIT_SET",
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
    above `start` (the working directory); it is never looked for beside a model. `limits` are like "HP101.js=0.02",
    "HP101.severity=off" or "HP101.layers=0-3". A flag that repeats the environment counts as the environment's.
    Raises `UsageError` for anything unknown or out of range.
    """
    environ = os.environ if environ is None else environ
    path = policy or environ.get(VARIABLES["policy"]) or None
    found = read_policy(Path(path)) if path else find_policy(start or Path.cwd())
    lists = {"select": select, "ignore": ignore, "set": limits}
    policy_now = default_policy()
    for given in (*found[0], *_environment(environ), *_flags(environ, fail_on, lists)):
        policy_now.values[given.key] = given.value
        policy_now.sources[given.key] = given.source
    return Policy(policy_now.values, policy_now.sources, found[1])


def _environment(environ: Mapping[str, str]) -> Iterable[Given]:
    for key in ("fail-on", "select", "ignore"):
        text = environ.get(VARIABLES[key], "").strip()
        if text:
            yield checked(key, text if key == "fail-on" else _words([text]), VARIABLES[key])
    for text in _words([environ.get(VARIABLES["set"], "")]):
        yield set_by(text, VARIABLES["set"])


def _flags(environ: Mapping[str, str], fail_on: str | None, lists: Mapping[str, Iterable[str]]) -> Iterable[Given]:
    """What flags set. A command line may hand on variables as if they were flags: these are the environment's."""
    if fail_on is not None and fail_on != environ.get(VARIABLES["fail-on"]):
        yield checked("fail-on", fail_on, "--fail-on")
    for key, given in lists.items():
        words = _words(given)
        if not words or words == _words([environ.get(VARIABLES[key], "")]):
            continue
        if key == "set":
            yield from (set_by(text, "--set") for text in words)
        else:
            yield checked(key, words, f"--{key}")


def _words(texts: Iterable[str]) -> list[str]:
    """Words apart by commas or blanks, so that layers in them can't be: "HP101.layers=0-3"."""
    return [word for text in texts for word in text.replace(",", " ").split()]


def set_by(text: str, source: str) -> Given:
    """A setting of a rule from words like "HP101.js=0.02"."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (equals and value) or key.count(".") != 1:
        raise UsageError("E-POLICY", f'{source} "{text}" sets nothing', "Write it like HP101.js=0.02.")
    if key.endswith((".severity", ".layers")):
        return checked(key, value, source)
    try:
        return checked(key, float(value), source)
    except ValueError as fault:
        raise UsageError("E-POLICY", f'{source} "{text}": {value} is no number') from fault
