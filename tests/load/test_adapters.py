"""Adapters become part of the weights before anything is measured; none is left out or put in twice."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from headprobe.errors import HeadprobeError
from headprobe.load import adapter as adapters
from headprobe.load.checkpoint import load_checkpoint
from headprobe.settings import LoadOptions
from tests.conftest import SAMPLES, Run, edit_json

BERT = SAMPLES / "tiny-bert"
# what peft and transformers advise each other while the adapters are made
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
QUERY = "bert.encoder.layer.1.attention.self.query.weight"
A_FEW = ("--limit", 2, "--metrics", "rcos", "--format", "json")


def needs_peft() -> Any:
    return pytest.importorskip("peft")


def train(folder: Path, base: Path = BERT, task: str | None = None, **settings: Any) -> torch.Tensor:
    """Save a LoRA adapter of random weights; returns what the query weight is with it."""
    peft = needs_peft()
    torch.manual_seed(1)
    loader = transformers.AutoModelForSequenceClassification if task == "SEQ_CLS" else transformers.BertForMaskedLM
    chosen = {"r": 4, "lora_alpha": 16, "target_modules": ["query", "value"], "init_lora_weights": False, **settings}
    model = peft.get_peft_model(
        loader.from_pretrained(base, dtype="float32"), peft.LoraConfig(task_type=task, **chosen)
    )
    model.save_pretrained(folder)
    merged = model.merge_and_unload()
    return torch.Tensor(merged.get_parameter(QUERY).detach().clone())


def load(folder: Path, **options: Any) -> Any:
    return load_checkpoint(str(folder), LoadOptions(device="cpu", **options))


@pytest.mark.parametrize("task", [None, "SEQ_CLS"])
@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
def test_an_adapter_is_merged_into_the_base_that_the_user_names(
    task: str | None, settings: dict[str, Any], tmp_path: Path
) -> None:
    expected = train(tmp_path / "a", task=task, **settings)
    found = load(tmp_path / "a", base_model=str(BERT))
    assert torch.allclose(found.task_model.get_parameter(QUERY), expected, atol=1e-6)
    assert not torch.allclose(load(BERT).task_model.get_parameter(QUERY), expected, atol=1e-3)
    assert type(found.model).__name__ == "BertModel"
    assert [f"adapter on base {BERT}" in note for note in found.notes] == [True]
    assert [path.name for path in found.files] == [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "adapter_config.json",
        "adapter_model.safetensors",
    ]  # fmt: skip
    assert not any("lora" in name for name, _ in found.task_model.named_parameters())


@pytest.mark.parametrize("where", ["base", "."])
def test_a_base_in_the_adapters_own_folder_is_used_and_the_adapter_put_in_once(where: str, tmp_path: Path) -> None:
    expected = train(tmp_path / "a")
    shutil.copytree(BERT, tmp_path / "a" / where, dirs_exist_ok=True)
    edit_json(tmp_path / "a" / "adapter_config.json", base_model_name_or_path="base")
    assert torch.allclose(load(tmp_path / "a").task_model.get_parameter(QUERY), expected, atol=1e-6)


def test_an_adapter_is_scanned_from_the_command_line(run: Run, tmp_path: Path) -> None:
    train(tmp_path / "a")
    found = run("scan", tmp_path / "a", "--base-model", BERT, *A_FEW)
    assert (found.code, found.err) == (0, "")
    report, plain = json.loads(found.out), json.loads(run("scan", BERT, *A_FEW).out)
    assert {"adapter_config.json", "adapter_model.safetensors", "model.safetensors"} <= set(
        report["provenance"]["files"]
    )
    assert report["tables"]["heads"]["rcos"] != plain["tables"]["heads"]["rcos"]
    assert run("inspect", tmp_path / "a", "--base-model", BERT).code == 0


def refused(folder: Path, code: int, error: str, says: str, **options: Any) -> None:
    with pytest.raises(HeadprobeError, match=says) as told:
        load(folder, **options)
    assert (told.value.exit_code, told.value.code) == (code, error)


@pytest.mark.parametrize(
    ("base", "code", "says"),
    [
        (None, 3, "names no base model"),
        ("", 3, "names no base model"),
        (7, 3, "names no base model"),
        ("../bert", 5, "outside its folder"),
        ("..", 5, "outside its folder"),
        (str(BERT), 5, "outside its folder"),
        ("~/bert", 5, "outside its folder"),
        ("a/b/c", 5, "outside its folder"),
    ],
)
def test_a_base_elsewhere_needs_a_person(base: Any, code: int, says: str, tmp_path: Path) -> None:
    train(tmp_path / "a")
    shutil.copytree(BERT, tmp_path / "bert")
    edit_json(tmp_path / "a" / "adapter_config.json", base_model_name_or_path=base)
    refused(tmp_path / "a", code, "E-ADAPTER", says)


def test_a_link_out_of_the_adapters_folder_is_no_base(tmp_path: Path) -> None:
    train(tmp_path / "a")
    (tmp_path / "a" / "base").symlink_to(BERT)
    edit_json(tmp_path / "a" / "adapter_config.json", base_model_name_or_path="./base")
    refused(tmp_path / "a", 5, "E-ADAPTER", "outside its folder")


def test_a_name_is_a_hub_name_whatever_folders_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "a")
    shutil.copytree(BERT, tmp_path / "org" / "bert")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    edit_json(tmp_path / "a" / "adapter_config.json", base_model_name_or_path="org/bert")
    refused(tmp_path / "a", 4, "E-OFFLINE", "org/bert", cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("PROMPT_TUNING", "vectors before every text"),
        ("PREFIX_TUNING", "keys before every layer"),
        ("XLORA", "mixes"),
        ("SHADOW", "a second model"),
    ],
)
def test_kinds_that_are_no_change_of_weights_are_refused(kind: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind, "base_model_name_or_path": "gpt2"}))
    refused(tmp_path, 3, "E-ADAPTER", says)


def drop(name: str) -> Any:
    return lambda tensors: {key: value for key, value in tensors.items() if name not in key}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop("layer.1.attention.self.query.lora_B"), "does not fit .* 1 weights"),
        (lambda tensors: {key.replace("layer.3", "layer.9"): value for key, value in tensors.items()}, "does not fit"),
        (lambda tensors: {f"x.{key}": value for key, value in tensors.items()}, "does not fit"),
        (lambda tensors: {key: value[:, :2].contiguous() for key, value in tensors.items()}, "does not fit"),
        (lambda tensors: {}, "does not fit"),
    ],
    ids=["lacks one", "other layers", "other names", "other shapes", "empty"],
)
def test_an_adapter_that_fits_in_part_is_refused(change: Any, says: str, tmp_path: Path) -> None:
    train(tmp_path / "a")
    path = tmp_path / "a" / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    refused(tmp_path / "a", 3, "E-ADAPTER", says, base_model=str(BERT))


def test_an_adapter_of_the_bare_model_is_put_in_its_place(tmp_path: Path) -> None:
    expected = train(tmp_path / "a")
    path = tmp_path / "a" / "adapter_model.safetensors"
    save_file({name.replace("model.bert.", "model."): tensor for name, tensor in load_file(path).items()}, path)
    found = load(tmp_path / "a", base_model=str(BERT))
    assert torch.allclose(found.task_model.get_parameter(QUERY), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "code", "error", "says"),
    [
        ("adapter_config.json", b"nope", 3, "E-ADAPTER", "not valid JSON"),
        ("adapter_config.json", b"[]", 3, "E-ADAPTER", 'has no "peft_type"'),
        ("adapter_config.json", b'{"peft_type": "NOPE", "base_model_name_or_path": "x"}', 3, "E-ADAPTER", "NOPE"),
        ("adapter_model.safetensors", b"", 3, "E-SAFETENSORS", "is empty"),
        ("adapter_model.safetensors", b"abcdefghij", 3, "E-SAFETENSORS", "truncated"),
    ],
)
def test_a_broken_adapter_is_refused(
    name: str, content: bytes, code: int, error: str, says: str, tmp_path: Path
) -> None:
    train(tmp_path / "a")
    (tmp_path / "a" / name).write_bytes(content)
    refused(tmp_path / "a", code, error, says, base_model=str(BERT))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target_modules": "("}, "broken pattern"),
        ({"target_modules": ["nope"]}, "can't be merged into .*tiny-bert"),
        ({"peft_type": "lora"}, "a lora adapter, which the installed peft lacks"),
        ({"r": "x"}, "can't be merged"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    train(tmp_path / "a")
    edit_json(tmp_path / "a" / "adapter_config.json", **changes)
    refused(tmp_path / "a", 3, "E-ADAPTER", says, base_model=str(BERT))


def test_weights_of_an_adapter_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    train(tmp_path / "a")
    path = tmp_path / "a" / "adapter_model.safetensors"
    save_file({name: tensor * float("nan") for name, tensor in load_file(path).items()}, path)
    refused(tmp_path / "a", 3, "E-NONFINITE", "not finite", base_model=str(BERT))


@pytest.mark.parametrize("where", ["", "0_Transformer"])
def test_an_adapter_beside_the_transformer_of_sentence_transformers_is_merged(where: str, tmp_path: Path) -> None:
    expected = train(tmp_path / "st" / where)
    shutil.copytree(BERT, tmp_path / "st" / where, dirs_exist_ok=True)
    module = {"path": where, "type": "sentence_transformers.models.Transformer"}
    (tmp_path / "st" / "modules.json").write_text(json.dumps([module]))
    assert torch.allclose(load(tmp_path / "st").task_model.get_parameter(QUERY), expected, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [{"rank_pattern": {"layer.1.attention.self.query": 8}}, {"modules_to_save": ["LayerNorm"]}, {"bias": "all"}],
    ids=["rank pattern", "modules to save", "bias"],
)
def test_every_weight_is_that_of_the_merged_model(settings: dict[str, Any], tmp_path: Path) -> None:
    peft = needs_peft()
    train(tmp_path / "a", **settings)
    path = tmp_path / "a" / "adapter_model.safetensors"
    save_file({name: tensor + 0.01 for name, tensor in load_file(path).items()}, path)
    base = transformers.BertForMaskedLM.from_pretrained(BERT, dtype="float32")
    expected = peft.PeftModel.from_pretrained(base, tmp_path / "a").merge_and_unload().state_dict()
    found = load(tmp_path / "a", base_model=str(BERT)).task_model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def test_weights_that_are_missing_or_pickled_are_refused(tmp_path: Path) -> None:
    train(tmp_path / "a")
    (tmp_path / "a" / "adapter_model.safetensors").unlink()
    refused(tmp_path / "a", 3, "E-ADAPTER", "is missing", base_model=str(BERT))
    torch.save({}, tmp_path / "a" / "adapter_model.bin")
    refused(tmp_path / "a", 5, "E-PICKLE", "only pickled", base_model=str(BERT))


def test_an_adapter_on_an_adapter_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "a")
    train(tmp_path / "b")
    shutil.copytree(BERT, tmp_path / "b", dirs_exist_ok=True)
    refused(tmp_path / "a", 3, "E-ADAPTER", "is itself an adapter", base_model=str(tmp_path / "b"))


def test_a_module_to_import_is_refused(tmp_path: Path) -> None:
    train(tmp_path / "a")
    edit_json(tmp_path / "a" / "adapter_config.json", megatron_config={"x": 1}, megatron_core="evil")
    refused(tmp_path / "a", 5, "E-ADAPTER", "asks for a module", base_model=str(BERT))


def test_a_base_for_what_is_no_adapter_is_refused() -> None:
    refused(BERT, 2, "E-OPTION", "no adapter", base_model="gpt2")


def test_the_extra_is_named_where_peft_is_not_installed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/base"}')
    save_file({"x": torch.zeros(1)}, tmp_path / "adapter_model.safetensors")
    there = importlib.util.find_spec
    monkeypatch.setattr(adapters, "find_spec", lambda name: None if name == "peft" else there(name))
    found = run("scan", tmp_path)
    assert (found.code, found.out, len(found.err.splitlines())) == (4, "", 1)
    assert "LORA adapter on org/base, and peft is not installed" in found.err
    assert "headprobe[adapters]" in found.err
