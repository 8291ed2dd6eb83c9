"""An audit as SARIF 2.1.0, for code scanning. Tests hold it to the published schema."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from headprobe import __version__
from headprobe.audits.finding import Asked, Audit, Finding, Severity
from headprobe.audits.formats.plain import by_code, json_value, line, name_of, number
from headprobe.audits.rule import Rule

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
MOST_RESULTS = 25_000  # GitHub refuses a run with more
MOST_TITLE = 250  # characters of a rule's description in a list
MOST_SEGMENT = 200  # characters of a name in a URI
PROBLEM: dict[Severity, str] = {"error": "error", "warning": "warning", "note": "recommendation"}  # GitHub's words


def render(audit: Audit, rules: Mapping[str, Rule]) -> str:
    """One run with the worst findings, as many as code scanning takes."""
    document = {"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [_run(audit, rules)]}
    return json.dumps(document, allow_nan=False, ensure_ascii=True, indent=1) + "\n"


def _run(audit: Audit, rules: Mapping[str, Rule]) -> dict[str, Any]:
    codes = list(by_code(audit))
    index = {code: i for i, code in enumerate(codes)}
    uri = artifact(audit.provenance.model)
    return {
        "tool": {
            "driver": {
                "name": "headprobe",
                "version": __version__,
                "rules": [_rule(code, audit, rules) for code in codes],
            }
        },
        # GitHub keeps the alerts of runs with different ids apart: several models of one repository
        "automationDetails": {"id": f"headprobe/{uri.rpartition('/')[0]}/"},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": _notifications(audit, index)}],
        "columnKind": "unicodeCodePoints",
        "properties": {
            "model": line(audit.provenance.model),
            "baseline": None if audit.baseline is None else line(audit.baseline.model),
            "failOn": audit.fail_on,
            "failed": bool(audit.failing),
        },
        "results": _results(audit, uri, index),
    }


def artifact(model: str) -> str:
    """The relative URI of a model's config.json: never absolute, never upwards, without a scheme."""
    parts = [part for part in line(model).replace("\\", "/").split("/") if part not in ("", ".", "..", "~")]
    return "/".join([*(quote(part[:MOST_SEGMENT], safe="") for part in parts), "config.json"])


def _rule(code: str, audit: Audit, rules: Mapping[str, Rule]) -> dict[str, Any]:
    asked = next((rule for rule in audit.rules if rule.code == code), None)
    severity = asked.severity if asked else next(f.severity for f in audit.findings if f.code == code)
    name = name_of(code, audit, rules)
    about: dict[str, Any] = {
        "id": code,
        "name": line(name),
        "shortDescription": {"text": line(name)},
        "defaultConfiguration": {"level": severity},
        "properties": {"tags": ["attention"], "problem.severity": PROBLEM[severity]},
    }
    if code in rules:
        rule = rules[code]
        parts = [line(text) for text in (rule.about, rule.rationale, rule.advice) if text]
        about["shortDescription"] = {"text": line(rule.about, MOST_TITLE)}
        about["fullDescription"] = {"text": line(rule.about)}
        about["help"] = {"text": "\n\n".join([*parts, f"More: headprobe audit --explain {code}"])}
    return about


def _notifications(audit: Audit, index: Mapping[str, int]) -> list[dict[str, Any]]:
    said = [_skipped(rule, index) for rule in audit.rules if rule.status == "skipped"]
    said += [{"level": "note", "message": {"text": line(note)}} for note in audit.notes]
    if len(audit.findings) > MOST_RESULTS:
        text = f"{len(audit.findings) - MOST_RESULTS:,} of {len(audit.findings):,} findings are left out"
        said.append({"level": "warning", "message": {"text": f"{text}: code scanning takes {MOST_RESULTS:,}."}})
    return said


def _skipped(rule: Asked, index: Mapping[str, int]) -> dict[str, Any]:
    return {
        "level": "note",
        "message": {"text": f"{rule.code} {line(rule.name)} could not be asked: {line(rule.reason)}"},
        "associatedRule": {"id": rule.code, "index": index[rule.code]},
    }


def _results(audit: Audit, uri: str, index: Mapping[str, int]) -> list[dict[str, Any]]:
    """GitHub follows a result by its rule and one fingerprint, and takes two that share it for one."""
    seen: Counter[str] = Counter()
    results = []
    for finding in audit.findings[:MOST_RESULTS]:
        print_ = finding.fingerprint
        seen[print_] += 1
        results.append(_result(finding, uri, index))
        results[-1]["partialFingerprints"] = {
            "headprobe/v1": print_,
            "primaryLocationLineHash": f"{print_}:{seen[print_]}",
        }
    return results


def _result(finding: Finding, uri: str, index: Mapping[str, int]) -> dict[str, Any]:
    numbers = {name: number(getattr(finding, name)) for name in ("value", "limit", "baseline")}
    facts = {"metric": line(finding.metric), "path": line(finding.path), "heads": list(finding.heads)}
    waived = finding.waived is not None
    suppression = {"kind": "external", "status": "accepted", "justification": line(finding.waived or "")}
    return {
        "ruleId": finding.code,
        "ruleIndex": index[finding.code],
        "level": finding.severity,
        "message": {"text": f"{line(finding.where)}: {line(finding.message)}"},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": 1}},
                "logicalLocations": _places(finding),
            }
        ],
        "suppressions": [suppression] if waived else [],  # the standard wants it in all results or in none
        "properties": {
            **{name: value for name, value in numbers.items() if value is not None},
            **{name: json_value(value) for name, value in facts.items() if value},
        },
    }


def _places(finding: Finding) -> list[dict[str, str]]:
    """The head or the layer, and the other one of a pair: "encoder/layer.3/head.7"."""
    if finding.layer is None:
        return [{"name": "model", "fullyQualifiedName": "model"}]
    places = [_place(finding, finding.layer, finding.head)]
    if finding.other_head is not None:
        layer = finding.layer if finding.other_layer is None else finding.other_layer
        places.append(_place(finding, layer, finding.other_head))
    return places


def _place(finding: Finding, layer: int, head: int | None) -> dict[str, str]:
    stack = [
        line(part, MOST_SEGMENT).replace("/", "%2F") for part in dict.fromkeys((finding.tower, finding.kind)) if part
    ]
    parts = [*stack, f"layer.{layer}", *([] if head is None else [f"head.{head}"])]
    return {"name": parts[-1], "fullyQualifiedName": "/".join(parts)}
