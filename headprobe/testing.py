"""The laws that every metric keeps, ours and a plug-in's: `check_metric(MyMetric())` in a test of yours.

from headprobe.testing import check_metric

def test_my_metric() -> None:
    check_metric(MyMetric())
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from operator import add

import torch
from torch import Tensor

from headprobe.masks import positions
from headprobe.metrics import Metric, Values
from headprobe.outputs import Found, Outputs, Projection
from headprobe.tile import AttentionTile, Kind, Site
from headprobe.tokens import Tokens

SITE = Site(0, "layer.0", "encoder", 0, 4, 2)
LENGTHS = (9, 6, 2)
WIDTH = 3  # features of a head's outputs
Law = Callable[[Metric], None]


def check_metric(metric: Metric) -> None:
    """Hold a metric to the laws. Raises `AssertionError` that names the law it breaks and where."""
    for law in LAWS:
        try:
            law(metric)
        except AssertionError as broken:
            about = " ".join((law.__doc__ or "").split())
            raise AssertionError(f"{metric.name} breaks a law: {about} {broken}") from None


def sample_tile(
    *, kind: Kind = "encoder", lengths: Iterable[int] = LENGTHS, heads: int = 4, seed: int = 0, sharpness: float = 2.0
) -> AttentionTile:
    """A whole tile of random attention in float64, padded on the right; causal for "decoder"."""
    lengths = tuple(lengths)
    longest = max(lengths)
    rng = torch.Generator().manual_seed(seed)
    scores = sharpness * torch.randn(len(lengths), heads, longest, longest, generator=rng, dtype=torch.float64)
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    structure = torch.ones(1, longest, longest, dtype=torch.bool).tril() if kind == "decoder" else None
    seen = mask[:, None, None, :] if structure is None else mask[:, None, None, :] & structure[:, None]
    probs = scores.masked_fill(~seen, float("-inf")).softmax(-1)
    site = replace(SITE, kind=kind, heads=heads, kv_heads=heads)
    special = torch.zeros_like(mask)
    special[:, 0] = True
    place = positions(mask)
    tokens = Tokens(place % 3 == 2, (place // 4).masked_fill(~mask, -1), (place % 5).masked_fill(~mask, -1))
    tile = AttentionTile.of(probs, site=site, query_mask=mask, key_mask=mask, structure=structure, special_keys=special)
    return with_outputs(replace(tile, tokens=tokens), seed=seed)


def with_outputs(tile: AttentionTile, *, seed: int = 0) -> AttentionTile:
    """A whole tile with what its heads give of random values, for metrics with `outputs`; one projection for all."""
    batch, heads, _, keys = tile.probs.shape
    made = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(0)
    values = 2 + torch.randn(batch, tile.site.kv_heads, keys - tile.site.sink, WIDTH, generator=made[0])
    weights = torch.randn(heads * WIDTH, 2 * WIDTH, generator=made[1]).to(tile.probs.device)
    values = values.to(tile.probs)
    shared = values.repeat_interleave(heads // tile.site.kv_heads, 1)
    z = tile.probs[..., : values.shape[2]] @ shared
    return replace(tile, outputs=Outputs(z, values, Projection("projection", heads, lambda: weights)))


# --- the laws ---------------------------------------------------------------------------------------------------


def _rows_may_be_cut_anywhere(metric: Metric) -> None:
    """Where a tile's rows are cut does not change a result."""
    for tile in _tiles():
        whole = _values(metric, [tile])
        for cuts in ((3,), (1, 2, 3), tuple(range(1, tile.queries))):
            edges = (0, *cuts, tile.queries)
            parts = [tile.cut(a, b) for a, b in pairwise(edges)]
            _same(_values(metric, parts), whole, f"Cut at {cuts}, {tile.site.kind}")


