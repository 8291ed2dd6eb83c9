"""Every format of an audit, read by a reader that is not ours."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from xmlschema import XMLSchema

from headprobe.audits.finding import Audit, Finding
from headprobe.audits.formats import FORMATS, SUFFIXES, render
from headprobe.audits.formats.sarif import artifact
from headprobe.errors import UsageError
from tests.audits.samples import ASKED, HOSTILE, RULES, audit, finding, many

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).parent / "schemas"
ANNOTATION = re.compile(r"::(error|warning|notice) title=([^:,\r\n]*)::([^\r\n]*)")


def validator(path: Path) -> Draft202012Validator:
    schema = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


OURS = validator(ROOT / "docs/schemas/audit.schema.json")
SARIF = validator(SCHEMAS / "sarif-2.1.0.json")
JUNIT = XMLSchema(str(SCHEMAS / "junit-10.xsd"))


def as_json(which: Audit) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(render(which, "json", RULES), parse_constant=lambda name: pytest.fail(name))
    OURS.validate(document)
    return document


def as_sarif(which: Audit) -> dict[str, Any]:
    document = json.loads(render(which, "sarif", RULES), parse_constant=lambda name: pytest.fail(name))
    SARIF.validate(document)
    run: dict[str, Any] = document["runs"][0]
    return run


def as_junit(which: Audit) -> ElementTree.Element:
    text = render(which, "junit", RULES)
    JUNIT.validate(text)
    suite = ElementTree.fromstring(text.encode()).find("testsuite")
    assert suite is not None
    return suite


def as_annotations(which: Audit) -> list[tuple[str, str, str]]:
    lines = render(which, "github", RULES).split("\n")
    assert lines.pop() == ""
    found = [ANNOTATION.fullmatch(line) for line in lines]
    assert all(found), lines
    texts = [match.groups() for match in found if match]
    plain = [tuple(re.sub("%(3A|2C|0D|0A|25)", lambda m: chr(int(m[1], 16)), t) for t in text) for text in texts]
    return [(kind, title, message) for kind, title, message in plain]


def read_all(which: Audit) -> None:
    as_json(which), as_sarif(which), as_junit(which), as_annotations(which)


# --- what each of them says ---


def test_json_has_every_number() -> None:
    document = as_json(audit())
    assert document["failed"] is True
    assert [rule["status"] for rule in document["rules"]] == ["passed", "failed", "failed", "skipped"]
    copy, other, waived = document["findings"]
    assert (copy["code"], copy["layer"], copy["head"], copy["value"], copy["limit"]) == ("HP102", 3, 5, 0.0012, 0.02)
    assert (other["heads"], other["baseline"], other["waived"]) == ([1, 2], 7.25, None)
    assert (waived["other_layer"], waived["other_head"], waived["waived"]) == (4, 11, "known; until 2027-01-01")
    assert document["provenance"]["model"] == document["model"] == "org/tuned"


def test_the_schema_of_json_knows_every_key() -> None:
    document = as_json(audit())
    schema = json.loads((ROOT / "docs/schemas/audit.schema.json").read_text())
    for part, values in (
        (schema, document),
        (schema["$defs"]["finding"], document["findings"][0]),
        (schema["$defs"]["rule"], document["rules"][0]),
        (schema["$defs"]["provenance"], document["provenance"]),
    ):
        assert set(part["properties"]) == set(part["required"]) == set(values)
    with pytest.raises(AssertionError):
        assert OURS.is_valid({**document, "failed": "yes"})


def test_junit_fails_exactly_what_fails_the_audit() -> None:
    suite = as_junit(audit())
    assert suite.attrib | {"name": "org/tuned", "tests": "4", "failures": "1", "skipped": "1"} == suite.attrib
    passed, failed, slight, skipped = suite.findall("testcase")
    assert passed.get("name") == "HP101 dead-head"
    assert list(passed) == []
    failure = failed.find("failure")
    assert failure is not None
    assert failure.get("message") == "encoder layer 3 head 5: JS 0.0012 nats, limit 0.02"
    assert "waived: known; until 2027-01-01" in (failed.findtext("system-out") or "")
    assert [child.tag for child in slight] == ["system-out"]
    assert [(child.tag, child.get("message")) for child in skipped] == [("skipped", "there is no baseline")]
    stricter = as_junit(replace(audit(), fail_on="warning"))
    assert stricter.get("failures") == "2"


def test_sarif_places_and_numbers() -> None:
    run = as_sarif(audit())
    driver = run["tool"]["driver"]
    assert [rule["id"] for rule in driver["rules"]] == ["HP101", "HP102", "HP201", "HP202"]
    rule = driver["rules"][1]
    assert rule["help"]["text"].startswith("Two heads do the same.\n\n")
    assert rule["defaultConfiguration"] == {"level": "error"}
    assert (rule["name"], rule["shortDescription"]["text"]) == ("twin-heads", "Two heads do the same.")
    copy, layer, waived = run["results"]
    assert (copy["level"], copy["ruleId"], copy["ruleIndex"]) == ("error", "HP102", 1)
    assert copy["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "org/tuned/config.json"}
    names = [[p["fullyQualifiedName"] for p in r["locations"][0]["logicalLocations"]] for r in run["results"]]
    assert names[0] == ["encoder/layer.3/head.5"]
    assert names[1] == ["text/decoder/layer.2"]
    assert names[2] == ["encoder/layer.3/head.1", "encoder/layer.4/head.11"]
    assert (copy["suppressions"], waived["suppressions"][0]["justification"]) == ([], "known; until 2027-01-01")
    expected = {"metric": "effective_heads", "value": 3.5, "limit": 4.0, "baseline": 7.25}
    assert {name: layer["properties"][name] for name in expected} == expected
    assert "HP202" in run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]


def test_sarif_fingerprints_outlast_the_numbers() -> None:
    one, other = (as_sarif(audit((finding(value=value),))) for value in (0.001, 0.002))
    assert one["results"][0]["partialFingerprints"] == other["results"][0]["partialFingerprints"]
    prints = {r["partialFingerprints"]["headprobe/v1"] for r in as_sarif(audit())["results"]}
    assert len(prints) == 3


def test_code_scanning_keeps_findings_apart() -> None:
    groups = (finding(head=None, heads=(0, 1)), finding(head=None, heads=(4, 5)))
    results = as_sarif(audit(groups))["results"]
    assert len({result["partialFingerprints"]["primaryLocationLineHash"] for result in results}) == 2


@pytest.mark.parametrize(
    ("model", "uri"),
    [
        ("org/model", "org/model/config.json"),
        ("./models/a b", "models/a%20b/config.json"),
        ("/data/../m", "data/m/config.json"),
        ("C:\\models\\x", "C%3A/models/x/config.json"),
        ("https://a/b?c#d", "https%3A/a/b%3Fc%23d/config.json"),
        (".", "config.json"),
        ("mödel%2F", "m%C3%B6del%252F/config.json"),
    ],
)
def test_the_artifact_is_a_relative_uri(model: str, uri: str) -> None:
    assert artifact(model) == uri
    assert not urlsplit(uri).scheme
    assert ".." not in unquote(uri).split("/")


def test_annotations() -> None:
    assert as_annotations(audit()) == [
        ("error", "HP102 twin-heads: encoder layer 3 head 5", "org/tuned: JS 0.0012 nats, limit 0.02"),
        ("warning", "HP201 lost-diversity: text decoder layer 2", "org/tuned: 3.5 effective heads, limit 4"),
        ("notice", "headprobe audit", "1 of 4 rules could not be asked: HP202"),
    ]
    assert "title=HP102 twin-heads%3A encoder layer 3 head 5::" in render(audit(), "github", RULES)


def test_formats_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="Did you mean sarif"):
        render(audit(), "sariff", RULES)
    assert set(SUFFIXES.values()) | {"github"} == {*FORMATS, "markdown"}


# --- accidents ---


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text(text: str) -> None:
    bad = finding(message=text, path=text, tower=text, kind=text, metric=text, waived=None)
    asked = [replace(rule, name=text, reason=text) for rule in ASKED]
    which = audit((bad, replace(bad, head=6, waived=text)), asked, model=text, baseline=text, notes=(text,))
    read_all(which)
    for name in FORMATS:
        written = render(which, name, RULES)
        written.encode()
        rows = written.split("\n")
        assert not any(row.startswith(("::set-output", "::stop", "##[")) for row in rows)
        assert not set(written) & set("\x1b\x00\u202e\u2028\x85")
    longest = max(len(message) for _, _, message in as_annotations(which))
    assert longest <= 1_000
    assert len(as_sarif(which)["results"][0]["message"]["text"]) <= 2_010


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80), value=st.one_of(st.none(), st.floats()))
def test_any_text_and_number(text: str, value: float | None) -> None:
    bad = finding(message=text, path=text, tower=text, kind=text, value=value, limit=value, baseline=value, waived=text)
    read_all(audit((bad, replace(bad, waived=None)), model=text, notes=(text,)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_has_no_word_for(value: float) -> None:
    which = audit((finding(value=value, limit=value, baseline=value),))
    which.provenance.options["x"] = [value, {"y": value}]
    document = as_json(which)
    assert document["findings"][0]["value"] is None
    assert document["provenance"]["options"] == {"x": [None, {"y": None}]}
    assert "value" not in as_sarif(which)["results"][0]["properties"]


def test_no_findings() -> None:
    which = audit((), [rule for rule in ASKED if rule.status == "passed"])
    assert as_json(which)["failed"] is False
    assert as_sarif(which)["results"] == []
    assert as_junit(which).get("failures") == "0"
    assert render(which, "github", RULES) == ""


def test_a_code_that_is_no_rule_of_the_policy() -> None:
    which = audit((finding(code="HP999"),), [])
    read_all(which)
    assert as_junit(which).get("failures") == "1"
    assert as_sarif(which)["tool"]["driver"]["rules"][0]["id"] == "HP999"


def test_many_findings() -> None:
    which = audit(many(30_000))
    assert len(as_json(which)["findings"]) == 30_000
    run = json.loads(render(which, "sarif", RULES))["runs"][0]
    assert len(run["results"]) == 25_000
    assert run["results"][0]["locations"][0]["logicalLocations"][0]["name"] == "head.0"
    said = [n["message"]["text"] for n in run["invocations"][0]["toolExecutionNotifications"]]
    assert said[-1] == "5,000 of 30,000 findings are left out: code scanning takes 25,000."
    suite = as_junit(which)
    assert (suite.findtext("testcase/failure") or "").endswith("and 29,000 more")
    errors = [message for kind, _, message in as_annotations(which) if kind == "error"]
    assert len(errors) == 10
    assert errors[-1] == "29,991 more of org/tuned"


@pytest.mark.parametrize("severity", ["note", "warning", "error"])
@pytest.mark.parametrize("count", [9, 10, 11])
def test_never_more_annotations_than_are_shown(severity: Any, count: int) -> None:
    found = as_annotations(audit(tuple(replace(f, severity=severity) for f in many(count))))
    kind = {"note": "notice"}.get(severity, severity)
    assert sum(entry[0] == kind for entry in found) <= 10
    assert any("more of" in entry[2] for entry in found) == (count > (9 if severity == "note" else 10))


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_audit_gives_the_same_bytes(name: str) -> None:
    first, second = render(audit(), name, RULES), render(audit(), name, dict(reversed(RULES.items())))
    assert first == second
    assert first.endswith("\n")


def test_waived_findings_never_fail() -> None:
    found: tuple[Finding, ...] = tuple(replace(f, waived="known") for f in many(3))
    which = audit(found)
    assert as_json(which)["failed"] is False
    assert as_junit(which).get("failures") == "0"
    assert [entry[0] for entry in as_annotations(which)] == ["notice"]
    assert all(result["suppressions"] for result in as_sarif(which)["results"])
