"""A whole scan waits for a device a few times a forward pass, however many layers and tiles there are."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import headprobe
from headprobe.budget import Budget
from headprobe.collect import Collector
from headprobe.engine.local import Workers
from headprobe.load.collate import Batch
from headprobe.metrics import METRICS
from headprobe.report import Report
from tests.capture import models
from tests.conftest import SAMPLES
from tests.metrics.test_devices import looking, tensors_of, without_values

FAMILIES = ("bert", "llama", "gemma2", "gpt2", "bart", "t5", "vit", "deberta-v2")
DEPTHS = ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_layers", "num_decoder_layers")
FEW = 16  # looks a forward pass: several at each mask that the model makes


def deep(family: str, layers: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    config = models.CONFIGS[family]()
    for name in DEPTHS:
        if hasattr(config, name):
            setattr(config, name, layers)
    if hasattr(config, "layer_types"):
        config.layer_types = [config.layer_types[i % 2] for i in range(layers)]
    with monkeypatch.context() as patch:
        patch.setitem(models.CONFIGS, family, lambda: config)
        return models.build(family)


def batches(family: str) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    return [models.inputs(family, lengths) for lengths in ((11, 7, 4), (11, 11, 11), (9, 3, 8))]


def by_pass(counts: Iterable[int]) -> list[int]:
    counts = list(counts)
    return [after - before for before, after in zip([0, *counts], counts, strict=False)]


def watched(model: Any, family: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Report, list[int]]:
    """The report of a scan as on an accelerator, and how often each pass looked at it beyond the model's own looks."""
    given, counts, own = batches(family), [0], [0]
    with looking(monkeypatch) as looks:
        report = headprobe.scan(
            model, batches=given, watch=lambda done, total: counts.append(looks.seen.total()), **options
        )
    with torch.no_grad(), looking(monkeypatch) as plain:
        for batch in given:
            model(**batch)
            own.append(plain.seen.total())
    return report, [ours - theirs for ours, theirs in zip(by_pass(counts[1:]), by_pass(own[1:]), strict=True)]


def same(one: Report, other: Report) -> None:
    for table in ("heads", "layers", "pairs", "sequences", "baselines"):
        pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "options"),
    [*((family, {}) for family in FAMILIES), *((family, {"pairs": "model"}) for family in FAMILIES[:-1])],
)
def test_a_pass_looks_as_often_at_many_layers_as_at_few(
    family: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    for layers in (2, 4):
        model = deep(family, layers, monkeypatch)
        report, counts = watched(model, family, monkeypatch, **options)
        same(report, headprobe.scan(model, batches=batches(family), **options))
        looks.append(counts[1:])
    assert looks[0] == looks[1]
    assert max(looks[0]) <= FEW


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in models.LEGACY])
def test_a_pass_looks_as_often_at_many_tiles_as_at_one(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = deep(family, 2, monkeypatch)
    looks = []
    for most in (272, 390):  # bytes of a tile: one or two rows of a sequence's 4 heads and 11 to 17 keys
        room = 8 * most
        report, counts = watched(model, family, monkeypatch, max_memory=room)
        same(report, headprobe.scan(model, batches=batches(family), max_memory=room))
        looks.append(counts[1:])
    assert looks[0] == looks[1]
    assert max(looks[0]) <= FEW


@pytest.mark.parametrize("special", ["drop-queries", "drop-keys"])
def test_special_tokens_are_left_out_as_they_are_here(special: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"special": special, "limit": 6, "batch_size": 2, "max_length": 24}
    expected = headprobe.scan(SAMPLES / "tiny-bert", **options)
    with looking(monkeypatch):
        found = headprobe.scan(SAMPLES / "tiny-bert", **options)
    same(found, expected)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("special", ["keep", "drop-queries", "drop-keys"])
def test_totals_lie_where_their_layers_do(special: str) -> None:
    """Tensors without values refuse to be looked at, and to be mixed with those of another device."""
    with FakeTensorMode(), Workers(1) as workers:
        collector = Collector(
            [*METRICS.values()], special=special, layers=None, kind=None, budget=Budget(2**30), across=False,
            workers=workers,
        )  # fmt: skip
        marks = torch.zeros(2, 7, dtype=torch.bool, device="lazy:0")
        for first in (0, 2):
            collector.begin(Batch({}, (first, first + 1), {"encoder": marks, "decoder": marks}))
            for layer, device in enumerate(("lazy:0", "lazy:1", "lazy:1")):
                tile = without_values("causal", device)
                collector.receive(replace(tile, site=replace(tile.site, index=layer, layer=layer)))
            collector.end([])
        for totals in (collector.totals, collector.baselines, collector.dropped):
            for site, total in totals.items():
                expected = torch.device("lazy:0" if site.layer == 0 else "lazy:1")
                assert {tensor.device for tensor in tensors_of(total)} == {expected}
