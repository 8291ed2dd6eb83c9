"""What metrics of heads' outputs share: how to get at them, and the sums from which every pair is computed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headprobe.errors import InputError
from headprobe.metrics.contract import Metric, reads_outputs
from headprobe.metrics.shared import valid_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from headprobe.outputs import Outputs, Projection
    from headprobe.tile import AttentionTile, Site

NOISE = 1e-20  # of the square of a head's mean: below it lies what float64 leaves of a head that always gives the same
DOUBLE = 8  # bytes
MOVED = 2  # times as much as is added: about the other point, and the sum that is replaced
HINT = "Leave out what needs it (cka, ocos, norms; the penalties output and subspace), or choose other layers."


def outputs_of(tile: AttentionTile) -> Outputs:
    """What the tile's heads give. Raises `InputError` where that is not known."""
    from headprobe.outputs import Outputs

    if tile.outputs is None:
        raise InputError("E-OUTPUTS", f"{tile.site.path} came without its outputs", "Observe with outputs=True.")
    if not isinstance(tile.outputs, Outputs):
        raise _unknown(tile, "what its heads give", tile.outputs.why)
    return tile.outputs


def projection_of(tile: AttentionTile) -> Projection:
    """The projection by which the tile's heads write. Raises `InputError` where there is none."""
    from headprobe.outputs import Unknown

    projection = outputs_of(tile).projection
    if isinstance(projection, Unknown):
        raise _unknown(tile, "what its heads write", projection.why)
    return projection


def values_of(tile: AttentionTile) -> Tensor:
    """[batch, kv head, key, feature]: what a learned sink has, zeros, included. Raises `InputError` if not known."""
    import torch

    from headprobe.outputs import Unknown

    values = outputs_of(tile).values
    if isinstance(values, Unknown):
        raise _unknown(tile, "what its heads read", values.why)
    return torch.nn.functional.pad(values, (0, 0, 0, int(tile.site.sink)))


def width(tile: AttentionTile) -> int:
    """How many features the tile's heads give together; 0 where that is not known."""
    from headprobe.outputs import Outputs

    return tile.site.heads * tile.outputs.z.shape[-1] if isinstance(tile.outputs, Outputs) else 0


def sums_products(metric: Metric) -> bool:
    """True for a metric that keeps products of all features of the heads' outputs with each other."""
    return metric.pairwise and reads_outputs(metric)


def sums_bytes(metrics: Sequence[Metric], widths: Mapping[Site, int], *, across: bool, workers: int) -> int:
    """What metrics of outputs hold until a scan is over, for sites whose heads give so many features together.

    Products of features of each site, and where layers are compared of all sites of a kind, with what is there while
    parts of a tile are added to them; or W Wᵀ of each head.
    """
    products = sum(sums_products(metric) for metric in metrics)
    others = sum(reads_outputs(metric) for metric in metrics) - products
    kinds: Counter[str] = Counter()
    for site, features in widths.items():
        kinds[site.kind] += features if across else 0
    kept = sum(features**2 for features in (*widths.values(), *kinds.values()))
    parts = (workers + MOVED) * max(widths.values(), default=0) ** 2
    room = max(parts, (1 + MOVED) * max(kinds.values(), default=0) ** 2) if products else 0
    grams = sum(features**2 // site.heads for site, features in widths.items())
    return DOUBLE * (products * kept + room + others * grams)


def _unknown(tile: AttentionTile, what: str, why: str) -> InputError:
    return InputError("E-OUTPUTS", f"{what} is not known of {tile.site.path}: {why}", HINT)


@dataclass(frozen=True)
class OutputSums:
    """Sums over queries of y = z - `at`, z the heads' outputs side by side, [head · feature], in float64.

    `at` is a point near their mean: of large means and small differences the differences are left. `first` is Σ y,
    `second` Σ y yᵀ, `third` [head, head · feature] Σ ‖y_g‖² y and `fourth` [head, head] Σ ‖y_g‖² ‖y_h‖².
    """

    at: Tensor
    count: Tensor
    first: Tensor
    second: Tensor
    third: Tensor
    fourth: Tensor

    def __add__(self, other: OutputSums) -> OutputSums:
        at = self.at.where(self.count > 0, other.at)  # of nothing all sums are zero, wherever they are taken
        mine, other = replace(self, at=at), other.moved(at)
        return OutputSums(
            at,
            mine.count + other.count,
            mine.first + other.first,
            other.second.add_(mine.second),  # which is its own, and the largest by far
            mine.third + other.third,
            mine.fourth + other.fourth,
        )

    @property
    def heads(self) -> int:
        """How many there are."""
        return len(self.fourth)

    def by_head(self, values: Tensor) -> Tensor:
        """[..., head, feature] of [..., head · feature]."""
        split: Tensor = values.unflatten(-1, (self.heads, -1))
        return split

    @property
    def norms(self) -> Tensor:
        """[head]: Σ ‖y_h‖²."""
        norms: Tensor = self.by_head(self.second.diagonal()).sum(-1)
        return norms

    def moved(self, at: Tensor) -> OutputSums:
        """The same outputs about another point: y - d, for d how far that is away."""
        d = at - self.at
        size, along, norms = self.by_head(d * d).sum(-1), self.by_head(d * self.first).sum(-1), self.norms  # [head]
        pulled = (self.by_head(self.second).transpose(0, 1) @ self.by_head(d)[..., None])[..., 0]
        # [head, head · feature]: Σ (d_g · y_g) y
        cross = self.by_head(d * self.third).sum(-1)  # [head, head]: Σ ‖y_g‖² (d_h · y_h)
        both = self.by_head(d * pulled).sum(-1)  # [head, head]: Σ (d_g · y_g) (d_h · y_h)
        moved = norms - 2 * along + self.count * size  # Σ ‖y_g - d_g‖²
        half = size[:, None] * (norms - 2 * along + self.count * size / 2) - 2 * cross
        return OutputSums(
            at,
            self.count,
            self.first - self.count * d,
            self.second.addr(d, self.first, alpha=-1).addr_(self.first, d, alpha=-1).addr_(self.count * d, d),
            self.third - 2 * pulled + size[:, None] * self.first - moved[:, None] * d,
            self.fourth + half + half.T + 4 * both,
        )

    def centred(self) -> OutputSums:
        """The same about their mean."""
        return self.moved(self.at + self.first / self.count.clamp(min=1))

    def constant(self) -> Tensor:
        """[head] bool, of centred sums: heads that give the same for every query."""
        constant: Tensor = self.norms <= NOISE * self.count * self.by_head(self.at).square().sum(-1)
        return constant

    def blocks(self) -> Tensor:
        """[head, feature, head, feature]: the second sums by pairs of heads."""
        blocks: Tensor = self.by_head(self.second).unflatten(0, (self.heads, -1))
        return blocks


def output_sums(tile: AttentionTile) -> OutputSums:
    """The sums over the tile's valid queries, about their mean."""
    rows = tile.once(valid_rows)
    z = rows.values(outputs_of(tile).z.transpose(1, 2)).double()  # [row, head, feature]
    valid = rows.size >= 0
    count = valid.sum().double()
    at = z.sum(0) / count.clamp(min=1)
    y = rows.kept(z - at)
    norms, flat = y.square().sum(-1), y.flatten(1)
    return OutputSums(at.flatten(), count, flat.sum(0), flat.T @ flat, norms.T @ flat, norms.T @ norms)
