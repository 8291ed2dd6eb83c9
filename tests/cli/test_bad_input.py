"""A catalogue: everything that can be wrong with what headprobe is given, and the one line that it answers.

Each entry says how to break something, and the exit code, the error code and some words of the line.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

import headprobe
from tests.conftest import SAMPLES, Result, Run, edit_json

BERT = SAMPLES / "tiny-bert"
CopyOf = Callable[[str], Path]
Break = Callable[[Path], object]
Refused = Callable[..., None]
Tensors = dict[str, Tensor]

A_FEW = ("--limit", 2)
QUERY = "bert.encoder.layer.1.attention.self.query.weight"
INDEX = "model.safetensors.index.json"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 2718584\n"


@dataclass(frozen=True)
class Fault:
    """How something is broken, and what headprobe says of it."""

    name: str
    breaks: Break
    error: str
    says: str
    code: int = 3


def each(*faults: Fault) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fault", faults, ids=lambda fault: fault.name)


def the_line(result: Result) -> str:
    """The only line that a refusal prints."""
    assert not result.out, result.out[:200]
    assert "Traceback" not in result.err
    assert result.err.startswith("headprobe: error[E-")
    assert result.err.endswith("\n")
    assert len(result.err.splitlines()) == 1
    assert len(result.err) < 1000
    return result.err.removesuffix("\n")


def assert_told(result: Result, code: int, error: str, *says: str) -> None:
    line = the_line(result)
    assert (result.code, line.split(": ")[1]) == (code, f"error[{error}]"), line
    for words in says:
        assert words in line


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`, with the files' bytes."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def process(*arguments: object, given: str = "", **environment: str) -> Result:
    """Run `headprobe` in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "headprobe", *map(str, arguments)],
        input=given, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment},
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Refused:
    """Scan with some arguments, and make sure that it is refused in one line and leaves all files as they were."""
    report = tmp_path / "results" / "report.json"
    report.parent.mkdir()
    report.write_text("what was there before")

    def check(code: int, error: str, says: str, *arguments: object) -> None:
        before = contents(tmp_path)
        assert_told(run("scan", *arguments, "-o", report), code, error, says)
        assert contents(tmp_path) == before

    return check


# --- ways to break a checkpoint ---------------------------------------------------------------------------------


def config(**changes: object) -> Break:
    return lambda folder: edit_json(folder / "config.json", **changes)


def file(name: str, content: bytes) -> Break:
    return lambda folder: (folder / name).write_bytes(content)


