"""The laws on shapes, masks, cuts and paddings that nobody chose."""

import math
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from operator import add

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headprobe.metrics import METRICS, Values
from headprobe.testing import padded, sample_tile, with_outputs
from headprobe.tile import AttentionTile

tiles = st.builds(
    sample_tile,
    kind=st.sampled_from(["encoder", "decoder", "cross"]),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    heads=st.integers(1, 6),
    seed=st.integers(0, 2**31),
    sharpness=st.sampled_from([0.0, 0.5, 3.0, 40.0, 900.0]),
)
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def measure(parts: list[AttentionTile]) -> dict[str, Values]:
    return {
        name: metric.compute(reduce(add, [metric.observe(part) for part in parts])) for name, metric in METRICS.items()
    }


def assert_same(found: dict[str, Values], expected: dict[str, Values], *, tolerance: float = 1e-7) -> None:
    """1e-7: the square root in aat_fro makes that of a rounding error of 1e-14."""
    for name, values in expected.items():
        for level in ("heads", "layers", "pairs", "sequences"):
            for column, value in getattr(values, level).items():
                other = getattr(found[name], level)[column]
                assert torch.allclose(other, value, rtol=tolerance, atol=tolerance, equal_nan=True), (
                    name,
                    level,
                    column,
                )


@many
@given(tiles, st.data())
def test_cuts_change_nothing(tile: AttentionTile, data: st.DataObject) -> None:
    inner = data.draw(st.sets(st.integers(1, max(1, tile.queries - 1)), max_size=4)) if tile.queries > 1 else set()
    edges = [0, *sorted(inner), tile.queries]
    parts = [tile.cut(a, b) for a, b in pairwise(edges)]
    assert_same(measure(data.draw(st.permutations(parts))), measure([tile]))


@many
@given(tiles, st.integers(0, 5), st.integers(0, 5))
def test_padding_changes_nothing(tile: AttentionTile, left: int, right: int) -> None:
    assert_same(measure([padded(tile, left=left, right=right)]), measure([tile]))


@many
@given(tiles, st.data())
def test_batches_and_their_order_change_nothing(tile: AttentionTile, data: st.DataObject) -> None:
    batch = len(tile.probs)
    edge = data.draw(st.integers(0, batch))
    parts = [tile.select(a, b) for a, b in ((0, edge), (edge, batch)) if a < b]
    assert_same(measure(parts[::-1]), measure([tile]))


@many
@given(tiles)
def test_single_precision_is_enough(tile: AttentionTile) -> None:
    single, double = measure([replace(tile, probs=tile.probs.float())]), measure([tile])
    del double["validity"].heads["zero_frac"], double["kl"].layers["kl_inf_frac"]  # which tell that masses underflow
    assert_same(single, double, tolerance=2e-4)


@many
@given(tiles)
def test_divergences_keep_their_bounds(tile: AttentionTile) -> None:
    found = measure([tile])
    js, kl = found["js"].pairs["js"], found["kl"].pairs["kl_ab"]
    bc, cos = found["bhattacharyya"].pairs["bc"], found["cosine"].pairs["cos"]
    if bool(js.isnan().any()):
        assert bool(js.isnan().all() and kl.isnan().all() and bc.isnan().all() and cos.isnan().all())
        return
    assert torch.equal(js, js.mT)
    assert bool(((js >= 0) & (js <= math.log(2) + 1e-12)).all())
    assert bool((kl >= 0).all())
    assert bool(((bc >= 0) & (bc <= 1 + 1e-12)).all())
    assert bool((math.log(2) * (1 - bc) <= js + 1e-9).all())
    assert bool((js <= 1 - bc + 1e-9).all())
    for matrix in (js, kl):
        assert bool((matrix.diagonal() < 1e-12).all())
    for matrix in (bc, cos):
        assert torch.allclose(matrix.diagonal(), torch.ones((), dtype=torch.float64))
    root = js.sqrt()  # a metric
    assert bool((root[:, None, :] <= root[:, :, None] + root[None, :, :].transpose(1, 2) + 1e-6).all())


@many
@given(tiles)
def test_a_copied_head_is_its_twin(tile: AttentionTile) -> None:
    heads = tile.site.heads + 1
    site = replace(tile.site, heads=heads, kv_heads=heads)
    twin = replace(tile, site=site, probs=torch.cat([tile.probs, tile.probs[:, :1]], 1).float())
    found = measure([with_outputs(twin)])
    js = found["js"].pairs["js"][0, -1]
    assert bool(js.isnan()) or float(js) < 1e-6
    kl = found["kl"].pairs["kl_ab"][0, -1]
    assert bool(kl.isnan()) or abs(float(kl)) < 1e-6


@many
@given(tiles)
def test_shares_sum_to_the_penalty_and_counts_to_the_whole(tile: AttentionTile) -> None:
    penalty = METRICS["penalty"].compute(METRICS["penalty"].observe(tile))
    total = penalty.layers["aat_heads"]
    assert bool(total.isnan()) or torch.allclose(penalty.heads["aat_heads_share"].sum(), total)
    assert float(penalty.layers["aat_heads_queries"]) == int(
        (tile.support_size >= tile.site.heads).masked_select(tile.query_mask).sum()
    )
