"""What heads make of values, before the layer's output projection adds them up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from headprobe.errors import InputError


@dataclass(frozen=True)
class Unknown:
    """Something that capture could not get hold of, and why."""

    why: str


@dataclass(frozen=True, eq=False)
class Projection:
    """The linear map by which a layer writes what its heads give: head `h` writes o_h = z_h W_h.

    `path` is the module's, whose bias is no head's; `read()` gives its weights [head · feature, width], in whatever
    dtype they are.
    """

    path: str
    heads: int
    read: Callable[[], Tensor]

    def weights(self) -> Tensor:
        """[head, feature, width] float64."""
        weights: Tensor = self.read().double().unflatten(0, (self.heads, -1))
        return weights

    @cached_property
    def grams(self) -> Tensor:
        """[head, feature, feature] float64: W_h W_hᵀ, by which ‖z_h W_h‖² = z_h W_h W_hᵀ z_hᵀ."""
        weights = self.weights()
        return weights @ weights.mT


@dataclass(frozen=True, eq=False)
class Outputs:
    """What the heads of a tile's rows give, and what they make it of.

    `z` [batch, head, query, feature] is what the model's own attention gave, the heads apart: `A V`, with everything
    that the model does to it there. `values` [batch, kv head, key, feature] are known where z is `A V` and no more.
    """

    z: Tensor
    values: Tensor | Unknown
    projection: Projection | Unknown

    def change(self, z: Callable[[Tensor], Tensor], values: Callable[[Tensor], Tensor] | None = None) -> "Outputs":
        """With other parts of the batch or of the rows; values as they are, unless said."""
        known = self.values if values is None or isinstance(self.values, Unknown) else values(self.values)
        return replace(self, z=z(self.z), values=known)


Found = Outputs | Unknown | None  # None where nobody asked for them


def cut_outputs(found: Found, rows: slice) -> Found:
    """Those of some of a tile's rows."""
    return found.change(lambda z: z[:, :, rows]) if isinstance(found, Outputs) else found


def select_outputs(found: Found, part: slice) -> Found:
    """Those of some sequences of a tile's batch."""
    return found.change(lambda z: z[part], lambda values: values[part]) if isinstance(found, Outputs) else found


def outputs_bytes(found: Found) -> int:
    """What is kept alive with them beyond a tile's probabilities."""
    if not isinstance(found, Outputs):
        return 0
    kept = [found.z, *([] if isinstance(found.values, Unknown) else [found.values])]
    return sum(each.numel() * each.element_size() for each in kept)


def joined_outputs(found: Sequence[Found], device: torch.device) -> Found:
    """The outputs of several sites' heads over the same queries as one site's, in order."""
    known = [each for each in found if isinstance(each, Outputs)]
    if len(known) < len(found):
        return next(each for each in found if not isinstance(each, Outputs))
    if len({each.z.shape[-1] for each in known}) > 1:
        return Unknown("its heads are wider than those of other layers")
    z = torch.cat([each.z.to(device) for each in known], dim=1)
    return Outputs(z, Unknown("values of several layers are not joined"), _together(known))


def _together(known: list[Outputs]) -> Projection | Unknown:
    projections: list[Projection] = []
    for each in known:
        if isinstance(each.projection, Unknown):
            return each.projection
        projections.append(each.projection)

    def read() -> Tensor:
        weights = [projection.read() for projection in projections]
        if len({each.shape[-1] for each in weights}) > 1:
            raise InputError("E-OUTPUTS", "what layers write to streams of different widths has no cosine")
        return torch.cat([each.to(weights[0].device, weights[0].dtype) for each in weights])

    return Projection("pooled", sum(projection.heads for projection in projections), read)
