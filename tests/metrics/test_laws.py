"""Every metric keeps the laws, and check_metric notices one that doesn't."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from headprobe.metrics import METRICS, Metric, Values
from headprobe.metrics.contract import Column
from headprobe.metrics.entropy import Entropy
from headprobe.metrics.shared import valid_rows
from headprobe.metrics.totals import PerSequence
from headprobe.testing import check_metric
from headprobe.tile import AttentionTile


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_every_metric_keeps_the_laws(metric: Metric) -> None:
    check_metric(metric)


class _Largest(Entropy):
    """The mean of the largest weight of a row."""

    name = "largest"
    columns = (Column("largest", "head", "the mean of the largest weight", high=1.0, paired=True),)

    def compute(self, total: PerSequence) -> Values:
        return Values(
            heads={"largest": total.mean()[:, 0]},
            sequences={"largest": total.means()[..., 0]},
            numbers=total.numbers,
        )

    def observe(self, tile: AttentionTile) -> PerSequence:
        rows = tile.once(valid_rows)
        return rows.means([(rows.probs.amax(-1), rows.size >= 0)])


class _MeanOfMeans(_Largest):
    """A mean of means."""

    def observe(self, tile: AttentionTile) -> PerSequence:
        total = super().observe(tile)
        return PerSequence.of(total.numbers, total.means().nan_to_num(), torch.ones(len(total.numbers), 1, 1))


class _ForgetsStart(_Largest):
    """Its rows always begin at 0."""

    def observe(self, tile: AttentionTile) -> PerSequence:
        rows = tile.once(valid_rows)
        place = torch.arange(tile.probs.shape[2]).expand(tile.query_mask.shape)[tile.query_mask]
        first = rows.probs.gather(2, place.clamp(max=1)[:, None, None].expand(-1, rows.probs.shape[1], 1))
        return rows.means([(first[..., 0], rows.size >= 0)])


class _CountsPadding(_Largest):
    """It ignores the query mask."""

    def observe(self, tile: AttentionTile) -> PerSequence:
        return super().observe(replace(tile, query_mask=tile.query_mask | True, probs=tile.probs.nan_to_num()))


class _Meddles(_Largest):
    """It writes to its input."""

    def observe(self, tile: AttentionTile) -> PerSequence:
        tile.probs[..., 0] = 0
        return super().observe(tile)


class _Favours(_Largest):
    """It tells heads apart by their place."""

    def observe(self, tile: AttentionTile) -> PerSequence:
        weights = torch.arange(tile.site.heads)[None, :, None, None] / tile.site.heads
        return super().observe(replace(tile, probs=tile.probs * weights))


class _OutOfRange(_Largest):
    """It is larger than it says."""

    columns = (Column("largest", "head", "the mean of the largest weight", high=0.2, paired=True),)


class _Silent(_Largest):
    """It has no formula."""

    formula = ""


@pytest.mark.parametrize(
    ("metric", "law"),
    [
        (_MeanOfMeans, "cut does not change"),
        (_ForgetsStart, "cut does not change"),
        (_CountsPadding, "Padding"),
        (_Meddles, "does not change it"),
        (_Favours, "Permuting the heads"),
        (_OutOfRange, "within their ranges"),
        (_Silent, "tells its formula"),
    ],
)
def test_a_broken_law_is_named(metric: Callable[[], Metric], law: str) -> None:
    check_metric(_Largest())
    with pytest.raises(AssertionError, match=law):
        check_metric(metric())
