"""What continuous integration systems read, and the action's script run with a stand-in for headprobe."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
STUB = """#!/usr/bin/env bash
printf '%s\\0' "$@" > "$ARGUMENTS"
for argument in "$@"; do
  case "$argument" in --output=*) [[ -z "$SILENT" ]] && echo found > "${argument#--output=}" ;; esac
done
exit "$CODE"
"""
EVIL = (
    "$(touch pwned)", "`touch pwned`", "; touch pwned #", "' || touch pwned #", '" && touch pwned #',
    "--policy=/etc/passwd", "a b", "*", "x\ny",
)  # fmt: skip


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def step(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(s for s in load("action.yml")["runs"]["steps"] if s.get("name") == name)
    return found


@pytest.fixture
def audit(tmp_path: Path) -> Any:
    """Run the action's step as the runner does, and return its exit code, headprobe's arguments and its outputs."""
    program = tmp_path / "bin" / "headprobe"
    program.parent.mkdir()
    program.write_text(STUB)
    program.chmod(0o755)
    script = tmp_path / "script.sh"
    script.write_text(step("Audit")["run"])

    def run(code: int, silent: str = "", **inputs: str) -> tuple[int, list[str], dict[str, str]]:
        output = tmp_path / "output"
        output.write_text("")
        environment = {
            "PATH": f"{program.parent}:{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path), "CODE": str(code),
            "GITHUB_OUTPUT": str(output), "ARGUMENTS": str(tmp_path / "arguments"), "SILENT": silent,
        }  # fmt: skip
        given = {name: inputs.get(name, "") for name in step("Audit")["env"]}
        command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]
        done = subprocess.run(command, env={**environment, **given}, cwd=tmp_path, capture_output=True, timeout=60)
        assert not (tmp_path / "pwned").exists(), done.stderr
        words = (tmp_path / "arguments").read_bytes().decode().split("\0")[:-1]
        return done.returncode, words, dict(line.split("=", 1) for line in output.read_text().splitlines())

    return run


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_the_step_ends_with_the_audits_code(audit: Any, code: int) -> None:
    ended, words, outputs = audit(code, MODEL="org/m", BASELINE="org/b", POLICY="p.toml", FAIL_ON="warning")
    assert ended == code
    assert outputs["exit-code"] == str(code)
    assert [Path(outputs[name]).read_text() for name in ("sarif", "junit")] == ["found\n", "found\n"]
    assert words[:3] == ["audit", "--format", "github"]
    assert words[5:] == ["--baseline=org/b", "--policy=p.toml", "--fail-on=warning", "--", "org/m"]


@pytest.mark.parametrize("code", [2, 3])
def test_no_file_is_told_of_where_there_is_none(audit: Any, code: int) -> None:
    ended, words, outputs = audit(code, silent="yes", MODEL="m")
    assert (ended, outputs) == (code, {"exit-code": str(code)})
    assert words[5:] == ["--", "m"]


@pytest.mark.parametrize("text", EVIL)
def test_inputs_are_never_commands(audit: Any, text: str) -> None:
    _, words, outputs = audit(1, MODEL=text, BASELINE=text, POLICY=text, FAIL_ON=text, ARGS=text)
    assert words[5:8] == [f"--baseline={text}", f"--policy={text}", f"--fail-on={text}"]
    assert words[8:] == [*text.split(), "--", text]
    assert set(outputs) == {"exit-code", "sarif", "junit"}


def test_more_options(audit: Any) -> None:
    _, words, _ = audit(0, MODEL="m", ARGS=" --limit 64\n  --select HP1* ")
    assert words[5:] == ["--limit", "64", "--select", "HP1*", "--", "m"]


def test_the_action() -> None:
    action = load("action.yml")
    assert action["runs"]["using"] == "composite"
    assert {"model", "baseline", "policy", "fail-on", "args"} <= set(action["inputs"])
    assert [name for name, about in action["inputs"].items() if about.get("required")] == ["model"]
    assert all(isinstance(about.get("default", ""), str) for about in action["inputs"].values())
    for each in action["runs"]["steps"]:
        assert "${{" not in each.get("run", "")
        assert ("run" in each) == ("shell" in each)
    upload = action["runs"]["steps"][-1]
    assert upload["uses"].startswith("github/codeql-action/upload-sarif@")
    assert "!cancelled()" in upload["if"]


def test_where_downloads_go(tmp_path: Path) -> None:
    def keys(**inputs: str) -> dict[str, str]:
        output = tmp_path / "output"
        output.write_text("")
        environment = {
            "PATH": os.environ["PATH"], "RUNNER_TEMP": str(tmp_path), "GITHUB_OUTPUT": str(output),
            "GITHUB_ENV": str(tmp_path / "env"), **inputs,
        }  # fmt: skip
        command = ["bash", "-e", "-o", "pipefail", "-c", step("Where downloads go")["run"]]
        subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=60)
        return dict(line.split("=", 1) for line in output.read_text().splitlines())

    first, second = keys(MODEL="a,b\nc", BASELINE=""), keys(MODEL="a", BASELINE="b")
    assert first["home"] == f"{tmp_path}/headprobe-hf"
    assert first["models"] != second["models"]
    assert all(len(entry["models"]) == 32 for entry in (first, second))
    assert keys(MODEL="a", BASELINE="b", HF_HOME="/x")["home"] == "/x"
    assert (tmp_path / "env").read_text().splitlines()[-1] == "HF_HOME=/x"


def test_the_hook() -> None:
    (hook,) = load(".pre-commit-hooks.yaml")
    assert hook["id"] == "headprobe-audit"
    assert hook["language"] == "python"
    assert hook["pass_filenames"] is False
    assert hook["entry"] == "headprobe audit"


def test_examples() -> None:
    github, gitlab = load("examples/ci/github.yml"), load("examples/ci/gitlab.yml")
    steps = github["jobs"]["audit"]["steps"]
    given = next(each["with"] for each in steps if "headprobe" in each["uses"])
    assert set(given) <= set(load("action.yml")["inputs"])
    assert gitlab["headprobe"]["artifacts"]["reports"] == {"junit": "headprobe.xml"}
    assert "--output=headprobe.xml" in gitlab["headprobe"]["script"][1]


def test_the_page_about_ci_names_every_input_and_format() -> None:
    page = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
    for name in load("action.yml")["inputs"]:
        assert f"`{name}`" in page
    for name in ("json", "junit", "sarif", "github", "markdown"):
        assert f"| `{name}` |" in page
