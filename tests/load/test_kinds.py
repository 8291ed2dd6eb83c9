"""Checkpoints are loaded as what they are: with the head that they were saved with, scanned where attention is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from headprobe.errors import HeadprobeError, InputError, RefusedError
from headprobe.load.checkpoint import Checkpoint, load_checkpoint
from headprobe.settings import LoadOptions
from tests.conftest import SAMPLES, Run, edit_json

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 37,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
T5: dict[str, Any] = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
PICTURES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
DECODER: dict[str, Any] = {"decoder_hidden_size": 32, "decoder_intermediate_size": 37, "decoder_num_hidden_layers": 1}
CopyOf = Callable[[str], Path]


def load(folder: Path, **options: Any) -> Checkpoint:
    return load_checkpoint(str(folder), LoadOptions(device="cpu", **options))


def save(name: str, config: Any, folder: Path) -> Any:
    model = getattr(transformers, name)(config).eval()
    model.save_pretrained(folder)
    return model


def change(folder: Path, breaks: Callable[[dict[str, Any]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    breaks(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def config_for(name: str) -> Any:
    if name.startswith("T5"):
        return transformers.T5Config(
            **{**T5, "decoder_start_token_id": 0, "tie_word_embeddings": "Encoder" not in name}
        )
    if name.startswith("ViTMAE"):
        return transformers.ViTMAEConfig(**PICTURES, **DECODER, decoder_num_attention_heads=4)
    family = name.split("For")[0].split("LMHead")[0].removesuffix("Model")
    sizes = PICTURES if family == "ViT" else SIZES
    if family == "GPT2":
        sizes = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return getattr(transformers, f"{family}Config")(**sizes)


@pytest.mark.parametrize(
    ("name", "scanned"),
    [
        ("BertModel", "BertModel"),
        ("BertForMaskedLM", "BertModel"),
        ("BertForSequenceClassification", "BertModel"),
        ("BertForQuestionAnswering", "BertModel"),
        ("AlbertForMaskedLM", "AlbertModel"),
        ("RobertaForTokenClassification", "RobertaModel"),
        ("LlamaForCausalLM", "LlamaModel"),
        ("GPT2LMHeadModel", "GPT2Model"),
        ("T5ForConditionalGeneration", "T5Model"),
        ("T5EncoderModel", "T5EncoderModel"),
        ("ViTForImageClassification", "ViTModel"),
        ("ViTMAEForPreTraining", "ViTMAEForPreTraining"),
        ("ViTMAEModel", "ViTMAEModel"),
    ],
)
def test_the_class_of_the_config_is_loaded_and_its_attention_scanned(name: str, scanned: str, tmp_path: Path) -> None:
    saved = save(name, config_for(name), tmp_path)
    found = load(tmp_path)
    assert (type(found.task_model).__name__, type(found.model).__name__) == (name, scanned)
    assert (found.notes, found.missing_in_head) == ([], ())
    assert found.config._attn_implementation == "eager"
    for path, weight in saved.named_parameters():
        if "pooler" not in path:
            assert torch.equal(weight, found.task_model.get_parameter(path)), path


def test_the_bare_model_of_t5_computes_with_the_parts_of_the_one_that_writes(tmp_path: Path) -> None:
    save("T5ForConditionalGeneration", config_for("T5"), tmp_path)
    found = load(tmp_path)
    ids = {"input_ids": torch.tensor([[5, 7, 1]]), "decoder_input_ids": torch.tensor([[0, 9]])}
    with torch.inference_mode():
        bare = found.model(**ids).last_hidden_state
        whole = found.task_model(**ids, output_hidden_states=True).decoder_hidden_states[-1]
    assert torch.equal(bare, whole)
    assert {id(p) for p in found.model.parameters()} <= {id(p) for p in found.task_model.parameters()}
    assert not any(p.is_meta for p in found.model.parameters())
    assert found.task_model.generate(ids["input_ids"], max_new_tokens=3).shape[1] > 1


def test_a_head_that_is_not_there_is_no_error_and_always_the_same(tmp_path: Path) -> None:
    save("BertModel", config_for("BertModel"), tmp_path)
    edit_json(tmp_path / "config.json", architectures=["BertForSequenceClassification"])
    before = torch.random.get_rng_state()
    first, second = load(tmp_path), load(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.missing_in_head == ("classifier.bias", "classifier.weight")
    assert torch.equal(first.task_model.classifier.weight, second.task_model.classifier.weight)


def test_a_head_of_another_size_is_no_error(tmp_path: Path) -> None:
    save("BertForSequenceClassification", config_for("BertModel"), tmp_path)
    edit_json(tmp_path / "config.json", id2label={str(i): str(i) for i in range(5)}, label2id=None)
    assert "classifier.weight" in load(tmp_path).missing_in_head


def test_a_decoder_with_attention_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    save("ViTMAEModel", config_for("ViTMAEModel"), tmp_path)
    edit_json(tmp_path / "config.json", architectures=["ViTMAEForPreTraining"])
    with pytest.raises(InputError, match="weights are not in") as told:
        load(tmp_path)
    assert told.value.code == "E-MISSING"


@pytest.mark.parametrize(
    "name", ["BertForSequenceClassificatoin", "RobertaForMaskedLM", "AutoModel", "__class__", "os"]
)
def test_a_class_of_something_else_is_not_taken(name: str, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "config.json", architectures=[name])
    found = load(folder)
    assert type(found.task_model).__name__ == "BertModel"
    assert [f"config.json names {name}" in note for note in found.notes] == [True]


def test_a_type_that_automodel_does_not_know_is_loaded(tmp_path: Path) -> None:
    parts = transformers.BertConfig(**SIZES), transformers.BertConfig(**SIZES)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*parts)
    save("EncoderDecoderModel", config, tmp_path)
    edit_json(tmp_path / "config.json", architectures=None)
    assert type(load(tmp_path).model).__name__ == "EncoderDecoderModel"


@pytest.mark.parametrize("dtype", ["auto", "float16", "bfloat16", "float32"])
def test_half_precision_is_loaded_as_asked(dtype: str, tmp_path: Path) -> None:
    save("LlamaForCausalLM", config_for("LlamaForCausalLM"), tmp_path / "whole")
    transformers.LlamaForCausalLM.from_pretrained(tmp_path / "whole", dtype="bfloat16").save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "whole")
    found = {parameter.dtype for parameter in load(tmp_path, dtype=dtype).task_model.parameters()}
    assert found == {getattr(torch, "bfloat16" if dtype == "auto" else dtype)}


def test_a_shard_without_a_tensor_that_it_promises_is_refused(tmp_path: Path) -> None:
    transformers.BertForMaskedLM.from_pretrained(SAMPLES / "tiny-bert").save_pretrained(
        tmp_path, max_shard_size="500KB"
    )
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    name = "bert.encoder.layer.1.attention.self.query.weight"
    path = tmp_path / index[name]
    save_file({key: value for key, value in load_file(path).items() if key != name}, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=name) as told:
        load(tmp_path)
    assert told.value.code == "E-INDEX"


def test_floats_of_8_bits_without_their_scales_are_refused(copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    name = "bert.encoder.layer.1.attention.self.query.weight"
    change(folder, lambda tensors: tensors.update({name: tensors[name].to(torch.float8_e4m3fn)}))
    with pytest.raises(InputError, match="1 8-bit float weights") as told:
        load(folder)
    assert told.value.code == "E-DTYPE"


# --- Sentence Transformers --------------------------------------------------------------------------------------


def sentence_transformer(folder: Path, path: str) -> None:
    kind = "sentence_transformers.models.Transformer"
    pooling = {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}
    listing = [{"idx": 0, "name": "0", "path": path, "type": kind}, pooling]
    (folder / "modules.json").write_text(json.dumps(listing))


@pytest.mark.parametrize("path", ["", "0_Transformer"])
def test_a_folder_of_sentence_transformers_is_scanned(path: str, run: Run, tmp_path: Path) -> None:
    shutil.copytree(SAMPLES / "tiny-bert", tmp_path / "st" / path)
    sentence_transformer(tmp_path / "st", path)
    options = ("--limit", 2, "--metrics", "rcos", "--format", "csv")
    found = run("scan", tmp_path / "st", *options)
    assert found == run("scan", SAMPLES / "tiny-bert", *options)
    assert found.code == 0


def test_a_real_folder_of_sentence_transformers_is_loaded(minilm: Path) -> None:
    assert (minilm / "modules.json").is_file()
    assert type(load(minilm).model).__name__ == "BertModel"


@pytest.mark.parametrize("path", ["../outside", "/etc"])
def test_a_folder_of_sentence_transformers_names_no_other_folder(path: str, tmp_path: Path) -> None:
    (tmp_path / "st").mkdir()
    shutil.copytree(SAMPLES / "tiny-bert", tmp_path / "outside")
    sentence_transformer(tmp_path / "st", path)
    with pytest.raises(RefusedError, match="points outside the folder"):
        load(tmp_path / "st")


# --- quantised --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "package"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
        ({"quant_method": "quanto"}, "optimum-quanto"),
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_method": "hqq"}, "hqq"),
    ],
)
def test_the_package_of_a_quantised_checkpoint_is_named(
    settings: dict[str, Any], package: str, run: Run, copy_of: CopyOf
) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "config.json", quantization_config=settings)
    for command in ("scan", "inspect"):
        found = run(command, folder)
        assert (found.code, found.out, len(found.err.splitlines())) == (4, "", 1)
        assert f"{package}" in found.err.split("error[E-QUANT]: ")[1]


def test_weights_of_8_bits_are_multiplied_by_their_scales(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    sizes = {**SIZES, "hidden_size": 128, "intermediate_size": 128, "num_key_value_heads": 4}
    saved = save("LlamaForCausalLM", transformers.LlamaConfig(**sizes), tmp_path)

    def pack(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.endswith("proj.weight")]:
            scale = tensors[name].abs().max() / 448
            tensors[name] = (tensors[name] / scale).to(torch.float8_e4m3fn)
            tensors[f"{name}_scale_inv"] = scale.reshape(1, 1)

    change(tmp_path, pack)
    quantization = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    edit_json(tmp_path / "config.json", quantization_config=quantization)
    found = load(tmp_path)
    assert any("de-quantised" in note for note in found.notes)
    name = "model.layers.1.self_attn.q_proj.weight"
    expected, weight = saved.get_parameter(name).detach(), found.task_model.get_parameter(name)
    assert float((expected - weight.float()).abs().max()) < float(expected.abs().max()) / 16
    assert not torch.equal(expected, weight.float())


# --- own code ---------------------------------------------------------------------------------------------------

CODE = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

class OwnConfig(PretrainedConfig):
    model_type = "own-attention"
    def __init__(self, hidden_size=16, num_attention_heads=2, vocab_size=4096, **kwargs):
        super().__init__(**kwargs)
        self.hidden_size, self.num_attention_heads, self.vocab_size = hidden_size, num_attention_heads, vocab_size

class OwnAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.num_attention_heads
        self.q, self.k = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(2))
    def forward(self, x, mask):
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scores = split(self.q(x)) @ split(self.k(x)).mT
        scores = scores.masked_fill(~mask[:, None, None, :].bool(), torch.finfo(scores.dtype).min)
        return (torch.softmax(scores, dim=-1) @ split(x)).transpose(1, 2).flatten(2)

class OwnBase(PreTrainedModel):
    config_class, base_model_prefix, main_input_name = OwnConfig, "own", "input_ids"

class OwnModel(OwnBase):
    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(OwnAttention(config) for _ in range(2))
        self.post_init()
    def get_input_embeddings(self):
        return self.embed
    def forward(self, input_ids, attention_mask=None):
        x = self.embed(input_ids)
        for layer in self.layers:
            x = x + layer(x, attention_mask)
        return x

class OwnForTagging(OwnBase):
    def __init__(self, config):
        super().__init__(config)
        self.own = OwnModel(config)
        self.tags = nn.Linear(config.hidden_size, 3)
        self.post_init()
    def get_input_embeddings(self):
        return self.own.embed
    def forward(self, input_ids, attention_mask=None):
        return self.tags(self.own(input_ids, attention_mask))
"""
OWN = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}


