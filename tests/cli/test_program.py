"""The program as a whole: what it imports, its options and where they come from, its outputs, signals and bugs."""

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer.main

import headprobe
import headprobe.pipeline
from headprobe.cli.app import app
from headprobe.cli.options import OPTIONS, OUTPUT, OUTPUT_DEFAULTS
from headprobe.report import TABLES
from headprobe.settings import ScanOptions
from tests.cli.test_bad_input import BERT, assert_told, contents, process, the_line
from tests.conftest import Run

HEAVY = ("torch", "transformers", "pandas", "scipy", "numpy")
COMMANDS = ("scan", "compare", "audit", "report", "matrix", "plot", "inspect", "metrics", "bench")
PROGRAM = (sys.executable, "-m", "headprobe")
QUICK = ("--limit", 2, "--metrics", "rcos,js")


# --- start ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        ([], 0),
        (["scan", "--help"], 0),
        (["metrics"], 0),
        (["metrics", "rcos"], 0),
        (["scan", "--nope"], 2),
        (["nope"], 2),
    ],
)
def test_what_needs_no_model_imports_nothing_heavy(arguments: list[str], code: int) -> None:
    script = (
        "import sys; from headprobe.cli.handler import run; code = run(sys.argv[1:]);"
        f"print(code, [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == f"{code} []"


def test_the_module_runs_as_a_program() -> None:
    result = process("--version")
    assert (result.code, result.out, result.err) == (0, f"headprobe {headprobe.__version__}\n", "")


def test_without_arguments_there_is_help(run: Run) -> None:
    result = run()
    assert (result.code, result.err) == (0, "")
    assert all(command in result.out for command in COMMANDS)


# --- options ----------------------------------------------------------------------------------------------------


def test_the_commands_are_the_ones_documented() -> None:
    assert set(_commands()) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command: str) -> None:
    assert [parameter.name for parameter in _commands()[command].params if not getattr(parameter, "help", "")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_option_and_an_example(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = run(command, "--help").out
    names = [name for parameter in _commands()[command].params for name in parameter.opts if name.startswith("--")]
    assert [name for name in names if name not in shown] == []
    assert f"headprobe {command}" in shown.split("Examples:")[1]


def test_the_command_line_has_the_options_of_the_library() -> None:
    assert set(OPTIONS) == {field.name for field in fields(ScanOptions)}
    assert set(OUTPUT) == set(OUTPUT_DEFAULTS)
    assert {parameter.name for parameter in _commands()["scan"].params} == {"model", *OPTIONS, *OUTPUT}


def test_option_names_may_have_underscores(run: Run) -> None:
    dashes = run("scan", BERT, *QUICK, "--batch-size", 1, "--max-length", 16, "--format", "csv")
    assert run("scan", BERT, *QUICK, "--batch_size", 1, "--max_length", 16, "--format", "csv") == dashes
    assert dashes.code == 0


def test_options_come_from_file_environment_and_command_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headprobe.toml").write_text(
        'limit = 1\nmax-length = 16\nmetrics = ["rcos"]\nformat = "json"\nquiet = true'
    )
    from_file = json.loads(run("scan", BERT).out)
    assert from_file["tables"]["inputs"]["length"] == [16]
    assert from_file["provenance"]["options"]["metrics"] == ["rcos"]
    monkeypatch.setenv("HEADPROBE_SCAN_LIMIT", "2")
    assert json.loads(run("scan", BERT).out)["tables"]["inputs"]["length"] == [16, 16]
    assert json.loads(run("scan", BERT, "--limit", 3).out)["tables"]["inputs"]["length"] == [16, 16, 16]


def test_a_list_in_a_file_may_be_one_word(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "headprobe.toml").write_text('limit = 1\nmetrics = "rcos"')
    result = run("scan", BERT, "--format", "json")
    assert (result.code, json.loads(result.out or "{}")["provenance"]["options"]["metrics"]) == (0, ["rcos"])


def test_the_nearest_file_of_a_repository_is_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "headprobe.toml").write_text("limit = 0")
    repository = tmp_path / "repository"
    (repository / ".git").mkdir(parents=True)
    (repository / "below").mkdir()
    monkeypatch.chdir(repository / "below")
    assert run("scan", BERT, *QUICK).code == 0
    (repository / "pyproject.toml").write_text("[tool.headprobe]\nsort = 'nope'")
    assert_told(run("scan", BERT, *QUICK), 2, "E-SORT", '"nope"')


# --- outputs ----------------------------------------------------------------------------------------------------


def test_outputs_hold_the_report(run: Run, tmp_path: Path) -> None:
    names = ("out.json", "out.csv", "out.parquet", "folder")
    result = run(
        "scan", BERT, "--limit", 2, "--format", "json", *(word for name in names for word in ("-o", tmp_path / name))
    )
    assert result.code == 0
    assert (tmp_path / "out.json").read_text() == (tmp_path / "folder" / "report.json").read_text() == result.out
    report = headprobe.Report.load(tmp_path / "out.json")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out.csv"), report.heads, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), report.heads)
    for name in TABLES:
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "folder" / f"{name}.parquet"), getattr(report, name))
        assert pd.read_csv(tmp_path / "folder" / f"{name}.csv").shape == getattr(report, name).shape
    assert len(contents(tmp_path / "folder")) == 2 * len(TABLES) + 1
    assert all(line.startswith("headprobe: wrote ") for line in result.err.splitlines())
    assert all(str(tmp_path / name) in result.err for name in names)