def _order_does_not_matter(metric: Metric) -> None:
    """Totals may be added in any order."""
    for tile in _tiles():
        parts = [tile.cut(0, 4), tile.cut(4, tile.queries)]
        other = replace(sample_tile(kind=tile.site.kind, seed=7), sequences=(3, 4, 5))
        whole = [other.cut(0, 5), other.cut(5, other.queries)]
        _same(_values(metric, [*whole, *parts]), _values(metric, [*parts, *whole]), tile.site.kind)
        _same(
            _values(metric, [parts[0], whole[0], parts[1], whole[1]]), _values(metric, [*parts, *whole]), "Interleaved"
        )


def _batching_does_not_matter(metric: Metric) -> None:
    """A sequence counts the same alone and in a batch of others."""
    for tile in _tiles():
        alone = [tile.select(b, b + 1) for b in range(len(tile.probs))]
        _same(_values(metric, alone), _values(metric, [tile]), f"One by one, {tile.site.kind}")


def _padding_does_not_matter(metric: Metric) -> None:
    """Padding, on either side and whatever is in it, does not change a result."""
    for tile in _tiles():
        expected = _values(metric, [tile])
        _same(_values(metric, [padded(tile, left=0, right=3)]), expected, f"Three more on the right, {tile.site.kind}")
        _same(_values(metric, [padded(tile, left=4, right=1)]), expected, f"Four on the left, {tile.site.kind}")
        alone = tile.select(1, 2)
        short = _shortened(tile, LENGTHS[1]).select(1, 2)
        _same(_values(metric, [short]), _values(metric, [alone]), f"Padding cut away, {tile.site.kind}")


def _heads_are_equal(metric: Metric) -> None:
    """Permuting the heads permutes the results."""
    order = torch.tensor([2, 0, 3, 1])
    for tile in _tiles():
        permuted = replace(tile, probs=tile.probs[:, order], outputs=_permuted(tile.outputs, order))
        before, after = _values(metric, [tile]), _values(metric, [permuted])
        heads = {name: column[order] for name, column in before.heads.items()}
        pairs = {name: matrix[order][:, order] for name, matrix in before.pairs.items()}
        sequences = {name: column[:, order] for name, column in before.sequences.items()}
        _same(after, replace(before, heads=heads, pairs=pairs, sequences=sequences), tile.site.kind)


def _the_tile_is_left_alone(metric: Metric) -> None:
    """Observing a tile does not change it."""
    for tile in _tiles():
        before = tile.probs.clone()
        metric.observe(tile)
        assert torch.equal(tile.probs, before), "The probabilities were changed."


def _columns_are_as_declared(metric: Metric) -> None:
    """A metric gives the columns that it declares, within their ranges."""
    for tile in _tiles():
        values = _values(metric, [tile])
        for level, found in (("head", values.heads), ("layer", values.layers), ("pair", values.pairs)):
            declared = {column.name: column for column in metric.columns if column.level == level}
            assert set(found) == set(declared), f"Declared {sorted(declared)}, gave {sorted(found)} of {level}s."
            for name, column in declared.items():
                _in_range(found[name], column.low, column.high, name)
        paired = {column.name for column in metric.columns if column.paired}
        assert set(values.sequences) == paired, f"Paired are {sorted(paired)}, gave {sorted(values.sequences)}."
        assert all(column.shape == (tile.site.heads,) for column in values.heads.values()), "A head column is [head]."


def _it_says_what_it_is(metric: Metric) -> None:
    """A metric tells its formula, its baseline and its source, and every column what it is."""
    assert inspect.getdoc(metric), "It has no docstring."
    assert all((metric.name, metric.formula, metric.baseline, metric.source)), "A description is empty."
    assert metric.columns, "It has no columns."
    assert all(column.about for column in metric.columns), "A column does not say what it is."


LAWS: tuple[Law, ...] = (
    _it_says_what_it_is,
    _columns_are_as_declared,
    _the_tile_is_left_alone,
    _rows_may_be_cut_anywhere,
    _order_does_not_matter,
    _batching_does_not_matter,
    _padding_does_not_matter,
    _heads_are_equal,
)


