"""An audit as JSON, for scripts: docs/schemas/audit.schema.json is its contract."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from headprobe import __version__
from headprobe.audits.finding import Asked, Audit, Finding
from headprobe.audits.formats.plain import json_value, number, whole
from headprobe.audits.rule import Rule
from headprobe.write import json_bytes

SCHEMA = "headprobe.audit"
SCHEMA_VERSION = "1.0"


def render(audit: Audit, rules: Mapping[str, Rule]) -> str:
    """Standard JSON on one line: what is missing, not a number or infinite is null."""
    return json_bytes(document(audit)).decode()


def document(audit: Audit) -> dict[str, Any]:
    """The audit as JSON values."""
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "headprobe", "version": __version__},
        "model": whole(audit.provenance.model),
        "baseline": None if audit.baseline is None else whole(audit.baseline.model),
        "fail_on": audit.fail_on,
        "failed": bool(audit.failing),
        "findings": [_finding(finding) for finding in audit.findings],
        "rules": [_rule(rule) for rule in audit.rules],
        "notes": [whole(note) for note in audit.notes],
        "provenance": json_value(asdict(audit.provenance)),
        "baseline_provenance": None if audit.baseline is None else json_value(asdict(audit.baseline)),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "site": json_value(finding.site),
        "path": whole(finding.path),
        "tower": whole(finding.tower),
        "kind": whole(finding.kind),
        "layer": json_value(finding.layer),
        "head": json_value(finding.head),
        "other_site": json_value(finding.other_site),
        "other_layer": json_value(finding.other_layer),
        "other_head": json_value(finding.other_head),
        "heads": [int(head) for head in finding.heads],
        "metric": whole(finding.metric),
        "value": number(finding.value),
        "limit": number(finding.limit),
        "baseline": number(finding.baseline),
        "message": whole(finding.message),
        "waived": None if finding.waived is None else whole(finding.waived),
        "fingerprint": finding.fingerprint,
    }


def _rule(rule: Asked) -> dict[str, Any]:
    return {
        "code": rule.code,
        "name": whole(rule.name),
        "severity": rule.severity,
        "status": rule.status,
        "reason": whole(rule.reason),
    }