def test_a_saved_report_reads_back_as_it_was(tmp_path: Path) -> None:
    report = headprobe.scan(BERT, limit=2, pairs="model")
    report.save(tmp_path / "report.json")
    loaded = headprobe.Report.load(tmp_path / "report.json")
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(loaded, name), getattr(report, name), check_exact=True)
    assert (loaded.provenance, loaded.notes) == (report.provenance, report.notes)
    assert loaded.results_sha256 == report.results_sha256


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_results_go_to_standard_output_and_messages_elsewhere(form: str, run: Run, tmp_path: Path) -> None:
    result = run("scan", BERT, *QUICK, "--format", form, "-o", tmp_path / "out.csv")
    assert result.err == f"headprobe: wrote {tmp_path / 'out.csv'}\n"
    assert run("scan", BERT, *QUICK, "--format", form, "-o", tmp_path / "out.csv", "--quiet").err == ""
    assert "wrote" not in result.out


@pytest.mark.parametrize("output", ["out.json", "out.csv", "out.parquet"])
def test_a_full_disk_leaves_the_old_file(
    output: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / output).write_text("what was there before")
    before = contents(tmp_path)
    monkeypatch.setattr(os, "fsync", _full_disk)
    assert_told(run("scan", BERT, *QUICK, "-o", tmp_path / output), 4, "E-DISK", "No space left on device")
    assert contents(tmp_path) == before


def test_a_disk_that_fills_up_leaves_whole_files(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("scan", BERT, *QUICK, "-o", tmp_path)
    old = contents(tmp_path)
    run("scan", BERT, *QUICK, "--max-length", 16, "-o", tmp_path / "other")
    new = {path.replace("/other", ""): content for path, content in contents(tmp_path / "other").items()}
    calls = []

    def fill_up(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 3:
            _full_disk(descriptor)

    monkeypatch.setattr(os, "fsync", fill_up)
    assert_told(run("scan", BERT, *QUICK, "--max-length", 16, "-o", tmp_path), 4, "E-DISK", "No space left on device")
    for path in (tmp_path / "other").iterdir():
        path.unlink()
    (tmp_path / "other").rmdir()
    left = contents(tmp_path)
    assert left.keys() == old.keys()
    assert all(content in (old[path], new[path]) for path, content in left.items())
    assert left[str(tmp_path / "report.json")] == old[str(tmp_path / "report.json")]


# --- pipes and signals ------------------------------------------------------------------------------------------


def test_a_reader_that_has_enough_ends_the_program() -> None:
    """The document is larger than a pipe, so that it can't be written once `head` has left."""
    scan = shlex.join([*PROGRAM, "scan", str(BERT), "--pairs", "model", "--limit", "2", "--format", "json"])
    command = ["bash", "-c", f"set -o pipefail; {scan} | head -c 1"]
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=buffered)
    assert (done.returncode, done.stdout, done.stderr) == (141, "{", "")


@pytest.mark.parametrize("arguments", [["metrics"], ["--help"], ["--version"]])
def test_a_reader_that_is_gone_ends_the_program(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, *arguments], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("arguments", [["metrics"], ["--help"], ["--version"]])
def test_a_full_disk_below_standard_output_is_told(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
    assert done.stderr.startswith("headprobe: error[E-IO]: ")
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_scan_quietly(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """Once the pipe has taken more than it can hold, the scan has loaded the model and reads its texts."""
    with subprocess.Popen(
        [*PROGRAM, "scan", str(BERT), "--text", "-", "-o", str(tmp_path / "out.json")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as scan:  # fmt: skip
        assert scan.stdin is not None
        scan.stdin.write("a good film\n" * 100_000)
        scan.stdin.flush()
        scan.send_signal(number)
        out, err = scan.communicate(timeout=60)
    assert (scan.returncode, out, err.strip()) == (code, "", "")
    assert contents(tmp_path) == {}


# --- errors and bugs --------------------------------------------------------------------------------------------


def test_debug_shows_the_traceback_and_keeps_the_code(run: Run) -> None:
    result = run("--debug", "scan", "./nope")
    assert (result.code, result.out) == (3, "")
    assert result.err.startswith("Traceback (most recent call last):")
    assert result.err.splitlines()[-1] == the_line(run("scan", "./nope"))


def test_a_bug_is_one_line_and_a_log(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headprobe.pipeline, "scan", _bug)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = run("scan", BERT)
    assert_told(result, 70, "E-BUG", "KeyError: 'a key\\x1b", "This is a bug in headprobe")
    log = re.search(r"the log (\S+\.log)", result.err)
    assert log is not None
    written = Path(log[1]).read_text()
    assert "Traceback (most recent call last):" in written
    assert "KeyError" in written
    assert f"Python {sys.version_info.major}.{sys.version_info.minor}" in written


def test_debug_shows_the_traceback_of_a_bug(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(headprobe.pipeline, "scan", _bug)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = run("--debug", "scan", BERT)
    assert (result.code, "Traceback (most recent call last):" in result.err) == (70, True)


# --- helpers ----------------------------------------------------------------------------------------------------


def _commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


def _full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _bug(*arguments: object, **options: object) -> None:
    raise KeyError("a key\x1b[31m")
