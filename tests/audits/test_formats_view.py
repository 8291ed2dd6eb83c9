"""Audits as people see them, and the summary of a step."""

import io
from dataclasses import replace
from pathlib import Path

import pytest

from headprobe.audits.finding import Asked, Audit
from headprobe.audits.formats import render
from headprobe.audits.formats.summary import NOTE, append_summary, capped
from headprobe.errors import EnvironmentFailure
from headprobe.view.audit import audit_document, audit_text, policy_document
from headprobe.view.document import Document, Paragraph, Table
from headprobe.view.terminal import console, show
from tests.audits.samples import ASKED, HOSTILE, RULES, audit, finding, many


def shown(document: Document, width: int = 80) -> str:
    stream = io.StringIO()
    show(document, console(stream, width=width))
    return stream.getvalue()


def verdict(which: Audit) -> str:
    block = audit_document(which, RULES)[1]
    assert isinstance(block, Paragraph)
    return block.text


def test_the_verdict_is_in_words() -> None:
    assert verdict(audit()) == (
        "1 finding fails the audit: 1 of HP102 (twin-heads). 1 warning does not fail it, which takes errors."
        " 1 finding is waived. Of 4 rules, 2 failed, 1 passed and 1 could not be asked."
    )
    assert verdict(replace(audit(), fail_on="warning")).startswith(
        "2 findings fail the audit: 1 of HP102 (twin-heads), 1 of HP201 (lost-diversity). 1 finding is waived."
    )
    assert verdict(audit((), ASKED[:1])).startswith("No finding fails the audit. Of 1 rule, 0 failed, 1 passed")


def test_a_rule_may_pass_with_findings() -> None:
    which = audit((finding(severity="warning"),), [replace(ASKED[1], status="passed")])
    assert verdict(which).endswith("0 failed, 1 passed (1 of them with findings) and 0 could not be asked.")
    assert "Passed" not in shown(audit_document(which, RULES))


@pytest.mark.parametrize("asked", [ASKED[3:], ()])
def test_what_could_not_be_asked_has_not_passed(asked: tuple[Asked, ...]) -> None:
    assert verdict(audit((), asked)).startswith("Nothing was audited: no rule could be asked.")


def test_a_page_has_everything() -> None:
    page = " ".join(shown(audit_document(audit(notes=("one layer is masked",)), RULES)).split())
    for text in (
        "Audit of org/tuned against org/base",
        "HP102 error encoder layer 3 head 5 0.0012 0.02",
        "HP201 text decoder layer 2: 3.5 effective heads, limit 4",
        "Waived: HP102 encoder layer 3 head 1 and layer 4 head 11: known; until 2027-01-01",
        "Could not be asked: HP202 (drift): there is no baseline",
        "Passed without findings: HP101 (dead-head).",
        "Note: one layer is masked.",
        "headprobe audit --explain HP102",
    ):
        assert text in page


def test_a_page_of_80_columns() -> None:
    page = shown(audit_document(audit(many(200)), RULES))
    assert max(map(len, page.splitlines())) <= 80
    assert "Findings, the worst first, 20 of 200" in page
    pair = finding(layer=11, head=11, other_layer=10, other_head=11, baseline=1.25)
    table = next(block for block in audit_document(audit((pair,)), RULES) if isinstance(block, Table))
    assert max(map(len, shown((table,)).splitlines())) <= 80


def test_every_finding_where_all_are_wanted() -> None:
    table = next(b for b in audit_document(audit(many(200)), RULES, top=None) if isinstance(b, Table))
    assert (len(table.rows), table.title) == (200, "Findings, the worst first")


@pytest.mark.parametrize(("value", "cell"), [(float("nan"), ""), (float("inf"), "∞"), (float("-inf"), "-∞")])
def test_numbers_without_a_value(value: float, cell: str) -> None:
    table = next(b for b in audit_document(audit((finding(value=value),)), RULES) if isinstance(b, Table))
    assert table.rows[0][5] == cell


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_draws_nothing(text: str) -> None:
    bad = finding(message=text, path=text, tower=text, kind=text, metric=text)
    asked = [replace(rule, name=text, reason=text) for rule in ASKED]
    which = audit((bad, replace(bad, waived=text)), asked, model=text, baseline=text, notes=(text,))
    document = audit_document(which, {})
    page = shown(document)
    page.encode()
    assert not set(page) & set("\x1b\x00\r\x85\u202e\u2028\u200b\u2066")
    assert not any(line.startswith("::") for line in page.splitlines())
    assert len(page) < 10_000
    assert sum(block.text.count("\n") for block in document if isinstance(block, Paragraph)) == 2


def test_a_policy() -> None:
    page = shown(policy_document([("HP101.js", "0.02", "default"), ("fail-on", "a\nb", "x\x1b.toml")]))
    assert [row.split() for row in page.splitlines()[-2:]] == [
        ["HP101.js", "0.02", "default"],
        ["fail-on", "a\\nb", "x\\x1b.toml"],
    ]


def test_markdown() -> None:
    page = audit_text(audit(many(30)), "markdown", RULES)
    assert page.count("HP102") >= 60
    assert "worst first, 200 of 30,000" in audit_text(audit(many(30_000)), "markdown", RULES)
    assert audit_text(audit(), "json", RULES) == render(audit(), "json", RULES)
    for text in HOSTILE:
        bad = finding(message=text, path=text, tower=text, kind=text, metric=text)
        page = audit_text(audit((bad, replace(bad, waived=text)), model=text, notes=(text,)), "markdown", {})
        page.encode()
        assert "<script" not in page
        assert "<img" not in page


# --- the summary of a step ---


def test_no_summary_without_the_variable(tmp_path: Path) -> None:
    assert append_summary("# x", {}) is None
    assert append_summary("# x", {"GITHUB_STEP_SUMMARY": ""}) is None
    assert list(tmp_path.iterdir()) == []


def test_a_summary_is_added(tmp_path: Path) -> None:
    file = tmp_path / "summary.md"
    environment = {"GITHUB_STEP_SUMMARY": str(file)}
    file.write_text("before")
    assert append_summary("# one\n", environment) == file
    append_summary("two \ud800", environment)
    assert file.read_text() == "before\n# one\ntwo \\ud800\n"


@pytest.mark.parametrize("before", [0, 500_000, 999_999, 1_000_000])
def test_a_summary_has_a_limit(tmp_path: Path, before: int) -> None:
    file = tmp_path / "summary.md"
    file.write_bytes(b"b" * before)
    text = "".join(f"| row ä {i} |\n" for i in range(100_000))
    append_summary(text, {"GITHUB_STEP_SUMMARY": str(file)})
    content = file.read_bytes()
    assert len(content) <= 1_000_001
    assert content.startswith(b"b" * before)
    added = content[before:].removeprefix(b"\n").removesuffix(NOTE)
    assert text.encode().startswith(added)
    assert all(line.endswith("|") for line in added.decode().splitlines())
    assert len(content) > 999_900


def test_cutting() -> None:
    assert capped(b"a\n" * 100, 200) == b"a\n" * 100
    assert capped(b"a\n" * 100, 199) == b"a\n" * ((199 - len(NOTE)) // 2 - 1) + b"a" + NOTE
    assert capped(b"x" * 500, 400) == NOTE
    assert capped(b"x\n" * 500, 10) == b""


def test_a_summary_that_can_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailure):
        append_summary("# x", {"GITHUB_STEP_SUMMARY": str(tmp_path)})
    with pytest.raises(EnvironmentFailure):
        append_summary("# x", {"GITHUB_STEP_SUMMARY": str(tmp_path / "none" / "x.md")})
