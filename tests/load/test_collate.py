"""A text gives the same numbers alone and in a padded batch, whatever the architecture does with positions."""

from pathlib import Path
from typing import Any

import pytest
import torch

from headprobe.load.checkpoint import Checkpoint
from headprobe.load.collate import Input, batches, model_limit
from headprobe.load.hub import Source
from tests.capture.models import CONFIGS, ENCODER_DECODERS, IMAGES, build

TEXT_FAMILIES = [name for name in CONFIGS if name not in IMAGES]


def checkpoint(model: Any) -> Checkpoint:
    return Checkpoint(model, model.config, Source(Path(), "random"))


def some_inputs() -> list[Input]:
    return [Input(i, torch.randint(5, 97, (length,))) for i, length in enumerate((4, 9, 13, 6))]


@pytest.mark.parametrize("family", TEXT_FAMILIES)
def test_a_padded_batch_computes_what_each_text_alone_does(family: str) -> None:
    model = build(family)
    sequences = some_inputs()
    (batch,) = batches(sequences, checkpoint(model), pad=0, size=8)
    with torch.inference_mode():
        together = model(**batch.inputs)[0]
        assert batch.numbers is not None
        for row, number in enumerate(batch.numbers):
            ids = sequences[number].ids[None]
            alone = {"input_ids": ids}
            if family in ENCODER_DECODERS:
                start = torch.tensor([[getattr(model.config, "decoder_start_token_id", 0)]])
                alone["decoder_input_ids"] = torch.cat([start, ids[:, :-1]], 1)
            expected = model(**alone)[0][0]
            assert torch.allclose(together[row, : ids.shape[1]], expected, rtol=1e-4, atol=1e-4), (family, number)


@pytest.mark.parametrize(("family", "limit"), [("roberta", 512 - 2), ("bert", 512), ("llama", 2048), ("bloom", 10**9)])
def test_the_limit_is_that_of_the_positions(family: str, limit: int) -> None:
    assert model_limit(checkpoint(build(family))) == limit


def test_batches_hold_every_sequence_once_and_pad_on_the_right() -> None:
    model = build("bert")
    sequences = [Input(i, torch.full((1 + i % 7,), 5 + i % 50)) for i in range(40)]
    found: list[int] = []
    for batch in batches(sequences, checkpoint(model), pad=0, size=6):
        mask = batch.inputs["attention_mask"]
        assert bool((mask[:, :1] == 1).all())
        assert bool((mask.diff() <= 0).all())
        assert batch.numbers is not None
        found += batch.numbers
    assert sorted(found) == list(range(40))
