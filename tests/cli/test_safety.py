"""Nothing that a checkpoint or a text says is obeyed: none of their code runs, none of their characters act."""

import io
import json
import os
import pickle
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli.test_bad_input import BERT, INDEX, QUERY, CopyOf, assert_told, process, renamed
from tests.conftest import SAMPLES, Result, Run, edit_json

QUICK = ("--limit", 1, "--metrics", "rcos")
NUMBERS = ("--limit", 2, "--metrics", "rcos,entropy", "--format", "csv")


class Evil:
    """Once unpickled, it has made a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {shlex.quote(str(self.marker))}",)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that exists once foreign code has run."""
    return tmp_path / "code-has-run"


def pickled_only(folder: Path) -> Path:
    """Weights as a pickle, and no others."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


def with_code(folder: Path, marker: Path, model_type: str) -> None:
    """A checkpoint that brings its own config, model and tokenizer."""
    edit_json(
        folder / "config.json", model_type=model_type, auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    )
    edit_json(folder / "tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]})
    (folder / "own.py").write_text(
        "from transformers import BertConfig, BertModel, BertTokenizer\n"
        f"open({str(marker)!r}, 'w').close()\n"
        f"class Config(BertConfig): model_type = {model_type!r}\n"
        "class Model(BertModel): config_class = Config\n"
        "class Own(BertTokenizer): pass\n"
    )


def untouched(run: Run) -> Result:
    """What a scan of the checkpoint as it was gives."""
    return run("scan", BERT, *NUMBERS)


# --- pickles ----------------------------------------------------------------------------------------------------


def test_the_evil_pickle_really_runs_code(marker: Path) -> None:
    pickle.loads(pickle.dumps(Evil(marker)))
    assert marker.exists()


def test_pickled_weights_are_refused(run: Run, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    pickled_only(folder)
    assert_told(run("scan", folder), 5, "E-PICKLE", "only pickled weights (pytorch_model.bin)", "pass --allow-pickle")


def test_pickled_weights_in_shards_are_refused(run: Run, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    pickled_only(folder).rename(folder / "pytorch_model-00001-of-00001.bin")
    assert_told(run("scan", folder), 5, "E-PICKLE", "pytorch_model-00001-of-00001.bin")


def test_an_evil_pickle_is_not_opened(run: Run, copy_of: CopyOf, marker: Path) -> None:
    folder = copy_of("tiny-bert")
    torch.save({QUERY: Evil(marker)}, pickled_only(folder))
    assert_told(run("scan", folder), 5, "E-PICKLE", "pytorch_model.bin")
    assert not marker.exists()


def test_pickled_weights_are_read_if_allowed(run: Run, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    pickled_only(folder)
    assert run("scan", folder, "--allow-pickle", *NUMBERS) == untouched(run)


@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_an_evil_pickle_runs_nothing_even_if_allowed(form: str, run: Run, copy_of: CopyOf, marker: Path) -> None:
    folder = copy_of("tiny-bert")
    path = pickled_only(folder)
    if form == "torch":
        torch.save({QUERY: Evil(marker)}, path)
    else:
        path.write_bytes(pickle.dumps({QUERY: Evil(marker)}))
    assert_told(run("scan", folder, "--allow-pickle"), 5, "E-PICKLE", "pytorch_model.bin")
    assert not marker.exists()


@pytest.mark.parametrize("size", [0, 1000])
def test_a_pickle_that_is_cut_is_refused(size: int, run: Run, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    path = pickled_only(folder)
    path.write_bytes(path.read_bytes()[:size])
    assert_told(run("scan", folder, "--allow-pickle"), 3, "E-LOAD", "can't be loaded")


def test_an_evil_pickle_beside_good_weights_is_ignored(run: Run, copy_of: CopyOf, marker: Path) -> None:
    folder = copy_of("tiny-bert")
    torch.save({QUERY: Evil(marker)}, folder / "pytorch_model.bin")
    assert run("scan", folder, *NUMBERS) == untouched(run)
    assert not marker.exists()


@pytest.mark.parametrize("is_evil", [False, True])
def test_an_index_does_not_smuggle_in_a_pickle(is_evil: bool, run: Run, copy_of: CopyOf, marker: Path) -> None:
    folder = copy_of("tiny-bert")
    names = load_file(folder / "model.safetensors")
    path = pickled_only(folder)
    if is_evil:
        torch.save({QUERY: Evil(marker)}, path)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, path.name)}))
    assert_told(run("scan", folder, *NUMBERS), 5, "E-PICKLE", "pytorch_model.bin")
    assert not marker.exists()


# --- weights elsewhere than they were looked for ----------------------------------------------------------------


@pytest.mark.parametrize("target", ["../outside.safetensors", "pytorch_model.bin"])
def test_a_config_does_not_name_an_index_of_its_own(target: str, run: Run, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    weights = load_file(folder / "model.safetensors")
    shutil.copy(folder / "model.safetensors", folder.parent / "outside.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    entries = {"metadata": {}, "weight_map": dict.fromkeys(weights, target)}
    (folder / "own.safetensors.index.json").write_text(json.dumps(entries))
    edit_json(folder / "config.json", transformers_weights="own.safetensors.index.json")
    assert_told(run("scan", folder, *NUMBERS), 5, "E-TRAVERSAL", "own.safetensors.index.json")


def test_weights_that_were_not_looked_at_are_not_measured(run: Run, copy_of: CopyOf, tmp_path: Path) -> None:
    folder = copy_of("tiny-bert")
    (folder / "model.safetensors").rename(folder / "own.safetensors")
    shutil.copy(SAMPLES / "tiny-bert-finetuned" / "model.safetensors", folder / "model.safetensors")
    edit_json(folder / "config.json", transformers_weights="own.safetensors")
    result = run("scan", folder, "--limit", 2, "--format", "json")
    assert result.code != 0 or "own.safetensors" in json.loads(result.out)["provenance"]["files"]


# --- code in the checkpoint -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["scan", "matrix", "inspect"])
def test_code_of_a_checkpoint_is_refused(
    command: str, run: Run, copy_of: CopyOf, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of("tiny-bert")
    with_code(folder, marker, "own-type")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert_told(run(command, folder), 5, "E-REMOTE", "(own-type)", "Review the code, then pass --trust-remote-code")
    assert not marker.exists()


def test_nobody_is_asked_whether_code_may_run(copy_of: CopyOf, marker: Path) -> None:
    folder = copy_of("tiny-bert")
    with_code(folder, marker, "own-type")
    assert_told(process("scan", folder, "--text", "-", given="y\n"), 5, "E-REMOTE", "(own-type)")
    assert not marker.exists()


def test_code_of_a_checkpoint_runs_if_it_is_trusted(copy_of: CopyOf, marker: Path, tmp_path: Path) -> None:
    folder = copy_of("tiny-bert")
    with_code(folder, marker, "own-type")
    result = process("scan", folder, "--trust-remote-code", *NUMBERS, HF_HOME=str(tmp_path / "home"))
    assert (result.code, result.out.count("\n")) == (0, 33)
    assert marker.exists()


def test_code_for_a_known_type_is_left_out_with_a_note(run: Run, copy_of: CopyOf, marker: Path) -> None:
    folder = copy_of("tiny-bert")
    with_code(folder, marker, "bert")
    assert run("scan", folder, *NUMBERS) == untouched(run)
    shown = run("scan", folder, "--limit", 2)
    assert 'Note: the checkpoint ships its own code, which was not run: the built-in "bert" is used' in shown.out
    assert (shown.code, shown.err) == (0, "")
    assert not marker.exists()


@pytest.mark.parametrize("wanted", ["sdpa", "org/kernel", "flash_attention_2", "flex_attention"])
@pytest.mark.parametrize("field", ["_attn_implementation", "attn_implementation"])
def test_a_config_does_not_choose_how_attention_is_computed(field: str, wanted: str, run: Run, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "config.json", **{field: wanted})
    assert run("scan", folder, *NUMBERS) == untouched(run)


# --- names and texts that try to be more ------------------------------------------------------------------------

HOSTILE = {
    "[red]x[/red]": "[red]x[/red]",
    "[/INST]": "[/INST]",
    "[link=x]": "[link=x]",
    ":smile:": ":smile:",
    "\x1b[31mred": "\\x1b[31mred",
    "\x1b]0;title\x07": "\\x1b]0;title\\x07",
    "\x9b31mred": "\\x9b31mred",
    "two\nlines": "two\\nlines",
    "two\rlines": "two\\rlines",
    "right\u202eleft": "right\\u202eleft",
}
hostile = pytest.mark.parametrize(("name", "shown"), HOSTILE.items(), ids=HOSTILE.values())


def is_plain(*texts: str) -> bool:
    """True if nothing in the texts acts on a terminal, apart from the ends of lines."""
    return all(char == "\n" or char.isprintable() for text in texts for char in text)


@hostile
def test_the_name_of_a_model_is_shown_as_text(name: str, shown: str, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / name.replace("/", "／")
    shutil.copytree(BERT, folder)
    result = run("scan", folder, *QUICK)
    assert shown.replace("/", "／") in result.out.splitlines()[0]
    assert (result.code, result.err, is_plain(result.out)) == (0, "", True)


@hostile
def test_the_name_of_a_missing_model_is_shown_as_text(name: str, shown: str, run: Run) -> None:
    result = run("scan", f"./{name}")
    assert_told(result, 3, "E-PATH", shown)
    assert is_plain(result.err)


def test_a_model_type_is_shown_as_text(run: Run, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "config.json", model_type="\x1b[31mbert")
    result = run("scan", folder)
    assert_told(result, 3, "E-ARCH", '"\\x1b[31mbert" is unknown')
    assert is_plain(result.err)


@hostile
def test_the_name_of_a_weight_is_shown_as_text(name: str, shown: str, run: Run, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    renamed(QUERY, f"{QUERY}{name}")(folder)
    result = run("scan", folder)
    assert_told(result, 3, "E-MISSING", shown)
    assert is_plain(result.err)


@pytest.mark.parametrize("name", HOSTILE, ids=HOSTILE.values())
def test_the_name_of_an_option_is_shown_as_text(name: str, run: Run) -> None:
    result = run("scan", BERT, f"--{name}")
    assert_told(result, 2, "E-USAGE", "No such option")
    assert is_plain(result.err)


@hostile
def test_the_name_of_a_text_file_and_its_texts_are_no_commands(name: str, shown: str, run: Run, tmp_path: Path) -> None:
    texts = tmp_path / f"{name.replace('/', '／')}.jsonl"
    texts.write_text(json.dumps({"text": f"a {name} in a text"}))
    result = run("scan", BERT, "--text", texts, *QUICK)
    assert shown.replace("/", "／") in result.out.splitlines()[0]
    assert (result.code, result.err, is_plain(result.out)) == (0, "", True)


@hostile
def test_the_name_of_a_field_is_shown_as_text(name: str, shown: str, run: Run, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({name: "one", "other": "two"}))
    result = run("scan", BERT, "--text", texts)
    assert_told(result, 2, "E-FIELD", shown)
    assert is_plain(result.err)


@hostile
def test_the_name_of_an_output_is_shown_as_text(name: str, shown: str, run: Run, tmp_path: Path) -> None:
    result = run("scan", BERT, *QUICK, "-o", tmp_path / f"{name.replace('/', '／')}.csv")
    assert result.err.startswith("headprobe: wrote ")
    assert shown.replace("/", "／") in result.err
    assert (result.code, len(result.err.splitlines()), is_plain(result.err)) == (0, 1, True)


# --- secrets ----------------------------------------------------------------------------------------------------


def test_a_token_is_never_written(run: Run, tmp_path: Path) -> None:
    token = "hf_secretword"
    result = run("--debug", "scan", BERT, "--limit", 2, "--token", token, "--format", "json", "-o", tmp_path / "out")
    assert result.code == 0
    assert token not in result.out + result.err
    written = list((tmp_path / "out").iterdir())
    assert written
    assert not any(token.encode() in path.read_bytes() for path in written)


@pytest.mark.parametrize(
    "arguments", [("scan", "--help"), ("scan", "./nope"), ("--debug", "scan", "./nope"), ("scan", BERT, "--limit", "0")]
)
def test_a_token_of_the_environment_is_never_shown(
    arguments: tuple[object, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretword")
    result = run(*arguments)
    assert "hf_secretword" not in result.out + result.err
