"""Folders that hold their model elsewhere, settings of quantised weights, and models that are built but not loaded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from headprobe.errors import InputError, RefusedError
from headprobe.load.architecture import skeleton
from headprobe.load.checkpoint import load_checkpoint, open_config
from headprobe.load.layout import transformer_folder
from headprobe.settings import LoadOptions
from tests.conftest import SAMPLES, edit_json

OPTIONS = LoadOptions(device="cpu")
CopyOf = Callable[[str], Path]


def lists(folder: Path, kind: str, path: str) -> None:
    (folder / "modules.json").write_text(json.dumps([{"path": path, "type": f"sentence_transformers.{kind}"}]))


@pytest.mark.parametrize("kind", ["models.Transformer", "models.CLIPModel", "base.modules.transformer.Transformer"])
def test_the_module_with_attention_is_found(kind: str, tmp_path: Path) -> None:
    lists(tmp_path, kind, "0_X")
    assert transformer_folder(tmp_path) == tmp_path / "0_X"


def test_a_path_that_is_none_is_refused(tmp_path: Path) -> None:
    lists(tmp_path, "models.Transformer", "a\0b")
    with pytest.raises(RefusedError, match="outside the folder"):
        transformer_folder(tmp_path)


@pytest.mark.parametrize("settings", [7, [], {}, {"quant_method": [1]}, {"quant_method": {"a": 1}}, ""])
def test_a_quantisation_that_is_none_is_refused(settings: Any, copy_of: CopyOf) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "config.json", quantization_config=settings)
    with pytest.raises(InputError, match="unknown quantization"):
        load_checkpoint(str(folder), OPTIONS)


def test_plain_weights_in_a_dequantised_checkpoint_get_the_dtype_asked_for(copy_of: CopyOf) -> None:
    pytest.importorskip("accelerate")
    folder = copy_of("tiny-bert")
    halves = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(folder / "config.json", quantization_config={"quant_method": "fp8"})
    found = {parameter.dtype for parameter in load_checkpoint(str(folder), OPTIONS).task_model.parameters()}
    assert found == {torch.float32}


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-llama", "tiny-bart", "tiny-vit"])
def test_a_skeleton_is_the_model_without_its_values(name: str) -> None:
    loaded = load_checkpoint(str(SAMPLES / name), OPTIONS).task_model
    _, looked, config = open_config(str(SAMPLES / name), OPTIONS)
    with torch.device("meta"):
        built = skeleton(config, looked.folder, OPTIONS)
    assert type(built) is type(loaded)
    assert not built.training
    assert built.config._attn_implementation == "eager"
    assert {parameter.device.type for parameter in built.parameters()} == {"meta"}
    shapes = ({key: value.shape for key, value in model.named_parameters()} for model in (built, loaded))
    assert next(shapes) == next(shapes)


def test_a_folder_of_clip_is_scanned_where_it_says(tmp_path: Path) -> None:
    lists(tmp_path, "models.CLIPModel", "0_CLIPModel")
    shutil.copytree(SAMPLES / "tiny-vit", tmp_path / "0_CLIPModel")
    assert type(load_checkpoint(str(tmp_path), OPTIONS).model).__name__ == "ViTModel"
