"""What a user gets does not depend on where padding is: whole scans of one batch padded left and right."""

from typing import Any

import pandas as pd
import pytest
import torch
import transformers as hf
from torch import Tensor

import headprobe
from headprobe.report import Report
from tests.capture.models import build

LENGTHS = (13, 9, 4)


def padded(*, left: bool) -> dict[str, Tensor]:
    """Three sequences of the same tokens, with positions as generate() gives them."""
    torch.manual_seed(3)
    longest = max(LENGTHS)
    ids, mask = torch.zeros(3, longest, dtype=torch.long), torch.zeros(3, longest, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        place = slice(longest - length, longest) if left else slice(0, length)
        ids[row, place] = torch.randint(5, 97, (length,))
        mask[row, place] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": positions}


def scan(model: Any, *, left: bool) -> Report:
    return headprobe.scan(model, batches=[padded(left=left)])


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen3", "gemma2", "gpt-neox"])
def test_left_and_right_padding_give_the_same_report(family: str) -> None:
    model = build(family)
    left, right = scan(model, left=True), scan(model, left=False)
    for table in ("heads", "layers", "pairs", "sequences"):
        pd.testing.assert_frame_equal(getattr(left, table), getattr(right, table), rtol=1e-4, atol=1e-6)


def test_sinks_and_windows_are_accounted_for() -> None:
    """gpt-oss: what the tokens of a row do not get, the sink does; and beyond the window there is nothing."""
    torch.manual_seed(0)
    config = hf.GptOssConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, vocab_size=97, num_local_experts=4, sliding_window=4, pad_token_id=0,
    )  # fmt: skip
    model = hf.AutoModel.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, std=1.0 if name.endswith("sinks") else 0.2)
    batch = padded(left=False)
    with torch.no_grad():
        own = model(**batch, output_attentions=True).attentions
    report = headprobe.scan(model, batches=[batch])
    assert float(report.heads["row_error"].max()) < 1e-6
    assert float(report.heads["leak"].max()) == 0
    valid = batch["attention_mask"].bool()
    for layer, probs in enumerate(own):
        rest = (1 - probs.double().sum(-1)).transpose(1, 2)[valid].mean(0)
        found = report.heads[report.heads["layer"] == layer]["sink_virtual"]
        assert torch.allclose(torch.tensor(found.to_numpy()), rest, atol=1e-6)
    assert report.layers["window"].isna().tolist() == [False, True]