# --- what they are made of --------------------------------------------------------------------------------------


def _tiles() -> list[AttentionTile]:
    kinds: tuple[Kind, ...] = ("encoder", "decoder", "cross")
    return [sample_tile(kind=kind, seed=seed, sharpness=s) for kind in kinds for seed, s in ((0, 2.0), (1, 12.0))]


def _values(metric: Metric, tiles: list[AttentionTile]) -> Values:
    return metric.compute(reduce(add, [metric.observe(tile) for tile in tiles]))


def _shortened(tile: AttentionTile, length: int) -> AttentionTile:
    """The tile's first `length` queries and keys: what is left of a sequence when its padding is cut away."""
    structure = None if tile.structure is None else tile.structure[:, :length, :length]
    return replace(
        tile,
        probs=tile.probs[:, :, :length, :length],
        queries=length,
        structure=structure,
        query_mask=tile.query_mask[:, :length],
        key_mask=tile.key_mask[:, :length],
        query_positions=tile.query_positions[:, :length],
        key_positions=tile.key_positions[:, :length],
        special_keys=None if tile.special_keys is None else tile.special_keys[:, :length],
        outputs=_of_positions(tile.outputs, lambda values: values[:, :, :length]),
        tokens=None if tile.tokens is None else tile.tokens.map(lambda known: known[:, :length]),
    )


def padded(tile: AttentionTile, *, left: int, right: int) -> AttentionTile:
    """The tile with padding around it: no mass on its keys, rubbish in its rows."""

    fill = torch.nn.functional.pad

    def pad(mask: Tensor | None) -> Tensor | None:
        return None if mask is None else fill(mask, (left, right), value=False)

    mask = fill(tile.query_mask, (left, right), value=False)
    probs = fill(tile.probs, (left, right, left, right))
    probs = probs.masked_fill(~mask[:, None, :, None], float("nan"))
    structure = tile.structure
    if structure is not None:
        structure = fill(structure, (left, right, left, right), value=True)
    return replace(
        tile,
        probs=probs,
        queries=tile.queries + left + right,
        query_mask=mask,
        key_mask=mask,
        structure=structure,
        query_positions=positions(mask),
        key_positions=positions(mask),
        special_keys=pad(tile.special_keys),
        outputs=_of_positions(tile.outputs, lambda values: fill(values, (0, 0, left, right), value=float("nan"))),
        tokens=None if tile.tokens is None else tile.tokens.map(lambda known: fill(known, (left, right), value=-1)),
    )


def _of_positions(outputs: Found, change: Callable[[Tensor], Tensor]) -> Found:
    """The same change to the queries and to the keys of self-attention."""
    return outputs.change(change, change) if isinstance(outputs, Outputs) else outputs


def _permuted(outputs: Found, order: Tensor) -> Found:
    """The heads' outputs in another order, their values and weights too."""
    if not isinstance(outputs, Outputs) or not isinstance(outputs.projection, Projection):
        return outputs
    weights = outputs.projection.weights()[order].flatten(0, 1)
    found = outputs.change(lambda z: z[:, order], lambda values: values[:, order])
    return replace(found, projection=Projection("permuted", len(order), lambda: weights))


def _same(found: Values, expected: Values, where: str) -> None:
    for level in ("heads", "layers", "pairs", "sequences", "baseline"):
        for name, value in getattr(expected, level).items():
            other = getattr(found, level)[name]
            close = torch.allclose(other.double(), value.double(), rtol=1e-9, atol=1e-9, equal_nan=True)
            assert close, f"{where}: {name} of {level} is {other.tolist()} instead of {value.tolist()}."


def _in_range(value: Tensor, low: float | None, high: float | None, name: str) -> None:
    known = value[~value.isnan()]
    assert low is None or bool((known >= low - 1e-9).all()), f"{name} falls below {low}: {known.min()}."
    assert high is None or bool((known <= high + 1e-9).all()), f"{name} exceeds {high}: {known.max()}."
