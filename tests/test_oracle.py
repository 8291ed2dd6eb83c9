"""Scans of the sample checkpoints and of MiniLM against the slow float64 implementation over transformers' own maps.

The oracle sees each text alone, without padding or batches; headprobe pads, batches and tiles.
"""

import json
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import headprobe
from headprobe.budget import FLOAT, TILES
from headprobe.load.images import built_in_images
from tests.conftest import SAMPLES
from tests.oracle import Maps, head_metrics, layer_metrics, pair_metrics, sequence_metrics
from tests.oracle_types import type_metrics

MAX_LENGTH = 40
RELATIVE, ABSOLUTE = 1e-4, 1e-6
SAMPLED = ("tiny-bert", "tiny-llama", "tiny-bart", "tiny-vit")
# Batch sizes, tiles of all rows and of so many rows of the largest layer.
WAYS: tuple[dict[str, Any], ...] = (
    {"batch_size": 1}, {"batch_size": 8}, {"batch_size": 8, "rows": 1}, {"batch_size": 8, "rows": 7}, {},
)  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """For each site, in order of execution: its kind and the maps of every sequence."""

    folder: Path
    kinds: list[str]
    maps: list[list[Maps]]
    texts: list[str]


def _texts() -> list[str]:
    lines = (SAMPLES / "texts" / "mixed.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines][:10]


@cache
def _truth(folder: Path) -> Truth:
    model: Any = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    if model.main_input_name == "pixel_values":
        inputs = [{"pixel_values": item.ids[None]} for item in built_in_images(model.config, folder, 8).inputs]
        return _collect(folder, model, inputs, [], [None] * len(inputs))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    texts = _texts()
    longest = min(MAX_LENGTH, tokenizer.model_max_length)
    encoded = [tokenizer(t, truncation=True, max_length=longest, return_special_tokens_mask=True) for t in texts]
    inputs = [{"input_ids": torch.tensor([e["input_ids"]])} for e in encoded]
    if model.config.is_encoder_decoder:
        for item in inputs:
            start = torch.tensor([[model.config.decoder_start_token_id]])
            item["decoder_input_ids"] = torch.cat([start, item["input_ids"][:, :-1]], 1)
    points = {i for e in encoded for i in e["input_ids"] if _is_punctuation(tokenizer.decode([i]).strip())}
    marked: list[np.ndarray | None] = [
        np.array([e["special_tokens_mask"], [i in points for i in e["input_ids"]]], bool) for e in encoded
    ]
    return _collect(folder, model, inputs, texts, marked)


def _is_punctuation(word: str) -> bool:
    return bool(word) and all(unicodedata.category(letter)[0] == "P" for letter in word)


def _collect(folder: Path, model: Any, inputs: list[Any], texts: list[str], special: list[np.ndarray | None]) -> Truth:
    kinds: list[str] = []
    maps: list[list[Maps]] = []
    for item, marked in zip(inputs, special, strict=True):
        with torch.inference_mode():
            found = list(_attentions(model, model(**item, output_attentions=True), marked))
        if not maps:
            kinds, maps = [kind for kind, _ in found], [[] for _ in found]
        for site, (_, of_sequence) in zip(maps, found, strict=True):
            site.append(of_sequence)
    return Truth(folder, kinds, maps, texts)


def _attentions(model: Any, out: Any, special: np.ndarray | None) -> Any:
    """Kind and maps of each attention call, in order of execution. `special` [2, key]: special tokens, punctuation."""

    def maps_of(attention: torch.Tensor, kind: str, marked: np.ndarray | None) -> tuple[str, Maps]:
        probs = attention[0].double().numpy()
        support = np.tril(np.ones(probs.shape[1:], bool)) if kind == "decoder" else np.ones(probs.shape[1:], bool)
        special, delimiter = (None, None) if marked is None else marked
        return kind, Maps(probs, support, special, kind != "cross", delimiter)

    if not getattr(model.config, "is_encoder_decoder", False):
        kind = "decoder" if model.config.model_type == "llama" else "encoder"
        yield from (maps_of(attention, kind, special) for attention in out.attentions)
        return
    yield from (maps_of(attention, "encoder", special) for attention in out.encoder_attentions)
    assert special is not None
    shifted = np.concatenate([[[True], [False]], special[:, :-1]], 1)
    for own, cross in zip(out.decoder_attentions, out.cross_attentions, strict=True):
        yield maps_of(own, "decoder", shifted)
        yield maps_of(cross, "cross", special)


@pytest.fixture(params=[*SAMPLED, pytest.param("minilm", marks=pytest.mark.slow)])
def truth(request: pytest.FixtureRequest) -> Truth:
    name: str = request.param
    return _truth(request.getfixturevalue("minilm") if name == "minilm" else SAMPLES / name)


def _scan(truth: Truth, rows: int | None = None, **options: Any) -> headprobe.Report:
    if rows is not None:
        shapes = [each.probs.shape for maps in truth.maps for each in maps]
        heads, keys = (max(shape[axis] for shape in shapes) for axis in (0, 2))
        options["max_memory"] = str(TILES * rows * options["batch_size"] * heads * keys * FLOAT)
    if not truth.texts:
        return headprobe.scan(truth.folder, limit=8, **options)
    targets = truth.texts if "cross" in truth.kinds else None  # a text as its own target is read shifted right
    return headprobe.scan(truth.folder, texts=truth.texts, targets=targets, max_length=MAX_LENGTH, **options)


def _close(found: Any, expected: Any, what: str) -> None:
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    np.testing.assert_allclose(found, expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True, err_msg=what)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_column_agrees_with_the_oracle(truth: Truth, way: dict[str, Any]) -> None:
    report = _scan(truth, **way)
    assert list(report.layers["kind"]) == truth.kinds
    assert len(report.inputs) == len(truth.maps[0])
    for site, maps in enumerate(truth.maps):
        _check_heads(report, site, maps)
        _check_pairs(report, site, maps)
        _check_layer(report, site, maps)
        _check_sequences(report, site, maps)


def _check_heads(report: headprobe.Report, site: int, maps: list[Maps]) -> None:
    heads = report.heads[report.heads["site"] == site]
    nothing = [None] * len(maps)
    expected = head_metrics(maps) | type_metrics(maps, [m.delimiter for m in maps], nothing, not maps[0].positions)
    measured = set(heads.columns) - {"sink_virtual", "nearest_layer", "nearest_head", "nearest_js"}
    numbers = {name for name in measured if pd.api.types.is_float_dtype(heads[name])}
    assert numbers == set(expected), numbers ^ set(expected)
    for name, column in expected.items():
        _close(heads[name], column, f"{name} of site {site}")
    assert list(heads["queries"]) == [sum(m.probs.shape[1] for m in maps)] * len(heads)


def _check_pairs(report: headprobe.Report, site: int, maps: list[Maps]) -> None:
    expected = pair_metrics(maps)
    pairs = report.pairs[report.pairs["site_a"] == site]
    heads = maps[0].probs.shape[0]
    assert len(pairs) == heads * (heads - 1) // 2
    a, b = pairs["head_a"], pairs["head_b"]
    for name, matrix in (("cos", "cos"), ("js", "js"), ("bc", "bc"), ("kl_ab", "kl")):
        _close(pairs[name], expected[matrix][a, b], f"{name} of site {site}")
    _close(pairs["kl_ba"], expected["kl"][b, a], f"kl_ba of site {site}")
    js = expected["js"] + np.diag([np.inf] * heads)
    _close(report.heads.loc[report.heads["site"] == site, "nearest_js"], js.min(1), "nearest_js")


def _check_layer(report: headprobe.Report, site: int, maps: list[Maps]) -> None:
    layer = report.layers[report.layers["site"] == site].iloc[0]
    for name, value in layer_metrics(maps).items():
        _close(layer[name], value, f"{name} of site {site}")


def _check_sequences(report: headprobe.Report, site: int, maps: list[Maps]) -> None:
    rows = report.sequences[report.sequences["site"] == site]
    for name, matrix in sequence_metrics(maps).items():
        _close(rows[name].to_numpy().reshape(matrix.shape), matrix, f"{name} of site {site} by sequence")


def test_batches_and_tiles_change_nothing(truth: Truth) -> None:
    first = _scan(truth, **WAYS[0])
    for way in WAYS[1:]:
        other = _scan(truth, **way)
        for table in ("heads", "layers", "pairs", "sequences", "baselines"):
            mine, theirs = getattr(first, table), getattr(other, table)
            numbers = [name for name in mine if pd.api.types.is_float_dtype(mine[name])]
            np.testing.assert_allclose(mine[numbers], theirs[numbers], rtol=1e-5, atol=1e-5, err_msg=f"{table}, {way}")