def without(*names: str) -> Break:
    def breaks(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return breaks


def only(*names: str) -> Break:
    """A folder that holds nothing but these files, empty, and below it folders where a name has some."""

    def breaks(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("{}")

    return breaks


def instead_of_weights(name: str) -> Break:
    return lambda folder: (folder / "model.safetensors").rename(folder / name)


def cut_to(size: int) -> Break:
    """The weights' first bytes; a negative size counts from the end."""

    def breaks(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:size])

    return breaks


def weights(change: Callable[[Tensors], Tensors]) -> Break:
    def breaks(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return breaks


def one_value(value: float) -> Break:
    def change(tensors: Tensors) -> Tensors:
        tensors[QUERY][3, 5] = value
        return tensors

    return weights(change)


def header(name: str, **changes: object) -> Break:
    """The weights with one tensor's entry in the header changed, the data left as they are."""

    def breaks(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        entries = json.loads(content[8 : 8 + length])
        entries[name].update(changes)
        changed = json.dumps(entries).encode()
        path.write_bytes(len(changed).to_bytes(8, "little") + changed + content[8 + length :])

    return breaks


def renamed(old: str, new: str) -> Break:
    return weights(lambda tensors: {name.replace(old, new, 1): tensor for name, tensor in tensors.items()})


def index(content: object) -> Break:
    return lambda folder: (folder / INDEX).write_text(json.dumps(content))


def index_points_to(name: str) -> Break:
    def breaks(folder: Path) -> None:
        entries = json.loads((folder / INDEX).read_text())
        entries["weight_map"][QUERY] = name
        (folder / INDEX).write_text(json.dumps(entries))
        shutil.copy(shards_of(folder)[0], folder.parent / "outside.safetensors")

    return breaks


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*-of-*.safetensors"))


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-bert with its weights in several files."""
    from transformers import AutoModelForMaskedLM

    folder = tmp_path_factory.mktemp("sharded") / "bert"
    AutoModelForMaskedLM.from_pretrained(BERT).save_pretrained(folder, max_shard_size="500KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BERT / name, folder / name)
    assert len(shards_of(folder)) > 2
    return folder


# --- the path ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["./nope", "../nope", "~/nope-of-headprobe", "a/b/c", "sample_inputs/nope", "what is this?"]
)
def test_a_folder_that_is_not_there_is_named(refused: Refused, name: str) -> None:
    refused(3, "E-PATH", f"no folder at {name}", name)


def test_an_absolute_path_is_never_a_hub_name(refused: Refused, tmp_path: Path) -> None:
    refused(3, "E-PATH", "no folder at", tmp_path / "x" / "nope")


def test_a_file_is_no_checkpoint(refused: Refused) -> None:
    refused(2, "E-FILE", "is a file. Give its folder", BERT / "model.safetensors")


def test_a_model_must_be_given(run: Run) -> None:
    assert_told(run("scan"), 2, "E-USAGE", "MODEL")


# --- the checkpoint ---------------------------------------------------------------------------------------------


@each(
    Fault("empty folder", only(), "E-NOCONFIG", "no config.json in"),
    Fault("no config", without("config.json"), "E-NOCONFIG", "no config.json in"),
    Fault("GGUF", only("model-q4.gguf"), "E-FORMAT", "holds GGUF"),
    Fault("ONNX", only("model.onnx"), "E-FORMAT", "holds ONNX"),
    Fault("TensorFlow", only("tf_model.h5"), "E-FORMAT", "holds TensorFlow"),
    Fault("Flax", only("flax_model.msgpack"), "E-FORMAT", "holds Flax"),
    Fault("GGUF with a config", instead_of_weights("model-q4.gguf"), "E-FORMAT", "found GGUF, need model.safetensors"),
    Fault("ONNX with a config", instead_of_weights("model.onnx"), "E-FORMAT", "found ONNX, need model.safetensors"),
    Fault("TensorFlow with a config", instead_of_weights("tf_model.h5"), "E-FORMAT", "found TensorFlow"),
    Fault("Flax with a config", instead_of_weights("flax_model.msgpack"), "E-FORMAT", "found Flax"),
    Fault("diffusers pipeline", only("model_index.json", "unet/config.json"), "E-DIFFUSERS", "Give a component"),
    Fault("Trainer's output", only("checkpoint-200/config.json"), "E-PARENT", "checkpoint-200."),
    Fault(
        "Trainer's output of many steps", only("checkpoint-200/config.json", "checkpoint-1000/config.json"),
        "E-PARENT", "checkpoint-1000.",
    ),
    Fault("adapter of no kind", only("adapter_config.json", "adapter_model.safetensors"), "E-ADAPTER", "peft_type"),
    Fault("no weights", without("model.safetensors"), "E-WEIGHTS", "no model.safetensors"),
)  # fmt: skip
def test_a_folder_of_something_else_is_told_apart(fault: Fault, refused: Refused, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    fault.breaks(folder)
    refused(fault.code, fault.error, fault.says, folder, *A_FEW)


@each(
    Fault("not JSON", file("config.json", b'{"model_type": "bert",\n nope}'), "E-CONFIG", "(line 2 column 2)"),
    Fault("empty", file("config.json", b""), "E-CONFIG", "is not valid JSON"),
    Fault("not UTF-8", file("config.json", b'{"a": "\xff"}'), "E-CONFIG", "is not UTF-8 (byte 7)"),
    Fault("list", file("config.json", b"[1, 2]"), "E-CONFIG", "is not a JSON object"),
    Fault("nested deeply", file("config.json", b"[" * 200_000), "E-CONFIG", "is nested too deeply"),
    Fault("no model_type", config(model_type=None), "E-CONFIG", 'has no "model_type"'),
    Fault("model_type is a number", config(model_type=7), "E-CONFIG", 'has no "model_type"'),
    Fault("unknown model_type", config(model_type="berrt"), "E-ARCH", '"berrt" is unknown'),
    Fault("near model_type", config(model_type="berrt"), "E-ARCH", "Did you mean bert"),
    Fault("1000000 layers", config(num_hidden_layers=1_000_000), "E-LAYERS", "1000000 layers"),
    Fault("unknown model_type like no other", config(model_type="qqqq"), "E-ARCH", '"qqqq" is unknown'),
    Fault("hidden size of no multiple", config(hidden_size=126), "E-LOAD", "(126) is not a multiple of the number of"),
    Fault("0 heads", config(num_attention_heads=0), "E-CONFIG", "heads"),
    Fault("heads as a word", config(num_attention_heads="4"), "E-CONFIG", "num_attention_heads"),
    Fault("negative heads", config(num_attention_heads=-8), "E-CONFIG", "heads"),
    Fault("layers of no whole number", config(num_hidden_layers=2.5), "E-CONFIG", "num_hidden_layers"),
    Fault("sizes that the layers can't cut", config(chunk_size_feed_forward=7), "E-FORWARD", "chunk size 7"),
    Fault("unknown activation", config(hidden_act="evil"), "E-CONFIG", 'unknown hidden_act "evil"'),
    Fault("another hidden size", config(hidden_size=64), "E-SHAPE", "in the file, config.json needs"),
    Fault(
        "another vocabulary",
        config(vocab_size=5000),
        "E-SHAPE",
        "[4096, 128] in the file, config.json needs [5000, 128]",
    ),
    Fault("too many layers", config(num_hidden_layers=6), "E-MISSING", "encoder.layer.4."),
    Fault("too few layers", config(num_hidden_layers=2), "E-LAYERS", "config.json says 2 layers"),
    Fault("no layers", config(num_hidden_layers=0), "E-LAYERS", "config.json says 0 layers"),
    Fault("unknown quantization", config(quantization_config={"quant_method": "zip2bit"}), "E-QUANT", "zip2bit"),
)
def test_a_wrong_config_is_refused(fault: Fault, refused: Refused, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    fault.breaks(folder)
    refused(fault.code, fault.error, fault.says, folder, *A_FEW)


@each(
    Fault("encoder too short", config(encoder_layers=1), "E-LAYERS", "config.json says 1 layers"),
    Fault("decoder too short", config(decoder_layers=1), "E-LAYERS", "config.json says 1 layers"),
    Fault("encoder too long", config(encoder_layers=3), "E-MISSING", "encoder.layers.2."),
    Fault("start token beyond the embedding", config(decoder_start_token_id=99_999), "E-VOCAB", "99999"),
)
def test_a_wrong_config_of_two_stacks_is_refused(fault: Fault, refused: Refused, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bart")
    fault.breaks(folder)
    refused(fault.code, fault.error, fault.says, folder, *A_FEW)


@each(
    Fault("image size of a word", config(image_size="32"), "E-CONFIG", "image_size"),
    Fault("another image size", config(image_size=7), "E-SHAPE", "embeddings.position_embeddings"),
    Fault("settings not JSON", file("preprocessor_config.json", b"nope"), "E-PROCESSOR", "is not valid JSON (line 1"),
    Fault("settings are a list", file("preprocessor_config.json", b"[]"), "E-PROCESSOR", "is not a JSON object"),
    Fault("mean is a word", file("preprocessor_config.json", b'{"image_mean": "x"}'), "E-PROCESSOR", "image_mean"),
)
def test_a_broken_image_model_is_refused(fault: Fault, refused: Refused, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-vit")
    fault.breaks(folder)
    refused(fault.code, fault.error, fault.says, folder, *A_FEW)


@each(
    Fault("empty", file("model.safetensors", b""), "E-SAFETENSORS", "is empty (0 bytes)"),
    Fault(
        "cut in the data",
        cut_to(-100),
        "E-SAFETENSORS",
        "is truncated: 2,718,484 bytes, its header describes 2,718,584",
    ),
    Fault("cut in the header", cut_to(200), "E-SAFETENSORS", "does not fit in 200 bytes"),
    Fault("cut in the length", cut_to(5), "E-SAFETENSORS", "does not fit in 5 bytes"),
    Fault("garbage", file("model.safetensors", b"\x93\xb1\x07" * 1000), "E-SAFETENSORS", "does not fit in 3,000 bytes"),
    Fault(
        "huge header",
        file("model.safetensors", b"\xff" * 7 + b"\x7f" + b"{}"),
        "E-SAFETENSORS",
        "does not fit in 10 bytes",
    ),
    Fault("garbage header", file("model.safetensors", b"\x04" + bytes(7) + b"nope"), "E-SAFETENSORS", "is corrupt"),
    Fault(
        "header of another shape", file("model.safetensors", b"\x02" + bytes(7) + b"[]"), "E-SAFETENSORS", "is corrupt"
    ),
    Fault("unknown dtype", header(QUERY, dtype="Q99"), "E-SAFETENSORS", "unknown variant `Q99`"),
    Fault("overlapping tensors", header(QUERY, data_offsets=[0, 32768]), "E-SAFETENSORS", "is corrupt"),
    Fault("shape of another size", header(QUERY, shape=[128, 64]), "E-SAFETENSORS", "is corrupt"),
    Fault("Git LFS pointer", file("model.safetensors", LFS_POINTER), "E-LFS", "Run: git lfs pull"),
    Fault(
        "integers",
        weights(lambda all_: {name: x.to(torch.int8) for name, x in all_.items()}),
        "E-DTYPE",
        "integer weights",
    ),
    Fault(
        "weight missing", weights(lambda all_: {k: x for k, x in all_.items() if k != QUERY}), "E-MISSING", QUERY[5:]
    ),
    Fault("weight misnamed", renamed(QUERY, QUERY.replace("query", "querry")), "E-MISSING", "querry"),
    Fault("names prefixed", renamed("", "module."), "E-MISSING", 'start with "module."'),
    Fault("NaN", one_value(float("nan")), "E-NONFINITE", "1 weights are not finite: " + QUERY[5:]),
    Fault("infinity", one_value(float("inf")), "E-NONFINITE", "1 weights are not finite: " + QUERY[5:]),
)
def test_broken_weights_are_refused(fault: Fault, refused: Refused, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    fault.breaks(folder)
    refused(fault.code, fault.error, fault.says, folder, *A_FEW)


def test_the_weights_of_a_task_are_not_taken_for_a_missing_weight(run: Run, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    weights(lambda tensors: {name: tensor for name, tensor in tensors.items() if name != QUERY})(folder)
    assert "cls.predictions" not in the_line(run("scan", folder))


def test_a_checkpoint_in_shards_is_scanned(run: Run, sharded: Path) -> None:
    whole = run("scan", BERT, "--limit", 1, "--metrics", "rcos", "--format", "csv")
    assert run("scan", sharded, "--limit", 1, "--metrics", "rcos", "--format", "csv") == whole
    assert whole.code == 0


@each(
    Fault("shard missing", lambda folder: shards_of(folder)[1].unlink(), "E-SHARD", "shards present)"),
    Fault(
        "shard cut",
        lambda folder: shards_of(folder)[1].write_bytes(b"\x08"),
        "E-SAFETENSORS",
        "does not fit in 1 bytes",
    ),
    Fault("index missing", without(INDEX), "E-INDEX", f"has shards but no {INDEX}"),
    Fault("index not JSON", file(INDEX, b"nope"), "E-INDEX", "is not valid JSON (line 1 column 1)"),
    Fault("index is a list", index([]), "E-INDEX", "is malformed"),
    Fault("index without a map", index({"metadata": {}}), "E-INDEX", "is malformed"),
    Fault("index of no names", index({"weight_map": {QUERY: 7}}), "E-INDEX", "is malformed"),
    Fault("index with an empty map", index({"weight_map": {}}), "E-INDEX", "is malformed"),
    Fault(
        "index to a parent",
        index_points_to("../outside.safetensors"),
        "E-TRAVERSAL",
        '("../outside.safetensors")',
        code=5,
    ),
    Fault("index to the root", index_points_to("/etc/passwd"), "E-TRAVERSAL", '("/etc/passwd")', code=5),
    Fault("index to no name", index_points_to(".."), "E-TRAVERSAL", '("..")', code=5),
)
def test_broken_shards_are_refused(fault: Fault, refused: Refused, sharded: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sharded, tmp_path / "bert"))
    fault.breaks(folder)
    refused(fault.code, fault.error, fault.says, folder, *A_FEW)


# --- the tokenizer, and models without attention ----------------------------------------------------------------


@each(
    Fault("no files", without("tokenizer.json", "tokenizer_config.json"), "E-TOKENIZER", "no tokenizer files in"),
    Fault("only settings", without("tokenizer.json"), "E-TOKENIZER", "no tokenizer files in"),
    Fault("corrupt", file("tokenizer.json", b'{"version": "1.0", '), "E-TOKENIZER", "can't be loaded"),
    Fault("of another shape", file("tokenizer.json", b"[]"), "E-TOKENIZER", "can't be loaded"),
    Fault("settings corrupt", file("tokenizer_config.json", b"nope"), "E-TOKENIZER", "can't be loaded"),
    Fault(
        "length of a word",
        file("tokenizer_config.json", b'{"model_max_length": "x"}'),
        "E-TOKENIZER",
        "model_max_length",
    ),
    Fault("no length", file("tokenizer_config.json", b'{"model_max_length": 0}'), "E-TOKENIZER", "model_max_length"),
    Fault(
        "length less than nothing",
        file("tokenizer_config.json", b'{"model_max_length": -3}'),
        "E-TOKENIZER",
        "model_max_length",
    ),
)
def test_a_broken_tokenizer_is_refused(fault: Fault, refused: Refused, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    fault.breaks(folder)
    refused(fault.code, fault.error, fault.says, folder, *A_FEW)


def test_a_token_without_an_embedding_is_refused(refused: Refused, copy_of: CopyOf, tmp_path: Path) -> None:
    folder = copy_of("tiny-bert")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    path = tmp_path / "texts.txt"
    path.write_text("an <extra> word\n")
    refused(3, "E-VOCAB", "gives id 4096, the embedding has 4096 rows", folder, "--text", path)


def random_model(name: str, folder: Path) -> None:
    """Put a small model of another architecture in a checkpoint's folder."""
    import transformers

    sizes = {"vocab_size": 4096, "hidden_size": 32, "num_hidden_layers": 2}
    model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**sizes))
    model.save_pretrained(folder)


def test_a_model_without_attention_is_refused(refused: Refused, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    random_model("FNet", folder)
    refused(3, "E-NOATTN", "FNetModel has no softmax attention", folder, *A_FEW)


def test_what_a_library_has_to_say_adds_no_line(copy_of: CopyOf) -> None:
    """transformers advises Mamba's users to install more packages."""
    folder = copy_of("tiny-bert")
    random_model("Mamba", folder)
    assert_told(process("scan", folder, *A_FEW), 3, "E-NOATTN", "MambaModel has no softmax attention")


# --- options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "error", "says"),
    [
        ("--metrics", "redundanzy", "E-METRIC", "Did you mean redundancy"),
        ("--metrics", "entropy_nrm", "E-METRIC", "entropy_norm"),
        ("--metrics", "rcos,rcoss", "E-METRIC", 'no metric or column "rcoss". Did you mean rcos'),
        ("--layers", "9", "E-LAYERS", "no layer 9. Its layers are 0 to 3"),
        ("--layers", "a-b", "E-LAYERS", '"a-b" names no layers. Give them like 0-3,7'),
        ("--layers", "3-1", "E-LAYERS", '"3-1" names no layers'),
        ("--kind", "encodr", "E-OPTION", "Did you mean encoder"),
        ("--kind", "self", "E-OPTION", "Valid: cross, decoder, encoder."),
        ("--kind", "cross", "E-KIND", "the model has no cross attention. Valid: encoder."),
        ("--pairs", "layers", "E-OPTION", "Did you mean layer"),
        ("--dtype", "float23", "E-OPTION", "float32"),
        ("--special", "drop", "E-OPTION", "drop-keys"),
        ("--format", "jsn", "E-FORMAT", "Did you mean json"),
        ("--sort", "rcoz", "E-SORT", "Did you mean rcos"),
        ("--limit", "0", "E-OPTION", "--limit 0 is too small"),
        ("--limit", "many", "E-USAGE", "'--limit' / '-n': Input should be a valid integer"),
        ("--batch-size", "0", "E-OPTION", "--batch-size 0 is too small"),
        ("--max-length", "1", "E-OPTION", "--max-length 1 is too small"),
        ("--top", "-1", "E-OPTION", "--top -1 is too small"),
        ("--max-memory", "0", "E-OPTION", '"0" is no amount of memory. Give it like 512MiB'),
        ("--max-memory", "lots", "E-OPTION", '"lots" is no amount of memory. Give it like 512MiB'),
        ("--limt", "2", "E-USAGE", "--limit"),
    ],
)
def test_a_wrong_option_is_refused(option: str, value: str, error: str, says: str, refused: Refused) -> None:
    refused(2, error, says, BERT, *A_FEW, option, value)


@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_column_to_sort_by_is_checked_in_every_format(form: str, refused: Refused) -> None:
    refused(2, "E-SORT", "Did you mean rcos", BERT, *A_FEW, "--sort", "rcoz", "--format", form)


def test_a_pair_metric_needs_pairs(refused: Refused) -> None:
    refused(2, "E-OPTION", "--pairs none leaves out js", BERT, "--pairs", "none", "--metrics", "js")


def test_an_unknown_command_is_refused(run: Run) -> None:
    assert_told(run("scna", BERT), 2, "E-USAGE", "scna")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(refused: Refused) -> None:
    refused(4, "E-DEVICE", "no device cuda in this PyTorch", BERT, "--device", "cuda")


# --- texts ------------------------------------------------------------------------------------------------------


def texts(name: str, content: bytes, error: str, says: str, code: int = 3) -> Fault:
    return Fault(name, file(name, content), error, says, code)


@each(
    texts("empty.txt", b"", "E-DATA", "(0 read, 0 empty)"),
    texts("blank.txt", b"\n  \n\t\n", "E-DATA", "(3 read, 3 empty)"),
    texts("latin-1.txt", "good\nalso good\nna\xefve\n".encode("latin-1"), "E-ENCODING", "(line 3, byte 17)"),
    texts("texts.docx", b"PK", "E-FORMAT", '".docx" is no format of texts. Valid: .txt, .jsonl', code=2),
    texts("broken.jsonl", b'{"text": "a"}\n\n{"text": \n', "E-DATA", "broken.jsonl:3 is not valid JSON"),
    texts("list.jsonl", b'{"text": "a"}\n["b"]\n', "E-DATA", "list.jsonl:2 is not a JSON object"),
    texts("number.jsonl", b'{"text": "a"}\n{"text": 5}\n', "E-DATA", 'number.jsonl:2: "text" is no text but 5'),
    texts("first.jsonl", b'{"text": 5}\n{"text": "a"}\n', "E-DATA", 'first.jsonl:1: "text" is no text but 5'),
    texts("empty.jsonl", b"", "E-DATA", "(0 read, 0 empty)"),
    texts("nulls.jsonl", b'{"text": null}\n{"text": ""}\n', "E-DATA", "(2 read, 2 empty)"),
    texts("fields.csv", b"title,body\nOne,two\n", "E-FIELD", "has 2 text fields (title, body). Choose one", code=2),
    texts("quote.csv", b'text\n"never closed\n', "E-DATA", "quote.csv:2 is not valid CSV"),
    texts("header.csv", b"text\n", "E-DATA", "(0 read, 0 empty)"),
    texts("garbage.parquet", b"PAR1 nope PAR1", "E-DATA", "garbage.parquet is not valid Parquet"),
    texts("empty.parquet", b"", "E-DATA", "empty.parquet is not valid Parquet"),
)
def test_a_wrong_text_file_is_refused(fault: Fault, refused: Refused, tmp_path: Path) -> None:
    fault.breaks(tmp_path)
    refused(fault.code, fault.error, fault.says, BERT, *A_FEW, "--text", tmp_path / fault.name)


@pytest.mark.parametrize("name", ["nope.txt", "nope.csv", "nope.parquet", "nope"])
def test_a_text_file_that_is_not_there_is_named(name: str, refused: Refused, tmp_path: Path) -> None:
    refused(3, "E-DATA", f"no text file at {tmp_path / name}", BERT, "--text", tmp_path / name)


@pytest.mark.parametrize("name", ["folder.txt", "folder.parquet", "folder"])
def test_a_folder_is_no_text_file(name: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    refused(3, "E-DATA", "is a folder. Give the files in it", BERT, "--text", tmp_path / name)


def test_a_field_that_is_not_there_is_refused(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("title,review\nOne,two\n")
    refused(2, "E-FIELD", 'has no field "reviews". Did you mean review', BERT, "--text", path, "--field", "reviews")


def test_a_field_of_nulls_at_first_is_still_the_texts(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"id": "a1", "text": null}\n{"id": "a2", "text": "a good film"}\n')
    result = run("scan", BERT, "--text", path, "--metrics", "rcos", "--format", "json")
    assert [json.loads(result.out)["tables"]["inputs"]["sequence"], result.code] == [[0], 0]


def test_standard_input_must_be_text(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    refused(3, "E-ENCODING", "standard input is not UTF-8 (line 1, byte 0)", BERT, "--text", "-")


def test_an_image_model_takes_no_texts(refused: Refused) -> None:
    path = SAMPLES / "texts" / "short.txt"
    refused(2, "E-MODALITY", "ViTModel takes images, not texts", SAMPLES / "tiny-vit", "--text", path)


# --- the hub ----------------------------------------------------------------------------------------------------


def test_a_hub_that_does_not_answer_is_told(tmp_path: Path) -> None:
    result = process(
        "scan", "no-such-org/no-such-model", "--token", "hf_secretword",
        HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(tmp_path), NO_PROXY="127.0.0.1",
    )  # fmt: skip
    assert_told(result, 4, "E-OFFLINE", "no-such-org/no-such-model", "the Hub can't be reached")
    assert "hf_secretword" not in result.err


def test_offline_mode_is_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # HF_HUB_OFFLINE=1, which is read on import
    result = run("scan", "no-such-org/no-such-model", "--cache-dir", tmp_path)
    assert_told(result, 4, "E-OFFLINE", "offline mode is on (HF_HUB_OFFLINE)", "hf download no-such-org/no-such-model")


# --- outputs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "code", "error", "says"),
    [
        ("nope/out.json", 4, "E-OUTPUT", "no folder"),
        ("a-file/out.json", 4, "E-OUTPUT", "can't be written"),
        ("a-file/out", 4, "E-OUTPUT", "can't be written"),
        ("a-file", 2, "E-OUTPUT", "is a file. Give a folder, or one of .json, .csv, .parquet"),
        ("a-folder.json", 2, "E-OUTPUT", "is a folder"),
        ("out.jsn", 2, "E-FORMAT", 'unknown format ".jsn". Did you mean .json'),
        ("out.htm", 2, "E-FORMAT", 'unknown format ".htm"'),
    ],
)
def test_an_output_that_can_not_be_written_is_refused(
    output: str, code: int, error: str, says: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "a-file").write_text("mine")
    (tmp_path / "a-folder.json").mkdir()
    before = contents(tmp_path)
    assert_told(run("scan", BERT, "--limit", 1, "-o", tmp_path / output), code, error, says)
    assert contents(tmp_path) == before


def test_a_refused_scan_makes_no_folder(run: Run, tmp_path: Path) -> None:
    assert_told(run("scan", "./nope", "-o", tmp_path / "new"), 3, "E-PATH", "./nope")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("output", ["", "-"])
def test_an_output_of_no_name_is_refused(
    output: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_told(run("scan", BERT, *A_FEW, "-o", output), 2, "E-OUTPUT", "-o")
    assert contents(tmp_path) == {}


# --- saved reports ----------------------------------------------------------------------------------------------


def report(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.update(changes)


def column(table: str, name: str, values: object = None) -> Callable[[dict[str, Any]], object]:
    """A column that is missing, or has other values."""

    def breaks(document: dict[str, Any]) -> None:
        columns = document["tables"][table]
        columns[name] = [values] * len(columns[name])
        if values is None:
            del columns[name]

    return breaks


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (report(schema="other"), "is no headprobe report"),
        (report(schema_version="2.0"), "has schema version 2.0, this is 1.3"),
        (report(tables=[]), "is damaged"),
        (report(provenance=[]), "is damaged"),
        (report(notes=5), "is damaged"),
        (column("heads", "site"), "is damaged"),
        (column("pairs", "site_a"), "is damaged"),
        (column("pairs", "js", "x"), "is damaged"),
        (column("heads", "rcos", {}), "is damaged"),
        (column("sequences", "sequence", [1]), "is damaged"),
        (column("pairs", "site_b", float("inf")), "is damaged"),
        (column("heads", "kind", 3), "is damaged"),
    ],
    ids=[
        "schema",
        "version",
        "tables",
        "provenance",
        "notes",
        "no site",
        "no site_a",
        "js is no number",
        "a dictionary",
        "a list",
        "infinite",
        "kind is no word",
    ],
)
def test_a_damaged_report_is_refused(
    breaks: Callable[[dict[str, Any]], object], says: str, run: Run, saved: Path, tmp_path: Path
) -> None:
    document = json.loads(saved.read_text())
    breaks(document)
    damaged = tmp_path / "damaged.json"
    damaged.write_text(json.dumps(document))
    assert_told(run("matrix", damaged), 3, "E-REPORT", says)


@pytest.mark.parametrize(
    "content",
    [b"", b"nope", b"[]", b"\xff", b"[" * 200_000],
    ids=["empty", "no JSON", "list", "no UTF-8", "nested deeply"],
)
def test_a_file_that_is_no_report_is_refused(content: bytes, run: Run, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(content)
    assert_told(run("matrix", tmp_path / "report.json"), 3, "E-REPORT", "is no")


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "report.json"
    headprobe.scan(BERT, limit=2).save(path)
    return path


# --- configuration files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("headprobe.toml", b"limits = 3", "E-CONFIGFILE", 'has an unknown key "limits". Did you mean limit'),
        (
            "headprobe.toml",
            b"trust_remote_code = true",
            "E-CONFIGFILE",
            "trust_remote_code, which only the command line may set",
        ),
        ("headprobe.toml", b"trust-remote-code = true", "E-CONFIGFILE", "which only the command line may set"),
        ("headprobe.toml", b"allow_pickle = true", "E-CONFIGFILE", "which only the command line may set"),
        ("headprobe.toml", b"token = 'hf_x'", "E-CONFIGFILE", "which only the command line may set"),
        ("headprobe.toml", b"limit = ", "E-CONFIGFILE", "is not valid TOML"),
        ("headprobe.toml", b"dtype = '\xff'", "E-CONFIGFILE", "is not valid TOML"),
        ("headprobe.toml", b"limit = 'many'", "E-USAGE", "Input should be a valid integer"),
        ("headprobe.toml", b"limit = 0", "E-OPTION", "--limit 0 is too small"),
        ("headprobe.toml", b"pairs = 'layers'", "E-OPTION", "Did you mean layer"),
        (
            "pyproject.toml",
            b"[tool.headprobe]\nlimits = 3",
            "E-CONFIGFILE",
            'has an unknown key "limits". Did you mean limit',
        ),
        (
            "pyproject.toml",
            b"[tool.headprobe]\nallow-pickle = true",
            "E-CONFIGFILE",
            "which only the command line may set",
        ),
    ],
)
def test_a_wrong_configuration_file_is_refused(
    name: str, content: bytes, error: str, says: str, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    refused(2, error, says, BERT)
