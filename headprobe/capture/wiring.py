"""What a call's heads gave, and which module reads it: found in a forward pass of its own, never from a list."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from headprobe.capture.calls import Made, Piece
from headprobe.capture.linear import weights_of
from headprobe.capture.numbers import is_near
from headprobe.outputs import Outputs, Projection, Unknown
from headprobe.tile import Site

UNSEEN = "it was not there in the first forward pass"
BYPASSED = "it computes its attention by itself, so that its values are not seen"
CHANGED = "no linear module reads what its heads give: that is gated, normed or moved first"
MORE = "its attention is more than a mean of values"
ROUNDED = 1e-3  # of a mean of values


@dataclass
class Wire:
    """What is known of a site: what its heads gave in this pass, who reads that, and whether it is A V."""

    rows: list[Tensor] = field(default_factory=list)
    readers: list[Projection] = field(default_factory=list)
    is_mean: bool = True

    @property
    def projection(self) -> Projection | Unknown:
        """The module that reads it, if that is one."""
        if len(self.readers) == 1:
            return self.readers[0]
        paths = " and ".join(reader.path for reader in self.readers)
        return Unknown(f"{paths} both read what its heads give" if paths else CHANGED)


class Wiring:
    """Which module reads what each site's heads give: told before the first tile, by one more run of that pass.

    It is the linear module whose input is, value by value, what the attention gave; where one such is a part of
    another, like the base of an adapter, the outer one.
    """

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self.looking = False
        self.widths: dict[Site, int] = {}  # features that a site's heads give together
        self._looked = False
        self._wires: dict[Site, Wire] = {}

    def look(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the model as it is about to be run, unless that was done before: on copies of what a pass changes."""
        if not self.wanted or self._looked or self.looking:  # the pass comes here again
            return
        if any(isinstance(value, Tensor) and value.is_meta for value in (*args, *kwargs.values())):
            return  # shapes have no values by which to find anything
        self._wires.clear()
        self.looking = True
        caches = {name: copy.deepcopy(value) for name, value in kwargs.items() if not isinstance(value, Tensor)}
        try:
            with torch.random.fork_rng(devices=[]):
                model(*args, **kwargs | caches)
            self._looked = True
        finally:  # a pass that fails is not the last, perhaps
            self.looking = False
            for wire in self._wires.values():
                wire.rows.clear()

    # --- the run that looks -------------------------------------------------------------------------------------

    def check(self, site: Site, made: Made | Unknown | None, probs: Tensor) -> None:
        """Some queries of a call, with their probabilities: are they the mean of the values?"""
        if isinstance(made, Made):
            wire = self._wires.setdefault(site, Wire())
            wire.is_mean = wire.is_mean and _is_mean(made, probs)

    def give(self, site: Site, made: Made | Unknown | None) -> None:
        """What a call's heads gave waits for who reads it."""
        if not isinstance(made, Made):
            return
        for other, wire in self._wires.items():
            if other is not site and wire.readers:
                wire.rows.clear()
        rows = made.z.transpose(1, 2).flatten(2)
        self.widths[site] = rows.shape[2]
        self._wires.setdefault(site, Wire()).rows.append(rows.flatten(0, 1).clone())  # which may be gated in place

    def ran(self, path: str, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        """A module has run: is it what reads a site's heads?"""
        if not self.looking or len(given) != 1 or not isinstance(given[0], Tensor) or not isinstance(output, Tensor):
            return
        for site, wire in self._wires.items():
            if wire.rows and _reads(given[0], wire.rows) and not _is_same(given[0], output):
                with self._resting():
                    weights = weights_of(module, given[0], output)
                if weights is not None:
                    wire.readers = [reader for reader in wire.readers if not reader.path.startswith(f"{path}.")]
                    wire.readers.append(Projection(path, site.heads, weights))

    @contextmanager
    def _resting(self) -> Iterator[None]:
        """A module that is run for its weights reads nobody's heads."""
        self.looking = False
        try:
            yield
        finally:
            self.looking = True

    # --- afterwards ---------------------------------------------------------------------------------------------

    def outputs(self, site: Site, piece: Piece, made: Made | Unknown | None, at: tuple[int, int]) -> Outputs | Unknown:
        """Of a tile of `piece` that holds the queries of `made`, which begin `at` one, over so many of its keys."""
        wire = self._wires.get(site)
        if not isinstance(made, Made):
            return made or Unknown(BYPASSED)
        if wire is None:
            unseen = Unknown(UNSEEN)
            return Outputs(made.z, unseen, unseen) if made.z.is_meta else unseen
        if isinstance(wire.projection, Unknown) and not wire.is_mean:
            return Unknown(MORE)  # and nothing tells which of its axes is which
        start, keys = at
        z = piece.own_queries(made.z, start)
        values = made.values[:, :, piece.keys][:, :, :keys] if wire.is_mean else Unknown(MORE)
        return Outputs(z, values, wire.projection)


def _reads(given: Tensor, rows: list[Tensor]) -> bool:
    """True if these are the rows [row, feature], batch first or position first."""
    if given.dim() < 2 or given.shape[-1] != rows[0].shape[-1] or given.numel() != sum(each.numel() for each in rows):
        return False
    expected = torch.cat(rows).to(given.dtype)
    ways = [given] if given.dim() != 3 else [given, given.transpose(0, 1)]
    return any(torch.allclose(way.reshape(expected.shape), expected, rtol=0, atol=0, equal_nan=True) for way in ways)


def _is_same(one: Tensor, other: Tensor) -> bool:
    """True for what a module hands on unchanged, like dropout that rests."""
    return one.shape == other.shape and torch.equal(one, other)


def _is_mean(made: Made, probs: Tensor) -> bool:
    """True if what the heads gave is A V: nothing was added to it on the way."""
    shared, dtype = probs.shape[1] // made.values.shape[1], torch.promote_types(probs.dtype, torch.float32)
    values = made.values[:, :, : probs.shape[3]].to(dtype).repeat_interleave(shared, 1)
    if probs.shape[:3] != made.z.shape[:3] or values.shape[2] != probs.shape[3]:
        return False
    z, mean = made.z.to(dtype), probs.to(dtype) @ values
    known = z.isfinite() & mean.isfinite()
    return is_near(z[known], mean[known], ROUNDED, made.z.dtype)
