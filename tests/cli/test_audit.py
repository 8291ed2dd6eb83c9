"""headprobe audit: a gate for scripts, red or green with a reason."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import headprobe
from headprobe.report import Report
from tests.cli.test_compare import fewer_layers
from tests.conftest import ROOT, SAMPLES, Result, Run

BERT, TUNED, COLLAPSED = (SAMPLES / name for name in ("tiny-bert", "tiny-bert-finetuned", "tiny-bert-collapsed"))
FEW = ("-n", "16")


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("baseline") / "base.json"
    headprobe.scan(BERT, limit=16).save(path)
    return path


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("collapsed") / "model.json"
    headprobe.scan(COLLAPSED, limit=16).save(path)
    return path


def codes(result: Result) -> set[tuple[str, int | None]]:
    return {(f["code"], f["layer"]) for f in json.loads(result.out)["findings"] if f["severity"] == "error"}


def test_a_healthy_child_passes(run: Run) -> None:
    result = run("audit", TUNED, "--baseline", BERT)
    assert result.code == 0
    assert "No finding fails the audit" in result.out


def test_a_collapsed_child_fails_where_it_collapsed(run: Run) -> None:
    result = run("audit", COLLAPSED, "--baseline", BERT, "--format", "json")
    assert result.code == 1
    found = codes(result)
    assert {code[:3] for code, layer in found if layer == 1} == {"HP1", "HP2"}
    assert {code[:3] for code, layer in found if layer == 2} == {"HP1", "HP2"}
    assert not [code for code, layer in found if layer == 0]
    assert len(found) < 14  # a layer whose heads are all alike is one finding a rule, not one a pair


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-llama", "tiny-bart", "tiny-vit"])
def test_a_model_against_itself_has_no_finding(run: Run, name: str) -> None:
    result = run("audit", SAMPLES / name, "--baseline", SAMPLES / name, *FEW, "--format", "json")
    assert result.code == 0
    assert json.loads(result.out)["findings"] == []


def test_also_in_other_batches(run: Run, baseline: Path) -> None:
    result = run("audit", BERT, "--baseline", baseline, *FEW, "--batch-size", "1", "--format", "json")
    assert (result.code, json.loads(result.out)["findings"]) == (0, [])


def test_a_gate_for_scripts(baseline: Path, collapsed: Path) -> None:
    """The documented exit codes, from a shell."""
    script = f'"{sys.executable}" -m headprobe audit "$@" >/dev/null 2>&1; echo $?'
    cases = {
        0: ("--explain", "HP101"),
        1: (collapsed, "--baseline", baseline),
        2: (collapsed, "--fail-on", "sometimes"),
        3: ("./nowhere",),
    }
    for code, arguments in cases.items():
        words = ["bash", "-c", script, "bash", *map(str, arguments)]
        assert subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == str(code)


def test_the_format_never_changes_the_exit_code(run: Run, collapsed: Path) -> None:
    for form in ("table", "json", "markdown", "junit", "sarif", "github"):
        result = run("audit", collapsed, "--format", form)
        assert result.code == 1
        assert "HP102" in result.out
    assert run("audit", collapsed, "--exit-zero").code == 0
    assert run("audit", collapsed, "--ignore", "HP1").code == 0
    assert run("audit", collapsed, "--select", "HP0").code == 0


def test_several_outputs_at_once(run: Run, collapsed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    names = [tmp_path / f"audit{suffix}" for suffix in (".json", ".md", ".xml", ".sarif")]
    result = run("audit", collapsed, "--format", "github", *(word for name in names for word in ("-o", name)))
    assert result.code == 1
    assert result.out.startswith("::error ")
    assert all("HP102" in name.read_text() for name in (*names, summary))


def test_a_baseline_is_made_and_used(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    missing = run("audit", BERT, "--baseline", path, *FEW)
    assert (missing.code, missing.err.count("\n")) == (2, 1)
    assert "--update-baseline" in missing.err
    made = run("audit", BERT, "--baseline", path, "--update-baseline", *FEW)
    assert (made.code, made.err) == (0, f"headprobe: wrote {path}\n")
    assert Report.load(path).provenance.model == str(BERT)
    assert run("audit", BERT, "--baseline", path, *FEW).code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--max-length", "64"), "max"),
        (("--dtype", "float64"), "dtype float32 against float64"),
        (("-n", "8"), "8"),
    ],
)
def test_a_baseline_made_under_other_conditions_is_refused(
    run: Run, baseline: Path, arguments: tuple[str, ...], says: str
) -> None:
    result = run("audit", BERT, "--baseline", baseline, *FEW, *arguments)
    assert result.code in (2, 3)
    assert says in result.err
    assert result.err.count("\n") == 1


def test_a_baseline_that_was_edited_is_refused(run: Run, baseline: Path, tmp_path: Path) -> None:
    document = json.loads(baseline.read_text())
    document["tables"]["heads"]["rcos"][0] = 0.9
    (tmp_path / "edited.json").write_text(json.dumps(document))
    result = run("audit", BERT, "--baseline", tmp_path / "edited.json", *FEW)
    assert (result.code, result.out) == (3, "")
    assert "was changed after it was saved" in result.err
    document["schema_version"] = "9.0"
    (tmp_path / "edited.json").write_text(json.dumps(document))
    assert "schema version 9.0" in run("audit", BERT, "--baseline", tmp_path / "edited.json", *FEW).err


def test_what_the_baseline_has_and_the_model_lacks_fails(run: Run, baseline: Path) -> None:
    result = run("audit", BERT, "--baseline", baseline, *FEW, "--metrics", "entropy,redundancy", "--format", "json")
    assert result.code == 1
    assert ("HP005", None) in codes(result)


def test_another_model_as_baseline(run: Run, baseline: Path) -> None:
    result = run("audit", SAMPLES / "tiny-vit", "--baseline", baseline, *FEW)
    assert result.code in (2, 3)
    assert result.err.count("\n") == 1


def test_a_policy_says_what_it_asks_and_why(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "headprobe.toml").write_text('[audit]\nfail-on = "warning"\n[audit.rules.HP101]\njs = 0.01\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADPROBE_AUDIT_FAIL_ON", "note")
    shown = run("audit", "--show-policy", "--set", "HP101.js=0.02")
    assert shown.code == 0
    lines = {line.split()[0]: line.split() for line in shown.out.splitlines() if line.strip()}
    assert lines["fail-on"][1:] == ["note", "HEADPROBE_AUDIT_FAIL_ON"]
    assert lines["HP101.js"][1:] == ["0.02", "--set"] or lines["HP101.js"][1:] == ["0.02", "--limit"]
    assert lines["HP102.severity"][-1] == "default"


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("[audit]\nfail-onn = 'note'", "fail-on"),
        ("[audit.rules.HP101]\njs = -1", "HP101"),
        ("[audit.rules.HP999]\njs = 1", "HP999"),
        ("[[audit.waivers]]\ncode = 'HP101'\nexpires = 2030-01-01", "reason"),
        ("[audit", "TOML"),
    ],
)
def test_a_wrong_policy_is_refused(run: Run, collapsed: Path, tmp_path: Path, policy: str, says: str) -> None:
    (tmp_path / "policy.toml").write_text(policy)
    result = run("audit", collapsed, "--policy", tmp_path / "policy.toml")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert says in result.err


def test_an_expired_waiver_is_a_finding(run: Run, collapsed: Path, tmp_path: Path) -> None:
    waiver = "[[audit.waivers]]\ncode = 'HP102'\nreason = 'known'\nexpires = {}\n"
    (tmp_path / "policy.toml").write_text(waiver.format("2099-01-01"))
    waived = run("audit", collapsed, "--policy", tmp_path / "policy.toml", "--select", "HP102")
    assert waived.code == 0
    assert "known" in waived.out
    (tmp_path / "policy.toml").write_text(waiver.format("2020-01-01"))
    expired = run("audit", collapsed, "--policy", tmp_path / "policy.toml", "--format", "json")
    assert expired.code == 1
    assert "HP006" in {finding["code"] for finding in json.loads(expired.out)["findings"]}


def test_every_rule_explains_itself(run: Run) -> None:
    from headprobe.audits.rules import RULES

    for code in RULES:
        result = run("audit", "--explain", code)
        assert result.code == 0
        assert code in result.out
    assert run("audit", "--explain", "near-identical").out == run("audit", "--explain", "HP101").out
    unknown = run("audit", "--explain", "HP11")
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "MODEL"),
        ((BERT, "--format", "pdf"), "pdf"),
        ((BERT, "-o", "audit.csv"), "audit.csv"),
        ((BERT, "-o", "folder"), "folder"),
        ((BERT, "--update-baseline"), "--baseline"),
        ((BERT, "--set", "HP101"), "HP101"),
        ((BERT, "--select", "HP9"), "HP9"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[object, ...], says: str) -> None:
    result = run("audit", *arguments)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert says in result.err


@pytest.mark.parametrize("after", [1.5, 4.0])
def test_an_interrupted_audit_leaves_no_file(tmp_path: Path, after: float) -> None:
    """While modules are imported, and while the models run (which takes far longer than that)."""
    (tmp_path / "out").mkdir()
    names = [tmp_path / "out" / name for name in ("audit.sarif", "audit.json")]
    words = ["audit", COLLAPSED, "--baseline", BERT, "-b", "1"]
    command = [sys.executable, "-m", "headprobe", *map(str, words), *(w for n in names for w in ("-o", str(n)))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as running:
        time.sleep(after)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_layer_that_the_model_lacks_is_a_finding_and_no_refusal(run: Run, tmp_path: Path) -> None:
    found = run("audit", fewer_layers(tmp_path), "--baseline", BERT, *FEW, "--format", "json")
    assert found.code == 1
    assert ("HP004", 3) in codes(found)
