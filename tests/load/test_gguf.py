"""A model in a GGUF file gives the numbers of the checkpoint that it was made from."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from headprobe.errors import HeadprobeError
from headprobe.load import gguf as ours
from headprobe.load.checkpoint import load_checkpoint
from headprobe.settings import LoadOptions
from tests.conftest import Run

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
OUTER = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}  # fmt: skip


def named(name: str) -> str:
    if name in OUTER:
        return OUTER[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def rotated(weight: Any, heads: int) -> Any:
    """llama.cpp keeps the two halves of a head's rotations side by side."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., tuple[Path, Any]]:
    def make(*, packed: bool = False, merges: tuple[str, ...] = ()) -> tuple[Path, Any]:
        gguf = pytest.importorskip("gguf")
        pytest.importorskip("accelerate")
        torch.manual_seed(0)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES)).eval()
        path = tmp_path / "tiny.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(64)
        writer.add_embedding_length(64)
        writer.add_block_count(2)
        writer.add_feed_forward_length(96)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_dimension_count(16)
        writer.add_vocab_size(96)
        if merges:
            writer.add_tokenizer_model("gpt2")
            writer.add_token_list([f"{chr(33 + number % 94)}{'' if number < 94 else 'x'}" for number in range(96)])
            writer.add_token_types([1] * 96)
            writer.add_token_merges(list(merges))
            writer.add_eos_token_id(3)
        for name, parameter in model.named_parameters():
            weight = parameter.detach().numpy()
            heads = 4 if "q_proj" in name else 2 if "k_proj" in name else 0
            weight = rotated(weight, heads) if heads else weight
            kind = gguf.GGMLQuantizationType.Q8_0
            if packed and "proj" in name:
                writer.add_tensor(named(name), gguf.quantize(weight, kind), raw_dtype=kind)
            else:
                writer.add_tensor(named(name), weight)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path, model

    return make


def load(path: Path, **options: Any) -> Any:
    return load_checkpoint(str(path), LoadOptions(device="cpu", **options))


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("packed", [False, True])
def test_a_gguf_file_is_read(packed: bool, direct: bool, made: Callable[..., tuple[Path, Any]]) -> None:
    path, model = made(packed=packed)
    found = load(path) if direct else load(path.parent, gguf_file=path.name)
    assert type(found.model).__name__ == "LlamaModel"
    assert [path] == list(found.files)
    assert any("de-quantised" in note for note in found.notes)
    assert {weight.dtype for weight in found.task_model.parameters()} == {torch.float32}
    ids = torch.tensor([[3, 17, 5, 80]])
    with torch.inference_mode():
        expected = model.set_attn_implementation("eager") or model(ids, output_attentions=True).attentions
        attentions = found.model(ids, output_attentions=True).attentions
    for mine, theirs in zip(attentions, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-2 if packed else 1e-6)


A_FEW = ("--limit", 2, "--metrics", "rcos", "--format", "csv")


def test_the_tokenizer_in_the_file_is_used_and_nothing_else_is_printed(
    run: Run, made: Callable[..., tuple[Path, Any]]
) -> None:
    path, _ = made(merges=("! x",))
    found = run("scan", path, *A_FEW)
    assert (found.code, found.err, found.out.count("\n")) == (0, "", 1 + 2 * 4)


def test_a_tokenizer_in_the_file_that_is_broken_is_one_line(run: Run, made: Callable[..., tuple[Path, Any]]) -> None:
    path, _ = made(merges=("a b",))  # whose sum is no token
    found = run("scan", path, *A_FEW)
    assert (found.code, found.out, len(found.err.splitlines())) == (3, "", 1)
    assert "holds no tokenizer that can be read" in found.err


def test_a_gguf_file_takes_no_base(made: Callable[..., tuple[Path, Any]]) -> None:
    path, _ = made()
    refused(path, "E-OPTION", "no adapter", code=2, base_model="gpt2")
    refused(path.parent, "E-OPTION", "no adapter", code=2, base_model="gpt2", gguf_file=path.name)


def refused(path: Path, error: str, says: str, code: int = 3, **options: Any) -> None:
    with pytest.raises(HeadprobeError, match=says) as told:
        load(path, **options)
    assert (told.value.exit_code, told.value.code) == (code, error)


@pytest.mark.parametrize("content", [b"", b"nope", b"GGUF", b"GGUF" + b"\x03" + b"\xff" * 40], ids=len)
def test_what_is_no_gguf_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(content)
    refused(tmp_path / "x.gguf", "E-GGUF", r"x\.gguf")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_is_refused(part: float, made: Callable[..., tuple[Path, Any]]) -> None:
    path, _ = made()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(HeadprobeError, match=r"tiny\.gguf") as told:
        load(path)
    assert told.value.exit_code == 3


def test_the_files_that_are_there_are_named(made: Callable[..., tuple[Path, Any]]) -> None:
    path, _ = made()
    refused(path.parent, "E-GGUF", "no file other.gguf", gguf_file="other.gguf")
    refused(path, "E-OPTION", "are two files", code=2, gguf_file="other.gguf")
    refused(path.parent, "E-FORMAT", "holds GGUF")


def test_the_extra_is_named_where_the_package_is_not_installed(
    run: Run, made: Callable[..., tuple[Path, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = made()
    there = importlib.util.find_spec
    monkeypatch.setattr(ours, "find_spec", lambda name: None if name == "gguf" else there(name))
    found = run("scan", path)
    assert (found.code, found.out, len(found.err.splitlines())) == (4, "", 1)
    assert "headprobe[gguf]" in found.err
