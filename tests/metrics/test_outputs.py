"""Similarity of what heads give and write: by hand, against whole kernels, and in pieces."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headprobe.errors import InputError
from headprobe.metrics import METRICS, Values
from headprobe.metrics.cka import hsic
from headprobe.metrics.outputs import output_sums
from headprobe.outputs import Outputs, Projection, Unknown
from headprobe.testing import padded, sample_tile
from headprobe.tile import AttentionTile
from tests import oracle_outputs

NAMES = {"cka": ("cka", "cka_unbiased"), "ocos": ("ocos", "ocos_centred")}
A, B = (1, -1, 1, -1), (1, 1, -1, -1)
X, Y = (0, 0, 1, 1, 2), (0, 1, 0, 1, 2)


def giving(*heads: Sequence[Sequence[float]] | Tensor, weights: Tensor | None = None) -> AttentionTile:
    """A tile of uniform attention whose heads give these outputs [query, feature], and write them as they are."""
    z = torch.stack([torch.as_tensor(head, dtype=torch.float64) for head in heads])[None]
    _, count, queries, features = z.shape
    if weights is None:
        weights = torch.eye(features, dtype=torch.float64).repeat(count, 1)
    projection = Projection("projection", count, lambda: weights)
    tile = AttentionTile.of(torch.full((1, count, queries, queries), 1 / queries, dtype=torch.float64))
    return replace(tile, outputs=Outputs(z, Unknown("there are none"), projection))


def of_numbers(*heads: Sequence[float]) -> AttentionTile:
    return giving(*([[number] for number in head] for head in heads))


def measured(name: str, *tiles: AttentionTile) -> Values:
    metric = METRICS[name]
    return metric.compute(reduce(add, [metric.observe(tile) for tile in tiles]))


def pair(tile: AttentionTile, column: str) -> float:
    return float(measured(column.split("_")[0], tile).pairs[column][0, 1])


def test_golden_values_of_cka() -> None:
    line = (1.0, 2.0, 3.0, 4.0)
    tile = of_numbers(line, [2 * number + 3 for number in line])
    assert pair(tile, "cka") == pair(tile, "cka_unbiased") == pytest.approx(1, abs=1e-12)
    found = hsic(output_sums(tile)) / 4
    assert found.flatten().tolist() == pytest.approx([13 / 6, 26 / 3, 26 / 3, 4 * 26 / 3], rel=1e-12)
    tile = of_numbers(A, B)
    assert pair(tile, "cka") == 0
    assert pair(tile, "cka_unbiased") == pytest.approx(-1 / 2, rel=1e-12)
    assert (hsic(output_sums(tile)) / 4).flatten().tolist() == pytest.approx([8 / 3, -4 / 3, -4 / 3, 8 / 3], rel=1e-12)
    tile = of_numbers(X, Y)
    assert pair(tile, "cka") == pytest.approx(81 / 196, rel=1e-12)
    assert pair(tile, "cka_unbiased") == pytest.approx(-1 / 11, rel=1e-12)


def test_golden_values_of_the_cosine() -> None:
    tile = of_numbers(X, Y)
    assert pair(tile, "ocos") == pytest.approx(5 / 6, rel=1e-12)
    assert pair(tile, "ocos_centred") == pytest.approx((5 - 16 / 5) / (6 - 16 / 5), rel=1e-12)
    opposite = giving([[1.0], [2.0]], [[1.0], [2.0]], weights=torch.tensor([[1.0], [-3.0]]))
    assert pair(opposite, "ocos") == pytest.approx(-1)
    assert pair(opposite, "cka") == 1  # which does not know what becomes of it


def test_golden_values_of_norms() -> None:
    probs = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    values = torch.tensor([[[[3.0, 4.0], [0.0, 0.0]]]], dtype=torch.float64)
    projection = Projection("projection", 1, lambda: torch.eye(2))
    tile = replace(AttentionTile.of(probs), outputs=Outputs(probs @ values, values, projection))
    found = {name: float(value[0]) for name, value in measured("norms", tile).heads.items()}
    assert found.pop("norm_special") != 0  # nobody knows
    expected = {"norm_sum": 2.5, "norm_entropy": 0, "norm_confidence": 1, "norm_self": 0.5, "norm_first": 1}
    assert found == pytest.approx(expected, abs=1e-12)


def test_other_rows_with_the_same_values_give_the_same() -> None:
    """Two heads that never look at the same key, of which each has a twin with the same value."""
    probs = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    probs[0, 0, [0, 1, 2, 3], [0, 2, 0, 2]] = 1
    probs[0, 1, [0, 1, 2, 3], [1, 3, 1, 3]] = 1
    values = torch.tensor([[1.0, 2.0], [1.0, 2.0], [5.0, -1.0], [5.0, -1.0]], dtype=torch.float64).expand(1, 2, 4, 2)
    weights = torch.randn(2, 3, dtype=torch.float64).repeat(2, 1)
    outputs = Outputs(probs @ values, values, Projection("projection", 2, lambda: weights))
    tile = replace(AttentionTile.of(probs), outputs=outputs)
    assert float(measured("js", tile).pairs["js"][0, 1]) == pytest.approx(math.log(2))
    for column in ("cka", "ocos", "ocos_centred"):
        assert pair(tile, column) == pytest.approx(1, abs=1e-12)


def whole(tile: AttentionTile) -> tuple[list[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
    """Of a tile's valid queries the heads' outputs and weights, as the reference wants them."""
    assert isinstance(tile.outputs, Outputs)
    assert isinstance(tile.outputs.projection, Projection)
    z = tile.outputs.z.transpose(1, 2)[tile.query_mask].numpy()  # [row, head, feature]
    return list(z.transpose(1, 0, 2)), list(tile.outputs.projection.weights().numpy())


@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
@pytest.mark.parametrize("shift", [0.0, 1e5])
def test_pairs_are_those_of_whole_kernels(kind: Any, shift: float) -> None:
    """A shift of all values is a massive activation: what varies is then a hundred thousandth of what is there."""
    tile = sample_tile(kind=kind, lengths=(9, 6, 2), seed=3)
    assert isinstance(tile.outputs, Outputs)
    expected = oracle_outputs.of_outputs(whole(tile)[0])  # which no shift changes; whole kernels would lose all digits
    tile = replace(tile, outputs=tile.outputs.change(lambda z: z + shift))
    expected |= oracle_outputs.of_written(*whole(tile))
    parts = [tile.select(0, 1).cut(0, 4), tile.select(1, 3), tile.select(0, 1).cut(4, tile.queries)]
    for pieces in ([tile], parts, [padded(part, left=2, right=1) for part in (tile.select(0, 2), tile.select(2, 3))]):
        for name, columns in NAMES.items():
            found = measured(name, *pieces).pairs
            for column in columns:
                assert found[column].numpy() == pytest.approx(expected[column], rel=1e-5 if shift else 1e-10, abs=1e-10)


def test_what_has_no_value_is_missing() -> None:
    same = giving(torch.randn(6, 2), torch.full((6, 2), 1 / 3), torch.zeros(6, 2))
    for column in ("cka", "cka_unbiased", "ocos_centred"):
        matrix = measured(column.split("_")[0], same).pairs[column]
        assert matrix.isnan().tolist() == [[False, True, True], [True, True, True], [True, True, True]]
    assert measured("ocos", same).pairs["ocos"].isnan().sum() == 5  # what is written is a constant, not nothing
    three = giving(torch.randn(3, 2), torch.randn(3, 2))
    assert measured("cka", three).pairs["cka_unbiased"].isnan().all()
    assert not measured("cka", three).pairs["cka"].isnan().any()
    none = replace(three, query_mask=torch.zeros(1, 3, dtype=torch.bool))
    for name, columns in NAMES.items():
        assert all(measured(name, none).pairs[column].isnan().all() for column in columns)
        both, alone = measured(name, none, three).pairs, measured(name, three).pairs
        assert all(torch.allclose(both[column], alone[column], equal_nan=True) for column in columns)


def test_queries_that_nothing_moves_are_left_out_of_norms() -> None:
    tile = sample_tile(lengths=(5,), seed=1)
    assert isinstance(tile.outputs, Outputs)
    assert isinstance(tile.outputs.values, Tensor)
    values = tile.outputs.values.clone()
    values[:, :, 1:] = 0
    tile.probs[:, :, 2, 0] = 0  # the only key that has something to say
    tile = replace(tile, outputs=replace(tile.outputs, values=values))
    found = measured("norms", tile)
    rest = replace(tile, query_mask=tile.query_mask & (torch.arange(5) != 2))
    for name, column in measured("norms", rest).heads.items():
        assert torch.allclose(found.heads[name], column, equal_nan=True)
    assert torch.equal(found.heads["norm_confidence"], torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("name", ["cka", "ocos", "norms"])
def test_what_is_not_known_is_refused(name: str) -> None:
    tile = sample_tile()
    with pytest.raises(InputError, match="came without its outputs"):
        METRICS[name].observe(replace(tile, outputs=None))
    with pytest.raises(InputError, match=r"not known of layer\.0: a reason"):
        METRICS[name].observe(replace(tile, outputs=Unknown("a reason")))
    assert isinstance(tile.outputs, Outputs)
    gated = replace(tile, outputs=replace(tile.outputs, projection=Unknown("a gate")))
    if name == "cka":
        assert not METRICS[name].compute(METRICS[name].observe(gated)).pairs["cka"].isnan().any()
    else:
        with pytest.raises(InputError, match="a gate"):
            METRICS[name].observe(gated)
