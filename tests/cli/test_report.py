"""headprobe report, and pages that other commands write."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headprobe.report import Report
from tests.conftest import Run, edit_json
from tests.view.made import made
from tests.view.parsing import Page
from tests.view.test_page import compared

TEXTS = ("--text", "sample_inputs/texts/short.txt", "-n", "6")
BERT, TUNED = "sample_inputs/tiny-bert", "sample_inputs/tiny-bert-finetuned"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved report."""
    folder = tmp_path_factory.mktemp("saved")
    made(3, 4).save(folder / "report.json")
    return folder


def test_a_saved_report_as_a_page(run: Run, saved: Path, tmp_path: Path) -> None:
    found = run("report", saved / "report.json", "-o", tmp_path / "report.html", "-o", tmp_path / "report.md")
    assert (found.code, found.out) == (0, "")
    assert found.err == "".join(f"headprobe: wrote {tmp_path}/report.{suffix}\n" for suffix in ("html", "md"))
    assert Page((tmp_path / "report.html").read_text(encoding="utf-8")).all("h1")[0].text == "made/model"
    assert "made/model (MadeModel) has 12 attention heads" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["table", "markdown", "html"])
def test_on_standard_output(run: Run, saved: Path, form: str) -> None:
    found = run("report", saved, "--format", form, "--top", "2")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("<!doctype html>" if form == "html" else "made/model" if form == "table" else "## made")
    assert "3 layers" in found.out


def test_the_terminal_and_the_page_say_the_same(run: Run, saved: Path) -> None:
    words = run("report", saved).out
    page = Page(run("report", saved, "-f", "html").out)
    sentences = [each.text for each in page.all("p") if each.path[-2:] == ("div", "div") and each.text.endswith(".")][
        :3
    ]
    cells = [each.text for each in page.all("td") if "tr" in each.path and each.text]
    assert len(sentences) == 3
    assert all(sentence in words for sentence in sentences)
    assert all(cell in words for cell in cells)


def test_scan_compare_and_audit_write_pages(run: Run, tmp_path: Path) -> None:
    scan, compare, audit = (tmp_path / f"{name}.html" for name in ("scan", "compare", "audit"))
    assert run("scan", BERT, *TEXTS, "--examples", "-o", scan, "-o", tmp_path / "base.json").code == 0
    assert run("compare", BERT, TUNED, *TEXTS, "-o", compare, "-o", tmp_path / "changes").code == 0
    judged = run("audit", tmp_path / "base.json", "-o", audit, "-o", tmp_path / "audit.json", "--exit-zero")
    assert judged.code == 0
    titles = [Page(path.read_text(encoding="utf-8")).all("h1")[0].text for path in (scan, compare, audit)]
    assert titles == [BERT, f"{TUNED} against {BERT}", f"Audit of {BERT}"]
    whole = run("report", tmp_path / "base.json", tmp_path / "changes", tmp_path / "audit.json", "-f", "html")
    assert [each.text for each in Page(whole.out).all("h1")] == titles
    assert run("report", tmp_path / "base.json", "-f", "html").out == scan.read_text(encoding="utf-8")
    assert run("report", tmp_path / "audit.json", "-f", "html").out == audit.read_text(encoding="utf-8")


def test_markdown_of_a_scan(run: Run, tmp_path: Path) -> None:
    found = run("scan", BERT, *TEXTS, "-o", tmp_path / "scan.md", "-q")
    assert found.code == 0
    assert "## What to do" not in found.out
    assert "| layer | head |" in (tmp_path / "scan.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere.json",), 3, "error[E-REPORT]: no report at nowhere.json."),
        (("sample_inputs",), 3, "error[E-REPORT]: no report.json and no comparison.json in sample_inputs."),
        (("sample_inputs/tiny-bert/config.json",), 3, "error[E-REPORT]: sample_inputs/tiny-bert/config.json is no"),
        (("README.md",), 3, "error[E-REPORT]: README.md is no JSON."),
        (("REPORT", "-o", "x.pdf"), 2, 'error[E-FORMAT]: -o x.pdf: unknown format ".pdf".'),
        (("REPORT", "-o", "page"), 2, "error[E-FORMAT]: -o page: a page is one file. Give it .html or .md."),
        (("REPORT", "-o", "-"), 2, 'error[E-OUTPUT]: -o "-" is no path. For standard output there is --format mark'),
        (("REPORT", "-f", "json"), 2, 'error[E-FORMAT]: --format "json" is not known.'),
        (("REPORT", "--sort", "rcoss"), 2, 'error[E-SORT]: no column "rcoss" to sort by. Did you mean rcos'),
        (("REPORT", "-o", "no/such/folder.html"), 4, "error[E-OUTPUT]: -o no/such/folder.html can't be written"),
        ((), 2, "error[E-USAGE]"),
    ],
)
def test_what_can_go_wrong_is_one_line(
    run: Run, saved: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:  # fmt: skip
    found = run("report", *(str(saved / "report.json") if word == "REPORT" else word for word in arguments))
    assert (found.code, found.out) == (code, "")
    assert len(found.err.splitlines()) == 1
    assert said in found.err


def test_a_comparison_has_nothing_to_sort(run: Run, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "changes.json"
    compared().save(path)
    found = run("report", path, "--sort", "rcos")
    assert (found.code, found.out) == (2, "")
    assert "error[E-SORT]: nothing here has a table to sort." in found.err
    assert run("report", path, saved / "report.json", "--sort", "rcos").code == 0


@pytest.mark.parametrize(
    "change",
    [
        {"model": 3},
        {"commit": ["a"]},
        {"files": {"a": 1}},
        {"files": None},
        {"versions": "1"},
        {"corpus": []},
        {"corpus": {"sequences": "four"}},
        {"corpus": {"sequences": 4, "source": 3}},
        {"options": None},
    ],
)
def test_a_damaged_provenance(run: Run, tmp_path: Path, change: dict[str, object]) -> None:
    path = _saved(tmp_path)
    edit_json(path, provenance=json.loads(path.read_text(encoding="utf-8"))["provenance"] | change)
    found = run("report", path, "-o", tmp_path / "page.html")
    assert found.code == 3
    assert len(found.err.splitlines()) == 1
    assert f"error[E-REPORT]: {path} is damaged" in found.err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("change", [{"findings": [{}]}, {"fail_on": "never"}, {"rules": 3}, {"provenance": None}])
def test_a_damaged_audit(run: Run, tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "audit.json"
    assert run("audit", _saved(tmp_path), "-o", path, "--exit-zero", "-q").code == 0
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    found = run("report", path)
    assert found.code == 3
    assert f"error[E-AUDIT]: {path} is damaged" in found.err


def test_an_audit_of_another_version(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    assert run("audit", _saved(tmp_path), "-o", path, "--exit-zero", "-q").code == 0
    edit_json(path, schema_version="9.0")
    assert "has schema version 9.0" in run("report", path).err


def _saved(folder: Path) -> Path:
    made(2, 4).save(folder / "made.json")
    return folder / "made.json"


def test_a_report_is_shown_without_torch(saved: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from headprobe.cli.handler import run;"
        f"code = run(['report', {str(saved)!r}, '-o', {str(tmp_path / 'page.html')!r}]);"
        "sys.exit(code or int('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
    assert Report.load(saved).provenance.model == "made/model"
