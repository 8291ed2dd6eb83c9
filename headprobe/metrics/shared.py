"""What several metrics need of a tile, each computed once and only if asked for: `tile.once(row_entropy)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headprobe.metrics.totals import PairSums, PerSequence

if TYPE_CHECKING:
    from torch import Tensor

    from headprobe.tile import AttentionTile

TINY = 1e-38  # added before a logarithm: below any probability that matters, above float32's zero


def row_entropy(tile: AttentionTile) -> Tensor:
    """[batch, head, query]: H = -sum of p ln p, in nats, with 0 ln 0 = 0; zero at padding."""
    return -(tile.rows + TINY).log_().mul_(tile.rows).sum(-1)


def head_gram(tile: AttentionTile) -> Tensor:
    """[batch, query, head, head]: dot products of the heads' rows of the same query; zero at padding."""
    rows = tile.rows.transpose(1, 2)
    return rows @ rows.mT


def comparable(tile: AttentionTile) -> Tensor:
    """[batch, query] bool: queries that see at least two keys. With one, every head has the same forced row."""
    return tile.support_size >= 2


def per_sequence(tile: AttentionTile, sums: Tensor, counts: Tensor) -> PerSequence:
    """A total of the tile's sequences: `sums` [batch, head, column] and `counts` [batch, column], made float64."""
    return PerSequence(tile.sequences, sums.double(), counts.double()[:, None, :])


def mean_over_queries(tile: AttentionTile, columns: list[tuple[Tensor, Tensor]]) -> PerSequence:
    """A total of per-query values: each column is a value [batch, head, query] and the queries [batch, query] it is for."""
    import torch

    sums = [(value * where[:, None]).sum(-1, dtype=torch.float64) for value, where in columns]
    counts = [where.sum(-1) for _, where in columns]
    return per_sequence(tile, torch.stack(sums, -1), torch.stack(counts, -1))


def pair_sums(tile: AttentionTile, sums: Tensor, mean_of: int = 0) -> PairSums:
    """A total of pair sums [batch, column, head, head] over the tile's comparable queries.

    Column `mean_of` is also kept for each sequence and head, averaged over the other heads.
    """
    heads = sums.shape[-1]
    count = comparable(tile).sum(-1).double()
    others = sums[:, mean_of].sum(-1) - sums[:, mean_of].diagonal(dim1=-2, dim2=-1)
    has_others = count * float(heads > 1)
    rows = per_sequence(tile, others[..., None] / max(heads - 1, 1), has_others[:, None])
    return PairSums(sums.sum(0), count.sum(), rows)


def mean_of_pairs(matrix: Tensor) -> Tensor:
    """Mean of a [head, head] matrix off its diagonal; NaN for a single head."""
    heads = matrix.shape[0]
    return (matrix.sum() - matrix.diagonal().sum()) / (heads * (heads - 1) if heads > 1 else float("nan"))
