"""Which part of a model is scanned."""

from typing import Any

from transformers import BertConfig, BertForSequenceClassification, DINOv3ViTConfig, DINOv3ViTModel

from headprobe.load.architecture import scanned


def test_a_head_is_left_out() -> None:
    task = BertForSequenceClassification(BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1))
    assert scanned(task) is task.bert


def test_a_base_that_does_not_take_the_inputs_is_no_model_of_its_own() -> None:
    size: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    }
    task = DINOv3ViTModel(DINOv3ViTConfig(image_size=32, patch_size=16, **size))
    assert task.base_model is not task
    assert scanned(task) is task
