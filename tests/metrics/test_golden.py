"""The values that each definition gives by hand, and the closed forms for uniform attention."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from headprobe.metrics import METRICS, Values
from headprobe.metrics.effective import vendi
from headprobe.metrics.kl import KL
from headprobe.tile import AttentionTile

LN2 = math.log(2)
P, Q, R = (0.5, 0.5, 0.0, 0.0), (0.0, 0.5, 0.5, 0.0), (0.25,) * 4
TRIANGLE = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5))


def tile_of(maps: Sequence[Sequence[Sequence[float]]], *, causal: bool = False) -> AttentionTile:
    """One sequence from [head, query, key]."""
    probs = torch.tensor([maps], dtype=torch.float64)
    n, m = probs.shape[2:]
    return AttentionTile.of(probs, structure=torch.ones(1, n, m, dtype=torch.bool).tril() if causal else None)


def uniform(n: int, *, causal: bool = False) -> AttentionTile:
    return tile_of([[[1.0] * n] * n], causal=causal).uniform()


def values(name: str, tile: AttentionTile) -> Values:
    metric = METRICS[name]
    return metric.compute(metric.observe(tile))


def head(name: str, tile: AttentionTile) -> dict[str, float]:
    return {column: float(value[0]) for column, value in values(name, tile).heads.items()}


def rows(*heads: Sequence[float]) -> AttentionTile:
    """One query, a row for each head."""
    return tile_of([[row] for row in heads])


def harmonic(n: int, power: int = 1) -> float:
    return float(sum(1 / i**power for i in range(1, n + 1)))


def test_validity() -> None:
    maps = [[[1.0, 0.0], [0.5, 0.5]]]
    assert head("validity", tile_of(maps, causal=True)) == {"row_error": 0, "leak": 0, "zero_frac": 0}
    assert head("validity", tile_of(maps)) == {"row_error": 0, "leak": 0, "zero_frac": 0.25}
    leaking = tile_of([[[0.75, 0.25], [0.5, 0.25]]], causal=True)
    assert head("validity", leaking) == {"row_error": 0.25, "leak": 0.25, "zero_frac": 0}


def test_redundancy_of_a_small_causal_map() -> None:
    assert head("redundancy", tile_of([TRIANGLE], causal=True)) == pytest.approx(
        {
            "aat_sq": 9 / 8, "aat_fro": 1.0606601717798212, "aat_unit": 9 / 16, "aat01": 3 / 16,
            "overlap": 5 / 48, "diffuse": 1 / 6, "rcos": 1 / 4, "rcos_excess": -1 / 4,
        },
        rel=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize("n", [2, 3, 5, 17, 64, 128, 512])
def test_redundancy_of_extreme_maps(n: int) -> None:
    identity = head("redundancy", AttentionTile.of(torch.eye(n, dtype=torch.float64)[None, None]))
    assert {name: identity[name] for name in ("aat_sq", "aat01", "overlap", "diffuse", "rcos")} == dict.fromkeys(
        ("aat_sq", "aat01", "overlap", "diffuse", "rcos"), 0.0
    )
    one_key = torch.zeros(1, 1, n, n, dtype=torch.float64)
    one_key[..., 0] = 1
    found = head("redundancy", AttentionTile.of(one_key))
    expected = {
        "aat_sq": n * (n - 1),
        "aat_unit": n,
        "aat01": 1,
        "overlap": 1,
        "diffuse": 0,
        "rcos": 1,
        "rcos_excess": 0,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("n", [2, 3, 5, 17, 64, 128, 512])
def test_redundancy_of_uniform_attention(n: int) -> None:
    full = head("redundancy", uniform(n))
    expected = {
        "aat_sq": n - 1,
        "aat_unit": 1,
        "aat01": 1 / n,
        "overlap": 1 / n**2,
        "diffuse": (1 - 1 / n) ** 2,
        "rcos": 1,
    }
    assert {name: full[name] for name in expected} == pytest.approx(expected)
    causal = head("redundancy", uniform(n, causal=True))
    h, h2 = harmonic(n), harmonic(n, 2)
    expected = {
        "aat_sq": n - h2, "aat_fro": math.sqrt(n - h2), "aat01": (n - h2) / (n * (n - 1)), "rcos": 0.5,
        "overlap": 2 * (h - h2) / (n * (n - 1)), "diffuse": 1 - (2 * h - h2) / n, "rcos_excess": 0,
    }  # fmt: skip
    assert {name: causal[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_redundancy_of_a_previous_token_head_is_two() -> None:
    for n in (2, 5, 40):
        probs = torch.zeros(1, 1, n, n, dtype=torch.float64)
        probs[0, 0, torch.arange(n), (torch.arange(n) - 1).clamp(min=0)] = 1
        causal = torch.ones(1, n, n, dtype=torch.bool).tril()
        assert head("redundancy", AttentionTile.of(probs, structure=causal))["aat_sq"] == pytest.approx(2)


def test_redundancy_of_more_queries_than_keys() -> None:
    n, m = 7, 3
    probs = torch.full((1, 1, n, m), 1 / m, dtype=torch.float64)
    found = head("redundancy", AttentionTile.of(probs))
    square = n**2 / m**2 - 2 * n / m + n
    assert found["aat_sq"] == pytest.approx(square)
    assert found["aat01"] == pytest.approx((square - (n - m)) / (n * (n - 1) - (n - m)))


def test_redundancy_near_a_permutation_does_not_cancel() -> None:
    n = 2048
    probs = torch.eye(n)[None, None] * (1 - 2e-7)
    probs[..., 0] += 2e-7
    exact = head("redundancy", AttentionTile.of(probs.double()))
    found = head("redundancy", AttentionTile.of(probs))
    assert 0 < found["aat_sq"] == pytest.approx(exact["aat_sq"], rel=1e-3)


def test_redundancy_of_a_single_query_is_undefined() -> None:
    found = head("redundancy", rows(P))
    assert [name for name, value in found.items() if math.isnan(value)] == [
        "aat_unit",
        "aat01",
        "overlap",
        "rcos",
        "rcos_excess",
    ]
    assert found["aat_sq"] == pytest.approx(0.25)


def test_penalty() -> None:
    found = values("penalty", rows(P, Q, R))
    assert found.heads["aat_heads_share"].tolist() == pytest.approx([3 / 8, 3 / 8, 11 / 16])
    assert float(found.layers["aat_heads"]) == pytest.approx(23 / 16)


@pytest.mark.parametrize(("heads", "keys"), [(4, 4), (4, 9), (12, 12), (12, 128)])
def test_penalty_of_uniform_heads(heads: int, keys: int) -> None:
    found = values("penalty", rows(*[[1 / keys] * keys] * heads))
    assert float(found.layers["aat_heads"]) == pytest.approx(heads**2 / keys**2 - 2 * heads / keys + heads)


def test_penalty_counts_only_queries_with_as_many_keys_as_heads() -> None:
    maps = torch.ones(1, 3, 5, 5, dtype=torch.float64).tril()
    found = values("penalty", AttentionTile.of(maps / maps.sum(-1, keepdim=True), structure=maps[:, 0] > 0))
    assert float(found.layers["aat_heads_queries"]) == 3
    few = values("penalty", rows(*[[0.5, 0.5]] * 3))
    assert math.isnan(float(few.layers["aat_heads"]))
    assert float(few.layers["aat_heads_queries"]) == 0


def test_cosine() -> None:
    found = values("cosine", rows(P, Q, R))
    assert found.pairs["cos"].tolist() == [
        pytest.approx(row) for row in ([1, 0.5, 0.5**0.5], [0.5, 1, 0.5**0.5], [0.5**0.5, 0.5**0.5, 1])
    ]
    assert float(found.layers["rcos_heads"]) == pytest.approx(5 / 12)


def test_kl_unsmoothed() -> None:
    found = KL(smoothing=0.0)
    pair = found.compute(found.observe(rows([0.5, 0.5], [0.25, 0.75])))
    assert float(pair.pairs["kl_ab"][0, 1]) == pytest.approx(0.14384103622589042)
    assert float(pair.pairs["kl_ba"][0, 1]) == pytest.approx(0.13081203594113697)
    assert float(pair.pairs["kl_ab"][0, 1] + pair.pairs["kl_ab"][1, 0]) == pytest.approx(math.log(3) / 4)
    spread = found.compute(found.observe(rows(P, R)))
    assert float(spread.pairs["kl_ab"][0, 1]) == pytest.approx(LN2)


def test_kl_says_how_often_it_would_be_infinite() -> None:
    assert float(values("kl", rows(P, R)).layers["kl_inf_frac"]) == 0.5  # R ‖ P is, P ‖ R is not
    assert float(values("kl", rows(P, Q)).layers["kl_inf_frac"]) == 1
    assert float(values("kl", rows(R, R)).layers["kl_inf_frac"]) == 0


def test_kl_smoothed_has_its_bound() -> None:
    s, smoothing = 128, 1e-3
    one, other = [0.0] * s, [0.0] * s
    one[3], other[5] = 1, 1
    bound = math.log(1 + s * (1 - smoothing) / smoothing)
    assert bound == pytest.approx(11.76, abs=0.005)
    found = values("kl", rows(one, other)).pairs["kl_ab"]
    assert float(found[0, 1]) == pytest.approx((1 - smoothing) * bound)
    assert float(found[0, 1]) == pytest.approx(11.747, abs=0.001)


def test_js() -> None:
    found = values("js", rows(P, Q, R)).pairs["js"]
    assert float(found[0, 1]) == pytest.approx(LN2 / 2)
    assert float(found[0, 2]) == pytest.approx(0.75 * math.log(4 / 3))
    assert float(found[1, 1]) == 0
    assert float(values("js", rows([1, 0, 0, 0], [0, 0, 0, 1])).pairs["js"][0, 1]) == pytest.approx(LN2)


def test_js_with_clarks_smoothing() -> None:
    smooth = [[0.999 * p + 0.001 / 4 for p in row] for row in (P, Q)]
    assert float(values("js", rows(*smooth)).pairs["js"][0, 1]) == pytest.approx(0.34442342717550645)


def test_bhattacharyya() -> None:
    found = values("bhattacharyya", rows(P, Q)).pairs["bc"]
    assert float(found[0, 1]) == pytest.approx(0.5)
    assert math.sqrt(1 - float(found[0, 1])) == pytest.approx(0.70710678)


def test_js_lies_between_its_bounds() -> None:
    maps = torch.softmax(3 * torch.randn(1, 40, 30, 20, dtype=torch.float64), -1)
    tile = AttentionTile.of(maps)
    hellinger = 1 - values("bhattacharyya", tile).pairs["bc"]
    js = values("js", tile).pairs["js"]
    assert bool((LN2 * hellinger <= js + 1e-12).all())
    assert bool((js <= hellinger + 1e-12).all())


def test_entropy() -> None:
    found = head("entropy", tile_of([TRIANGLE], causal=True))
    expected = {
        "entropy": 2 / 3 * LN2,
        "entropy_norm": (1 + LN2 / math.log(3)) / 2,
        "eff_keys": 5 / 3,
        "confidence": 2 / 3,
    }
    assert found == pytest.approx(expected)
    assert head("entropy", rows(P))["entropy"] == pytest.approx(LN2)


@pytest.mark.parametrize("n", [4, 33])
def test_entropy_of_uniform_attention(n: int) -> None:
    assert head("entropy", uniform(n)) == pytest.approx(
        {"entropy": math.log(n), "entropy_norm": 1, "eff_keys": n, "confidence": 1 / n}
    )
    causal = head("entropy", uniform(n, causal=True))
    assert causal["entropy"] == pytest.approx(math.lgamma(n + 1) / n)
    assert causal["confidence"] == pytest.approx(harmonic(n) / n)


def test_position() -> None:
    found = head("position", tile_of([TRIANGLE], causal=True))
    expected = {"self_mass": 2 / 3, "prev_mass": 1 / 2, "first_mass": 1 / 2, "first_mass_excl_first": 1 / 4,
                "mean_distance": 1 / 3, "mean_distance_excl_first": 1 / 2}  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert math.isnan(found["next_mass"])


def test_next_is_ahead_and_prev_behind() -> None:
    ahead = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    found = head("position", tile_of([ahead]))
    assert (found["next_mass"], found["prev_mass"]) == (1, 0)


@pytest.mark.parametrize("n", [4, 33])
def test_position_of_uniform_attention(n: int) -> None:
    causal = head("position", uniform(n, causal=True))
    assert causal["self_mass"] == pytest.approx(harmonic(n) / n)
    assert causal["first_mass"] == pytest.approx(harmonic(n) / n)
    assert causal["prev_mass"] == pytest.approx((harmonic(n) - 1) / (n - 1))
    assert causal["mean_distance"] == pytest.approx((n - 1) / 4)
    assert head("position", uniform(n))["mean_distance"] == pytest.approx((n**2 - 1) / (3 * n))


@pytest.mark.parametrize(
    ("kernel", "first", "second"),
    [
        ([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]], 2.1573, None),
        ([[1, 0.5], [0.5, 1]], 1.7547653506, 1.6),
        (torch.eye(5).tolist(), 5, 5),
        (torch.ones(4, 4).tolist(), 1, 1),
        (torch.full((12, 12), 0.5).fill_diagonal_(1).tolist(), 5.981708692757, 3.2),
    ],
)
def test_effective_number_of_heads(kernel: Sequence[Sequence[float]], first: float, second: float | None) -> None:
    found = vendi(torch.tensor(kernel, dtype=torch.float64))
    assert float(found[0]) == pytest.approx(first, abs=5e-5)
    assert second is None or float(found[1]) == pytest.approx(second)


def test_the_penalty_of_a_unit_kernel_counts_heads() -> None:
    rows_ = torch.randn(6, 9, dtype=torch.float64)
    unit = rows_ / rows_.norm(dim=1, keepdim=True)
    kernel: Tensor = unit @ unit.mT
    distance = (kernel - torch.eye(6)).square().sum()
    assert float(distance) == pytest.approx(36 / float(vendi(kernel)[1]) - 6)


def test_padded_queries_would_have_changed_the_penalty() -> None:
    probs = torch.cat([torch.eye(4), torch.full((2, 4), 0.25)]).double()[None, None]
    kept = head("redundancy", AttentionTile.of(probs))
    dropped = head("redundancy", AttentionTile.of(probs, query_mask=torch.tensor([[True] * 4 + [False] * 2])))
    assert kept["aat_sq"] == pytest.approx(2.25)
    assert dropped["aat_sq"] == 0
