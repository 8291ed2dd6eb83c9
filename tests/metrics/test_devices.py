"""No metric waits for a device: no value of a tile is looked at from Python, whatever the tile looks like."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from headprobe import devices
from headprobe.masks import Known
from headprobe.metrics import METRICS, Metric, approximate
from headprobe.testing import with_outputs
from headprobe.tile import AttentionTile, Site, Source
from tests.metrics.test_fused import MASKS, attention, same

LOOKS = (
    "aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::nonzero",
    "aten::nonzero_numpy", "aten::masked_select", "aten::unique_dim", "aten::_unique2", "aten::argwhere",
    "aten::allclose", "aten::repeat_interleave.Tensor",
)  # fmt: skip
OTHER = "lazy:1"  # the one accelerator whose tensors without values need no driver
METHODS = ("numpy", "tolist", "cpu", "item", "__array__", "new_tensor")
MAKERS = ("tensor", "as_tensor", "from_numpy")  # of values that lie here, whose copy a device is waited for


class Looks(TorchDispatchMode):
    """Counts what would stop the program until a device is done, were the tensors on one."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves its modes unannotated
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name.startswith(LOOKS) or _picks(name, args) or _leaves(name, args, kwargs or {}):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def _picks(name: str, args: Any) -> bool:
    """True for an index of booleans, whose result is as long as values say."""
    if not name.startswith(("aten::index.", "aten::index_put", "aten::_index_put")):
        return False
    return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in args[1])


def _leaves(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    to = kwargs.get("device")
    return name == "aten::_to_copy" and to is not None and torch.device(to) != args[0].device


@contextmanager
def looking(patch: pytest.MonkeyPatch) -> Iterator[Looks]:
    """Inside, tensors are taken to be on an accelerator, and whoever looks at one is counted."""
    looks = Looks()
    with patch.context() as inside, looks:
        inside.setattr(devices, "at_hand", lambda _: False)
        for place, names in ((torch.Tensor, METHODS), (torch, MAKERS)):
            for name in names:
                inside.setattr(place, name, _counted(looks, place, name))
        yield looks


def _counted(looks: Looks, place: Any, name: str) -> Any:
    original = getattr(place, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        looks.seen[name] += 1
        return original(*args, **kwargs)

    return call


def tiles(mask: str, *, zeros: bool = False, sink: bool = False) -> list[AttentionTile]:
    """A whole tile of self-attention, and one of cross-attention."""
    self_attention = attention(7, mask, heads=4, zeros=zeros)
    cross = attention(8, mask, queries=5, keys=9, zeros=zeros)
    both = [self_attention, replace(cross, site=replace(cross.site, kind="cross"))]
    return [_with_sink(tile) for tile in both] if sink else both


def _with_sink(tile: AttentionTile) -> AttentionTile:
    """The same with a virtual key that takes a third of each row."""
    third = tile.probs.new_full((*tile.probs.shape[:3], 1), 1 / 3)
    pad = torch.nn.functional.pad
    structure = None if tile.structure is None else pad(tile.structure, (0, 1), value=True)
    return replace(
        tile,
        site=replace(tile.site, sink=True),
        probs=torch.cat([tile.probs * (2 / 3), third], -1),
        key_mask=pad(tile.key_mask, (0, 1), value=True),
        key_positions=pad(tile.key_positions, (0, 1), value=-1),
        special_keys=None if tile.special_keys is None else pad(tile.special_keys, (0, 1)),
        structure=structure,
    )


def in_parts(tile: AttentionTile, rows: int) -> list[AttentionTile]:
    """The tile's rows a few at a time, each with a way to the others."""
    source = Source(tile.cut, rows, rows)
    edges = range(0, tile.queries, rows)
    return [replace(tile.cut(first, min(first + rows, tile.queries)), source=source) for first in edges]


def total(metric: Metric, parts: list[AttentionTile]) -> Any:
    """The sum of what a metric makes of tiles that nobody has looked at before."""
    first, *rest = (metric.observe(replace(part)) for part in parts)
    for each in rest:
        first = first + each
    return first


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("shape", ["plain", "zeros", "sink"])
def test_no_metric_looks_at_a_device(metric: Metric, mask: str, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for tile in tiles(mask, zeros=shape == "zeros", sink=shape == "sink"):
        for parts in ([tile], in_parts(tile, 3)):
            expected = metric.compute(total(metric, parts))
            with looking(monkeypatch) as looks:
                found = total(metric, parts)
            assert not looks.seen
            same(metric.compute(found), expected)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("mask", ["full", "causal", "left"])
def test_what_is_known_of_masks_changes_nothing(metric: Metric, mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    padded = attention(9, mask)
    for tile, full in ((padded, False), (padded.select(0, 1), True)):
        told = replace(tile, known=Known(full=full, intervals=True))
        with looking(monkeypatch) as looks:
            found, plain = metric.observe(told), metric.observe(replace(tile))
        assert not looks.seen
        same(metric.compute(found), metric.compute(plain))
        same(metric.compute(found), metric.compute(metric.observe(replace(tile))))


@pytest.mark.parametrize("mask", ["full", "causal", "left", "holes"])
def test_an_estimate_looks_once_where_rows_must_be_counted(mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "EXACT", 8)
    metric, tile = approximate.ApproximateRedundancy(), attention(3, mask, queries=60, keys=60)
    for part, full in ((tile, False), (tile.select(0, 1), True)):
        expected = metric.compute(total(metric, in_parts(part, 20)))
        told = replace(part, known=Known(full=full, intervals=mask != "holes"))
        with looking(monkeypatch) as looks:
            found = total(metric, in_parts(told, 20))
        estimates = 1 if mask != "holes" else 2  # of the heads, and of uniform attention
        assert set(looks.seen) <= {"tolist"}
        assert looks.seen.total() == (0 if full else estimates)
        same(metric.compute(found), expected)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("mask", ["full", "causal"])
@pytest.mark.parametrize("device", [OTHER, "meta"])
def test_every_metric_stays_on_the_device_of_its_tile(metric: Metric, mask: str, device: str) -> None:
    """Tensors without values refuse to be looked at, and to be mixed with those of another device."""
    with FakeTensorMode() if device != "meta" else nullcontext():
        tile = without_values(mask, device)
        for parts in ([tile], in_parts(tile, 3)):
            devices_of = {tensor.device for tensor in tensors_of(total(metric, parts))}
            assert devices_of == {torch.device(device)}


def without_values(mask: str, device: str) -> AttentionTile:
    probs = torch.empty(2, 3, 7, 7, device=device)
    causal = torch.ones(1, 7, 7, dtype=torch.bool, device=device).tril()
    key_mask = torch.ones(2, 7, dtype=torch.bool, device=device)
    site = Site(0, "site", "decoder" if mask == "causal" else "encoder", 0, 3, 3)
    structure = causal if mask == "causal" else None
    tile = AttentionTile.of(
        probs, site=site, query_mask=key_mask, key_mask=key_mask, structure=structure, special_keys=key_mask
    )
    return with_outputs(tile)


def tensors_of(total: Any) -> Iterator[torch.Tensor]:
    """All tensors of a total, however it is made."""
    if isinstance(total, torch.Tensor):
        yield total
    elif isinstance(total, dict | tuple | list):
        for part in total.values() if isinstance(total, dict) else total:
            yield from tensors_of(part)
    elif is_dataclass(total):
        for field in fields(total):
            yield from tensors_of(getattr(total, field.name))
