"""The compiled loops give what the torch code gives, for every metric and whatever a tile looks like."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headprobe.metrics import METRICS, Metric, Values, fused
from headprobe.metrics.kl import KL
from headprobe.testing import with_outputs
from headprobe.tile import AttentionTile, Site

MASKS = ("full", "causal", "window", "holes", "left", "nothing")


def attention(
    seed: int, mask: str, *, queries: int = 7, keys: int = 7, heads: int = 3, zeros: bool = False
) -> AttentionTile:
    """A float32 tile of three sequences, of which two are padded; with `zeros` half of the weights are exactly 0."""
    rng = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(3, heads, queries, keys, generator=rng)
    length = torch.tensor([1.0, 0.6, 0.3])
    key_mask = torch.arange(keys)[None] < (length * keys).ceil()[:, None]
    query_mask = torch.arange(queries)[None] < (length * queries).ceil()[:, None]
    if mask == "left":
        key_mask, query_mask = key_mask.flip(1), query_mask.flip(1)
    if mask == "nothing":
        query_mask = query_mask & (torch.arange(3) == 0)[:, None]
    near = torch.arange(queries)[:, None] - torch.arange(keys)[None]
    structure = {
        "causal": near >= 0,
        "window": (near >= 0) & (near < 3),
        "holes": (near * 7919 + seed) % 3 != 0,
    }.get(mask)
    structure = None if structure is None else structure[None] | (torch.arange(keys) == 0)
    seen = key_mask[:, None] if structure is None else key_mask[:, None] & structure
    if zeros:
        scores = scores.masked_fill(scores < 0, float("-inf"))
        scores[..., 0] = 0.0
    probs = scores.masked_fill(~seen[:, None], float("-inf")).softmax(-1)
    probs = probs.masked_fill(~query_mask[:, None, :, None], float("nan"))  # what padding holds is nobody's business
    special = torch.zeros_like(key_mask)
    special[:, ::3] = True
    site = Site(0, "site", "decoder" if mask in ("causal", "window") else "encoder", 0, heads, heads)
    tile = AttentionTile.of(
        probs.nan_to_num(0.5) if mask == "left" else probs,
        site=site,
        query_mask=query_mask,
        key_mask=key_mask,
        structure=structure,
        special_keys=special,
    )
    return with_outputs(tile, seed=seed)


def same(one: Values, other: Values, tolerance: float = 3e-6) -> None:
    for mine, theirs in ((one.heads, other.heads), (one.layers, other.layers), (one.pairs, other.pairs),
                         (one.sequences, other.sequences)):  # fmt: skip
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            close = torch.isclose(value.double(), theirs[name].double(), rtol=1e-5, atol=tolerance, equal_nan=True)
            assert close.all(), (name, value, theirs[name])


def measured(metric: Metric, tile: AttentionTile) -> Values:
    return metric.compute(metric.observe(tile))


def by_torch(metric: Metric, tile: AttentionTile, monkeypatch: pytest.MonkeyPatch) -> Values:
    with monkeypatch.context() as patch:
        patch.setattr(fused, "kernels", lambda: None)
        fresh = tile.select(0, len(tile.probs))
        assert fresh.once(fused.loops) is None
        return measured(metric, fresh)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6), mask=st.sampled_from(MASKS), zeros=st.booleans(), heads=st.integers(1, 5),
    queries=st.integers(1, 9), keys=st.integers(1, 9),
)  # fmt: skip
def test_loops_agree_with_torch(
    metric: Metric, seed: int, mask: str, zeros: bool, heads: int, queries: int, keys: int
) -> None:
    tile = attention(seed, mask, queries=queries, keys=keys, heads=heads, zeros=zeros)
    with pytest.MonkeyPatch.context() as patch:
        reference = by_torch(metric, tile, patch)
    assert tile.once(fused.loops) is not None
    same(measured(metric, tile), reference)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("mask", ["full", "causal", "window"])
def test_rows_longer_than_a_block(metric: Metric, mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = attention(1, mask, queries=300, keys=300, heads=4)
    same(measured(metric, tile), by_torch(metric, tile, monkeypatch))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_a_tile_need_not_lie_in_one_piece(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = attention(2, "causal", queries=9, keys=9, heads=4)
    cut = tile.cut(3, 8)
    assert not cut.probs.is_contiguous()
    if metric.shape == "rows":
        same(measured(metric, cut), by_torch(metric, cut, monkeypatch))
    whole = tile.select(1, 3)
    same(measured(metric, whole), by_torch(metric, whole, monkeypatch))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("mask", ["left", "causal"])
def test_masks_may_have_been_turned(metric: Metric, mask: str) -> None:
    tile = attention(6, mask)
    turned = {name: getattr(tile, name).T.contiguous().T for name in ("query_mask", "key_mask", "key_positions")}
    same(measured(metric, replace(tile, **turned)), measured(metric, tile))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_leaked_mass_is_not_lost(metric: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = attention(3, "causal", queries=200, keys=200)
    tile.probs[0, 1, 3, 150] = 0.25
    same(measured(metric, tile), by_torch(metric, tile, monkeypatch))


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("sign", [1.0, -1.0])  # which ∞ - ∞ has on some processors
def test_what_is_not_finite_stays_so(metric: Metric, sign: float, monkeypatch: pytest.MonkeyPatch) -> None:
    tile = attention(4, "full")
    tile.probs[0, 1, 2, 3] = torch.tensor(float("nan")).copysign(torch.tensor(sign))
    mine, theirs = measured(metric, tile), by_torch(metric, tile, monkeypatch)
    for name, value in theirs.heads.items():
        if name != "zero_frac":
            assert mine.heads[name][1].isnan() == value[1].isnan(), name
            assert not mine.heads[name][0].isnan() or value[0].isnan(), name


def test_like_heads_have_no_divergence_at_all() -> None:
    tile = attention(5, "full", heads=2)
    tile.probs[:, 1] = tile.probs[:, 0]
    assert float(measured(METRICS["js"], tile).pairs["js"].abs().max()) < 1e-8
    assert float(measured(METRICS["kl"], tile).pairs["kl_ab"].abs().max()) == 0


def test_golden_values_through_the_loops() -> None:
    rows = torch.tensor([[[[0.5, 0.5, 0.0, 0.0]], [[0.0, 0.5, 0.5, 0.0]], [[0.25] * 4]]])
    tile = AttentionTile.of(rows)
    js = measured(METRICS["js"], tile).pairs["js"]
    assert float(js[0, 1]) == pytest.approx(math.log(2) / 2, abs=1e-7)
    assert float(measured(METRICS["bhattacharyya"], tile).pairs["bc"][0, 1]) == pytest.approx(0.5, abs=1e-7)
    assert float(measured(METRICS["cosine"], tile).pairs["cos"][0, 1]) == pytest.approx(0.5, abs=1e-7)
    assert float(measured(METRICS["kl"], tile).layers["kl_inf_frac"]) == pytest.approx(4 / 6, abs=1e-7)
    mixed = measured(KL(smoothing=0.5), tile).pairs["kl_ab"][0, 1]
    smooth = [[0.375, 0.375, 0.125, 0.125], [0.125, 0.375, 0.375, 0.125]]
    assert float(mixed) == pytest.approx(sum(p * math.log(p / q) for p, q in zip(*smooth, strict=True)), abs=1e-6)


def test_the_logarithm() -> None:
    from headprobe.metrics import kernels

    x = np.concatenate([np.logspace(-37, 0.3, 20001), np.linspace(0.5, 2, 20001)]).astype(np.float32)
    got = np.array([kernels.log.py_func(value) for value in x[::97]])  # type: ignore[attr-defined]
    exact = np.log(x[::97].astype(np.float64))
    assert np.abs(got - exact).max() <= 2e-7 * np.abs(exact).clip(min=1).max()
    assert (np.abs(got - exact) / np.abs(exact).clip(min=1e-3)).max() < 5e-7


@pytest.mark.parametrize(
    "probs",
    [
        torch.full((1, 2, 3, 4), 0.25, dtype=torch.float64),
        torch.full((1, 2, 3, 4), 0.25, requires_grad=True),
        torch.full((1, 2, 4, 3), 0.25).mT,
        torch.empty(0, 2, 3, 4),
    ],
    ids=["float64", "gradients", "keys apart", "empty"],
)
def test_torch_does_what_the_loops_can_not(probs: torch.Tensor) -> None:
    assert AttentionTile.of(probs).once(fused.loops) is None


def test_without_numba_torch_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    fused.kernels.cache_clear()
    try:
        assert attention(0, "full").once(fused.loops) is None
    finally:
        fused.kernels.cache_clear()