def own_checkpoint(folder: Path, auto_map: dict[str, str]) -> None:
    code: dict[str, Any] = {"__name__": "own_for_tests"}
    exec(CODE, code)
    torch.manual_seed(0)
    code["OwnForTagging"](code["OwnConfig"]()).save_pretrained(folder)
    (folder / "own.py").write_text(CODE)
    edit_json(folder / "config.json", auto_map=auto_map, architectures=["OwnForTagging"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SAMPLES / "tiny-bert" / name, folder / name)


@pytest.mark.parametrize(
    "auto_map", [OWN, {**OWN, "AutoModelForTokenClassification": "own.OwnForTagging"}], ids=["unnamed", "named"]
)
def test_own_code_is_run_if_trusted_and_never_else(
    auto_map: dict[str, str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / f"own{len(auto_map)}"
    own_checkpoint(folder, auto_map)
    refused = run("scan", folder)
    assert (refused.code, refused.out) == (5, "")
    assert "error[E-REMOTE]" in refused.err
    assert not (tmp_path / "modules").exists()
    found = load(folder, trust_remote_code=True)
    assert (type(found.task_model).__name__, type(found.model).__name__) == ("OwnForTagging", "OwnModel")
    assert found.missing_in_head == ()
    scanned = run("scan", folder, "--trust-remote-code", "--limit", 3, "--metrics", "rcos", "--format", "csv")
    assert (scanned.code, scanned.out.count("\n")) == (0, 1 + 2 * 2), scanned.err


def test_errors_of_ours_stay_ours(tmp_path: Path) -> None:
    with pytest.raises(HeadprobeError, match="no folder"):
        load(tmp_path / "nope")
