"""Long sequences: rows computed again, estimates, and a budget that is kept."""

import copy
import gc
import weakref
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import headprobe
from headprobe.budget import Budget, times_computed
from headprobe.errors import EnvironmentFailure, InputError
from headprobe.metrics import METRICS
from headprobe.metrics.approximate import ESTIMATED, ApproximateRedundancy
from headprobe.metrics.mask_grams import MaskRows, uniform_rows
from headprobe.metrics.row_grams import row_grams
from headprobe.testing import check_metric, sample_tile
from headprobe.tile import AttentionTile, Site
from tests.capture.models import CONFIGS
from tests.capture.watching import make

EXACT = METRICS["redundancy"]


def _cut(tile: AttentionTile, step: int) -> list[AttentionTile]:
    return [tile.cut(first, min(first + step, tile.queries)) for first in range(0, tile.queries, step)]


def _total(metric: Any, tiles: list[AttentionTile]) -> Any:
    return metric.compute(reduce(add, [metric.observe(tile) for tile in tiles]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_gram_by_blocks_is_the_gram(kind: Any, step: int, dtype: torch.dtype) -> None:
    tile = sample_tile(kind=kind, lengths=(23, 9, 1), heads=3)
    tile = replace(tile, probs=tile.probs.to(dtype))
    whole, cut = _total(EXACT, [tile]), _total(EXACT, _cut(tile, step))
    for name, column in whole.heads.items():
        assert torch.allclose(cut.heads[name], column, rtol=1e-5, atol=1e-7, equal_nan=True), name
        assert torch.allclose(cut.baseline[name], whole.baseline[name], rtol=1e-9, equal_nan=True), name


def _masked(structure: Tensor, *, sink: bool = False) -> AttentionTile:
    """Random attention under a mask, with padding; the last key may be a virtual one."""
    batch, queries = 2, structure.shape[-2]
    mask = torch.ones(batch, queries, dtype=torch.bool)
    mask[1, -3:] = False
    seen = structure.expand(batch, -1, -1) & mask[:, None]
    keys = mask
    if sink:
        seen, keys = (torch.nn.functional.pad(x, (0, 1), value=True) for x in (seen, mask))
        structure = torch.nn.functional.pad(structure, (0, 1), value=True)
    scores = 2 * torch.randn(batch, 3, *seen.shape[1:], generator=torch.Generator().manual_seed(1))
    probs = scores.masked_fill(~seen[:, None], -1e30).softmax(-1).float()
    site = Site(0, "site", "decoder", 0, 3, 3, sink)
    return AttentionTile.of(probs, site=site, query_mask=mask, key_mask=keys, structure=structure)


def _masks(length: int = 20) -> dict[str, Tensor]:
    at = torch.arange(length)
    causal = at[None] <= at[:, None]
    return {
        "causal": causal,
        "sliding": causal & (at[None] > at[:, None] - 5),
        "chunked": causal & (at[None] // 6 == at[:, None] // 6),
        "window": (at[None] - at[:, None]).abs() < 4,
        "holes": causal & ((at[None] % 3 != 1) | (at[None] == at[:, None])),
    }


@pytest.mark.parametrize("sink", [False, True])
@pytest.mark.parametrize("name", _masks())
def test_uniform_attention_in_closed_form_is_what_its_rows_give(name: str, sink: bool) -> None:
    tile = _masked(_masks()[name][None], sink=sink)
    masks = MaskRows()
    for part in _cut(tile, 6):
        masks.add(part)
    by_rows = row_grams(uniform_rows(replace(tile, probs=tile.probs.double())), lambda part: None)
    assert (masks.grams is None) == (name == "holes")
    if masks.grams is not None:
        assert torch.allclose(masks.grams, by_rows, rtol=1e-9, atol=1e-9)
    assert masks.rows().tolist() == [20, 17]
    assert masks.reached().tolist() == tile.reached.sum(-1).tolist()


@pytest.mark.parametrize("name", _masks())
def test_closed_form_without_compiled_loops(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = _masked(_masks()[name][None])
    found = []
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr("headprobe.metrics.mask_grams.kernels", lambda: None)
            monkeypatch.setattr("headprobe.metrics.mask_grams.ROWS", 64)
        masks = MaskRows()
        masks.add(tile)
        found.append(masks.grams)
    if found[0] is None:
        assert found[1] is None
    else:
        assert torch.allclose(found[0], found[1], rtol=1e-12)  # type: ignore[arg-type]  # both are tensors


def test_rows_that_nobody_can_compute_again_are_refused() -> None:
    tile = replace(sample_tile().cut(4, 9), source=None)
    with pytest.raises(InputError, match="can't be computed again"):
        EXACT.observe(tile)


def test_what_is_derived_from_a_tile_does_not_keep_it_alive() -> None:
    gc.disable()
    try:
        tile = sample_tile()
        tile = replace(tile, probs=tile.probs.float())
        seen = weakref.ref(tile.probs)
        for metric in METRICS.values():
            metric.observe(tile)
        del tile
        assert seen() is None
    finally:
        gc.enable()


# --- estimates --------------------------------------------------------------------------------------------------


def _patterns(n: int) -> dict[str, Tensor]:
    rng, at = torch.Generator().manual_seed(3), torch.arange(n)
    noise = torch.randn(n, n, generator=rng)
    sink = 0.1 * noise.softmax(-1)
    sink[:, 0] += 0.9
    band = torch.exp(-0.1 * (at[:, None] - at[None]).float() ** 2)
    two = torch.zeros(n, n)
    two[:, :2] = 0.5
    return {
        "uniform": torch.full((n, n), 1 / n),
        "sink": sink,
        "two keys": two,
        "band": band / band.sum(-1, keepdim=True),
        "peaked": (3 * noise).softmax(-1),
        "one-hot": torch.eye(n)[torch.randint(0, n, (n,), generator=rng)],
        "near-permutation": 0.95 * torch.eye(n)[torch.randperm(n, generator=rng)] + 0.05 / n,
    }


@pytest.mark.parametrize("causal", [False, True])
def test_estimates_lie_within_their_errors(causal: bool) -> None:
    n, draws = 1100, 20
    maps = torch.stack(list(_patterns(n).values()))[None]
    structure = None
    if causal:
        structure = torch.ones(1, n, n, dtype=torch.bool).tril()
        maps = maps.tril() + 1e-6 * torch.eye(n)
        maps = maps / maps.sum(-1, keepdim=True)
    truth = _total(EXACT, [AttentionTile.of(maps, structure=structure)])
    outside = []
    for draw in range(draws):
        tile = AttentionTile.of(maps, structure=structure, sequences=(draw,))
        found = _total(ApproximateRedundancy(), [tile])
        assert torch.allclose(found.heads["diffuse"], truth.heads["diffuse"], rtol=1e-5)
        for name in ESTIMATED:
            error = found.heads[f"{name}_se"]
            assert bool((error > 0).all()), name
            if name in ("overlap", "rcos"):  # which the others are made of
                outside.append((found.heads[name] - truth.heads[name]).abs() > 3 * error + 1e-9)
    assert float(torch.stack(outside).double().mean()) < 0.02  # a normal variable: 0.003


def test_estimates_do_not_depend_on_tiles_or_batches() -> None:
    n = 1100
    maps = torch.stack(list(_patterns(n).values())[3:5])[None]
    twice = AttentionTile.of(torch.cat([maps, maps.flip(1)]), sequences=(4, 9))
    metric = ApproximateRedundancy()
    together = _total(metric, [twice])
    apart = _total(metric, [part for b in (1, 0) for part in _cut(twice.select(b, b + 1), 275)])
    for name, column in together.heads.items():
        assert torch.allclose(apart.heads[name], column, rtol=2e-3, atol=1e-7), name  # rounding of long sums


def test_short_sequences_are_never_estimated() -> None:
    found, truth = _total(ApproximateRedundancy(), [sample_tile()]), _total(EXACT, [sample_tile()])
    assert all(torch.equal(found.heads[name], column) for name, column in truth.heads.items())
    assert all(not found.heads[f"{name}_se"].any() for name in ESTIMATED)
    check_metric(ApproximateRedundancy())


# --- scans ------------------------------------------------------------------------------------------------------


def _long(family: str, **options: Any) -> headprobe.Report:
    ids = torch.randint(5, 97, (1, 1200), generator=torch.Generator().manual_seed(0))
    config = CONFIGS[family]()
    config.max_position_embeddings = 2000
    return headprobe.scan(make(config), batches=[{"input_ids": ids}], **options)


@pytest.mark.parametrize("family", ["llama", "mistral", "bert"])
def test_a_long_scan_says_what_it_estimated(family: str) -> None:
    exact, found = _long(family, metrics=["redundancy"]), _long(family, metrics=["redundancy"], approx=True)
    apart = (exact.heads["rcos"] - found.heads["rcos"]).abs()
    assert (apart <= 4 * found.heads["rcos_se"] + 1e-7).all()
    assert any("--approx" in note for note in found.notes)
    assert not any("--approx" in note for note in exact.notes)
    assert not any(str(name).endswith("_se") for name in exact.heads)
    named = _long(family, metrics=["rcos"], approx=True)
    assert [name for name in map(str, named.heads) if name.endswith("_se")] == ["rcos_se"]


@pytest.mark.parametrize("family", ["llama", "mistral", "bert"])
def test_a_long_scan_in_a_small_budget_is_the_same(family: str) -> None:
    whole, cut = _long(family), _long(family, max_memory="2MiB", pairs="model")
    numbers = [name for name in map(str, whole.heads) if whole.heads[name].dtype == float and "nearest" not in name]
    assert (whole.heads[numbers] - cut.heads[numbers]).abs().max().max() < 1e-4
    within = cut.pairs[cut.pairs["site_a"] == cut.pairs["site_b"]].reset_index(drop=True)
    assert (within[["js", "bc", "cos"]] - whole.pairs[["js", "bc", "cos"]]).abs().max().max() < 1e-5


def test_what_is_not_finite_does_not_depend_on_the_budget() -> None:
    model = make(CONFIGS["llama"]())
    model.layers[1].self_attn.q_proj.weight.data[0, 0] = float("nan")
    ids = torch.randint(5, 97, (2, 40), generator=torch.Generator().manual_seed(0))
    whole, cut = (
        headprobe.scan(model, batches=[{"input_ids": ids}], allow_invalid=True, max_memory=memory, pairs="model")
        for memory in ("1GiB", "64KiB")
    )
    assert whole.heads["rcos"].isna().tolist() == [False] * 4 + [True] + [False] * 3
    pd.testing.assert_frame_equal(cut.heads, whole.heads, rtol=1e-5, atol=1e-6)


def test_estimates_of_queries_after_a_cache() -> None:
    n, before = 1100, 50
    ids = torch.randint(5, 97, (1, before + n), generator=torch.Generator().manual_seed(0))
    config = CONFIGS["llama"]()
    config.max_position_embeddings = 2000
    model = make(config)
    with torch.no_grad():
        cache = model(input_ids=ids[:, :before], use_cache=True).past_key_values
    given = {"input_ids": ids[:, before:], "past_key_values": cache, "use_cache": False}
    exact, found = (
        headprobe.scan(model, batches=[copy.deepcopy(given)], metrics=["redundancy"], approx=approx).heads
        for approx in (False, True)
    )
    assert ((exact["rcos"] - found["rcos"]).abs() <= 4 * found["rcos_se"] + 1e-7).all()


@pytest.mark.parametrize("family", ["bert", "llama"])  # masked attention begins with rows that see few keys
def test_a_budget_that_holds_no_row_is_refused(family: str) -> None:
    with pytest.raises(EnvironmentFailure, match=r"does not hold one query of 4 heads × 1,200 keys"):
        _long(family, max_memory="100KB")
    assert Budget(8 * 4 * 10 * 4).rows(1, 4, 10) == 1
    with pytest.raises(EnvironmentFailure, match=r"Lower --batch-size to 2"):
        Budget(8 * 4 * 10 * 4 * 2).rows(3, 4, 10)


def test_how_often_rows_are_computed() -> None:
    assert times_computed(100, 100) == 1
    assert times_computed(100, 50) == 2.5
    assert times_computed(100, 50, approx=True) == 3
