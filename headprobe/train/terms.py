"""What each penalty measures of a site, with gradients: the metrics of a scan, and Li et al.'s three terms."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

from headprobe.metrics import Metric
from headprobe.metrics.cosine import Cosine
from headprobe.metrics.js import JensenShannon
from headprobe.metrics.kl import KL
from headprobe.metrics.outputs import outputs_of, values_of
from headprobe.metrics.penalty import Penalty
from headprobe.metrics.row_grams import row_grams
from headprobe.metrics.totals import PerSequence
from headprobe.tile import AttentionTile


@dataclass(frozen=True)
class Term:
    """`value(total)` is a site's scalar, from `observe(tile)` of its tiles, which add; NaN where no query counts.

    Training lowers it where `sign` is 1 and raises it where `sign` is -1. With `pairs` it compares heads: there must be
    two.
    """

    observe: Callable[[AttentionTile], Any]
    value: Callable[[Any], Tensor]
    sign: float = 1.0
    pairs: bool = True


def _column(metric: Metric, column: str, *, sign: float = 1.0, pairs: bool = True) -> Term:
    """A metric's column of layers, by the metric's own code."""
    return Term(metric.observe, lambda total: metric.compute(total).layers[column], sign, pairs)


def _mean(total: PerSequence) -> Tensor:
    return total.mean().mean()


def _within(tile: AttentionTile) -> PerSequence:
    """‖AAᵀ - I‖_F² of each sequence and head. Its square root, which a scan reports too, has no gradient at 0."""
    squares, _, diagonal = row_grams(tile, lambda part: None).unbind(-1)
    return _of_sequences(tile, squares + diagonal, tile.query_mask)


def _position(tile: AttentionTile) -> PerSequence:
    """ΣΣ |Aᵍ ⊙ Aʰ| / H² of each sequence, which is ‖Σ Aʰ‖_F² / H²."""
    mean = tile.rows.mean(1)
    return _of_sequences(tile, mean.square().sum((1, 2))[:, None], tile.query_mask)


def _output(tile: AttentionTile) -> PerSequence:
    """ΣΣ cos(Oᵍ, Oʰ) / H² of what the heads give, the valid queries of a sequence side by side."""
    return _of_sequences(tile, _mean_cosine(outputs_of(tile).z, tile.query_mask), tile.query_mask)


def _subspace(tile: AttentionTile) -> PerSequence:
    """ΣΣ cos(Vᵍ, Vʰ) / H² of what the heads read; heads that share a key-value head read the same."""
    return _of_sequences(tile, _mean_cosine(values_of(tile), tile.key_mask), tile.key_mask)


def _mean_cosine(vectors: Tensor, valid: Tensor) -> Tensor:
    """[batch, 1]: the mean cosine of two heads' matrices, each with itself too: ‖Σ Xʰ/‖Xʰ‖‖² / H²."""
    vectors = vectors if vectors.element_size() == 8 else vectors.float()
    flat = vectors.masked_fill(~valid[:, None, :, None], 0.0).flatten(2)
    return normalize(flat, dim=-1).mean(1).square().sum(-1)[:, None]


def _of_sequences(tile: AttentionTile, values: Tensor, valid: Tensor) -> PerSequence:
    """A total of `values` [batch, head or 1] of those rows of the batch axis that have anything `valid`."""
    counts = valid.any(-1)[:, None].double()
    return PerSequence.of(tile.sequences, (values.double() * counts)[..., None], counts[..., None])


TERMS: dict[str, Term] = {
    "lin": _column(Penalty(), "aat_heads", pairs=False),
    "within": Term(_within, _mean, pairs=False),
    "cosine": _column(Cosine(), "rcos_heads"),
    "kl": _column(KL(), "kl_mean", sign=-1.0),
    "js": _column(JensenShannon(), "js_mean", sign=-1.0),
    "subspace": Term(_subspace, _mean),
    "position": Term(_position, _mean),
    "output": Term(_output, _mean),
}
