"""headprobe bench."""

import json
from pathlib import Path

import pytest

from tests.conftest import Run

SMALL = ("--shape", "4x3x5", "--shape", "2x2x3", "--repetitions", 2, "--steps", 60, "--seeds", 2, "--threads", 1)


def test_it_shows_both_claims(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found = run("bench", "penalty-vs-kl", *SMALL)
    assert (found.code, found.err) == (0, "")
    for words in ("float32, 1 thread", "4 × 3 × 5", "2 × 2 × 3", "both loops over pairs", "forward and backward",
                  "KL / penalty", "maximise KL, log_softmax", "not finite", "breaks", "in 2 of 2 seeds"):  # fmt: skip
        assert words in found.out, words


def test_json_on_standard_output_is_what_a_file_has(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "claims.json"
    found = run("bench", "penalty-vs-kl", *SMALL, "--dtype", "float64", "--format", "json", "-o", file, "--quiet")
    assert (found.code, found.err) == (0, "")
    document = json.loads(found.out)
    assert document == json.loads(file.read_text())
    assert (document["dtype"], document["threads"], len(document["costs"]), len(document["descents"])) == (
        "float64", 1, 20, 5,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(run: Run, dtype: str) -> None:
    assert run("bench", "penalty-vs-kl", *SMALL, "--dtype", dtype).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("penalty-vs-js",), 'no benchmark "penalty-vs-js". Did you mean penalty-vs-kl?'),
        (("penalty-vs-kl", "--shape", "12"), '--shape "12" is not queries, heads and keys'),
        (("penalty-vs-kl", "--shape", "4x1x4"), "a shape needs a query, two heads and two keys"),
        (("penalty-vs-kl", "--dtype", "int8"), 'no dtype "int8"'),
        (("penalty-vs-kl", "--shape", "99999x99x99999"), "the shape 99999x99x99999 is too large"),
        (("penalty-vs-kl", "--threads", "0"), "--threads 0 is too small"),
        (("penalty-vs-kl", "--threads", "99999"), "--threads 99999 is more than this machine's"),
        (("penalty-vs-kl", "--format", "csv"), '--format "csv" is not known'),
        (("penalty-vs-kl", "-o", "x.csv"), 'unknown format ".csv"'),
        (("penalty-vs-kl", "-o", "folder"), "a benchmark is one file"),
    ],
)
def test_wrong_usage_is_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    found = run("bench", *arguments)
    assert (found.code, found.out) == (2, "")
    assert message in found.err
    assert found.err.count("\n") == 1
