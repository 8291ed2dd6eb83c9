"""An audit that was saved as JSON, read back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headprobe.audits.finding import SEVERITIES, Asked, Audit, Finding
from headprobe.audits.formats.json import SCHEMA, SCHEMA_VERSION
from headprobe.errors import InputError
from headprobe.report import Provenance
from headprobe.write import read_document

STATUSES = ("passed", "failed", "skipped")


def load_audit(path: str | Path) -> Audit:
    """The audit in a `.json` file; raises `InputError` if there is none."""
    document = read_document(Path(path))
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise InputError("E-AUDIT", f"{path} is no headprobe audit")
    version = str(document.get("schema_version"))
    if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        raise InputError("E-AUDIT", f"{path} has schema version {version}, this is {SCHEMA_VERSION}")
    try:
        baseline = document["baseline_provenance"]
        return Audit(
            provenance=Provenance.of(document["provenance"]),
            baseline=None if baseline is None else Provenance.of(baseline),
            findings=tuple(_finding(each) for each in document["findings"]),
            rules=tuple(_rule(each) for each in document["rules"]),
            fail_on=_among(document["fail_on"], SEVERITIES),
            notes=tuple(str(note) for note in document["notes"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as fault:
        raise InputError("E-AUDIT", f"{path} is damaged: {fault!r}") from fault


def _finding(values: Mapping[str, Any]) -> Finding:
    known = {name: values[name] for name in Finding.__dataclass_fields__}
    for name in ("value", "limit", "baseline"):
        known[name] = None if known[name] is None else float(known[name])
    for name in ("code", "message", "path", "tower", "kind", "metric"):
        known[name] = str(known[name])
    return Finding(**{**known, "severity": _among(known["severity"], SEVERITIES), "heads": tuple(known["heads"])})


def _rule(values: Mapping[str, Any]) -> Asked:
    known = {name: str(values[name]) for name in Asked.__dataclass_fields__}
    return Asked(
        code=known["code"],
        name=known["name"],
        reason=known["reason"],
        severity=_among(known["severity"], SEVERITIES),
        status=_among(known["status"], STATUSES),
    )


def _among(word: Any, valid: tuple[Any, ...]) -> Any:
    if word not in valid:
        raise ValueError(f"{word!r} is none of {', '.join(valid)}")
    return word
