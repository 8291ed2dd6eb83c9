"""Holds what headprobe captures from one model type to what the model really computed."""

import copy
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from headprobe.capture import observing
from headprobe.errors import HeadprobeError
from headprobe.tile import AttentionTile
from tests.capture.watching import full
from tests.zoo.build import build
from tests.zoo.compare import PROOF, ROUNDED, TOLERANCE, distinct, same, signatures, stripped
from tests.zoo.inputs import Inputs, NotRunError, Values, complete, forward, inputs_for, one_line
from tests.zoo.shrink import NARROW, WIDE
from tests.zoo.truth import Recorder, recording

WHOLE, ONE_ROW = 2**30, 1
STRIPPABLE = 2_000_000  # numbers; larger maps would take long
FAILURES = ("missing", "wrong", "output changed", "crash")


@dataclass
class Result:
    """What came of one type; `verdict` begins with one of a few fixed words."""

    type: str
    verdict: str
    inputs: str = ""
    model: str = ""
    sites: int = 0
    softmaxes: int = 0
    layers: int = 0
    kinds: list[str] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)
    tiled: str = ""
    finite: bool = True

    @property
    def failed(self) -> bool:
        """True if headprobe does not do what it promises."""
        return self.verdict.startswith(FAILURES) or self.tiled.startswith(FAILURES)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check(model_type: str) -> Result:
    """Build, run, observe and compare one type."""
    ready = _ready(model_type)
    if isinstance(ready, Result):
        return ready
    model, inputs = ready
    result = _held(model, inputs, model_type)
    alone = _first(inputs)
    if "--batch-size 1" in result.verdict and forward(model, alone.values) is None:  # as a user is advised to
        single = _held(model, alone, model_type)
        return single if single.verdict == "exact" else result
    return result


def _first(inputs: Inputs) -> Inputs:
    """The first of two inputs: of what is packed, the first half."""
    values = {
        name: value[: len(value) // 2] if isinstance(value, Tensor) and value.dim() and len(value) % 2 == 0 else value
        for name, value in inputs.values.items()
    }
    return replace(inputs, values=values, label=f"{inputs.label}, one at a time")


def _held(model: PreTrainedModel, inputs: Inputs, model_type: str) -> Result:
    """A model that runs, observed and compared."""
    result = Result(model_type, "exact", model=type(model).__name__, inputs=inputs.label)
    plain = run(model, inputs.values)
    with recording(model) as truth:
        run(model, inputs.values)
    result.finite = all(bool(t.isfinite().all()) for t in flat(plain) if t.is_floating_point())
    expected = _expected(truth, result)
    result.verdict = _observe(model, inputs.values, plain, expected, WHOLE, result)
    if result.verdict == "exact":
        result.tiled = _observe(model, inputs.values, plain, expected, ONE_ROW, result)
        if result.tiled.startswith(("wrong", "output changed")):
            result.tiled = _proven(model, inputs, result)
    return result


def _proven(model: PreTrainedModel, inputs: Inputs, result: Result) -> str:
    """Tiles of one row in float64: what random weights make of another order of sums is gone there, a fault is not."""
    model = copy.deepcopy(model).double()
    values = {
        name: value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
        for name, value in inputs.values.items()
    }
    plain = run(model, values)
    with recording(model) as truth:
        run(model, values)
    expected = _expected(truth, Result(result.type, ""))
    verdict = _observe(model, values, plain, expected, ONE_ROW, result, PROOF)
    return "exact in float64" if verdict == "exact" else verdict


def _ready(model_type: str) -> tuple[PreTrainedModel, Inputs] | Result:
    """The smallest model that runs on all that its forward takes, else one that runs at all."""
    tries = []
    for level in (NARROW, WIDE):
        tries.append(_try(model_type, level))
        if _complete(tries[-1]):
            break
    return max(tries, key=_worth)


def _complete(found: tuple[PreTrainedModel, Inputs] | Result) -> bool:
    """True if a wider model can't run on more."""
    return isinstance(found, tuple) and complete(*found)


def _worth(found: tuple[PreTrainedModel, Inputs] | Result) -> int:
    return len(found[1].label) + 2 if isinstance(found, tuple) else int(found.verdict.startswith("not run"))


def _try(model_type: str, level: int) -> tuple[PreTrainedModel, Inputs] | Result:
    try:
        model = build(model_type, level)
    except Exception as error:  # noqa: BLE001 - any failure is a line of the table
        return Result(model_type, f"not built: {one_line(error).removeprefix('NotBuiltError: ')}")
    try:
        return model, inputs_for(model, model_type)
    except NotRunError as error:
        return Result(model_type, f"not run: {error}", model=type(model).__name__)


def run(model: PreTrainedModel, values: Values) -> Any:
    """The model's output; models that draw random numbers draw the same ones every time."""
    torch.manual_seed(0)
    with torch.no_grad():
        return model(**values)


def _expected(truth: Recorder, result: Result) -> dict[str, list[Tensor]]:
    expected: dict[str, list[Tensor]] = defaultdict(list)
    for softmax in truth.found:
        if softmax.excluded:
            result.excluded[softmax.excluded] = result.excluded.get(softmax.excluded, 0) + 1
        else:
            expected[softmax.path].append(softmax.probs.movedim(softmax.dim, -1))
    result.softmaxes = sum(map(len, expected.values()))
    return expected


def _observe(
    model: PreTrainedModel,
    values: Values,
    plain: Any,
    expected: dict[str, list[Tensor]],
    tile_bytes: int,
    result: Result,
    tolerance: float = TOLERANCE,
) -> str:
    tiles: list[tuple[AttentionTile, Tensor]] = []

    def receive(tile: AttentionTile) -> None:
        tiles.append((tile, full(tile).clone()))

    try:
        with observing(model, receive, tile_bytes=tile_bytes) as observer:
            output = run(model, values)
    except HeadprobeError as error:
        if not expected and error.code == "E-NOATTN":
            return "no softmax attention"
        return f"refused: {error}"
    except Exception as error:  # noqa: BLE001 - any failure is a line of the table
        return f"crash: {one_line(error)}"
    sites = observer.sites
    result.sites, result.kinds = len(sites), sorted({site.kind for site in sites})
    result.layers = len({(site.kind, site.layer) for site in sites})
    changed = difference(plain, output) if tile_bytes == WHOLE else difference(_own(plain), _own(output))
    if changed > (0.0 if tile_bytes == WHOLE else 10 * tolerance):
        return f"output changed by {changed:.2g}"
    return _compare(expected, tiles, tolerance)


def _compare(expected: dict[str, list[Tensor]], tiles: list[tuple[AttentionTile, Tensor]], tolerance: float) -> str:
    captured: dict[str, list[tuple[AttentionTile, Tensor]]] = defaultdict(list)
    for tile, probs in tiles:
        captured[tile.site.path].append((tile, probs))
        if probs.shape[1] != tile.site.heads:
            return f"wrong: {tile.site.path} has {tile.site.heads} heads and a tile of {list(probs.shape)}"
    missing = [path for path in expected if path not in captured]
    if missing:
        return f"missing: {len(missing)} of {len(expected)} modules: {', '.join(missing[:3])}"
    if extra := [path for path in captured if path not in expected]:
        return f"wrong: {len(extra)} sites without a softmax: {', '.join(extra[:3])}"
    for path, maps in expected.items():
        rounded = tolerance == PROOF and any(true.dtype == torch.float32 for true in maps)
        bound = ROUNDED if rounded else tolerance
        problems = [same(signatures(true), signatures(seen), bound) for true, seen in _readings(maps, captured[path])]
        if all(problems):
            return f"wrong: {path}: {problems[0]}"
    return "exact"


def _readings(
    maps: list[Tensor], seen: list[tuple[AttentionTile, Tensor]]
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """As they are; repeated maps once; without the column of a sink, which some models have no softmax over."""
    probs = [probs for _, probs in seen]
    yield maps, probs
    yield distinct(maps), probs
    if any(tile.site.sink for tile, _ in seen):
        yield maps, [p[..., :-1] if tile.site.sink else p for tile, p in seen]
    if sum(p.numel() for p in maps) < STRIPPABLE:
        yield stripped(maps), stripped(probs)


def _own(output: Any) -> Any:
    """An output without the maps in it, which are not made while tiles are small."""
    return {k: v for k, v in output.items() if "attention" not in k} if isinstance(output, dict) else output


def flat(output: Any) -> Iterator[Tensor]:
    """Every tensor of an output, caches left out."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from flat(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from flat(value)


def difference(left: Any, right: Any) -> float:
    """How far two outputs are apart, in parts of the largest value; infinite where they are not alike."""
    worst = 0.0
    a, b = list(flat(left)), list(flat(right))
    if [t.shape for t in a] != [t.shape for t in b]:
        return float("inf")
    for one, two in zip(a, b, strict=True):
        if one.numel() and not torch.equal(one, two):
            worst = max(worst, _apart(one, two))
    return worst


def _apart(one: Tensor, two: Tensor) -> float:
    if not torch.equal(one.isfinite(), two.isfinite()):
        return float("inf")
    one, two = (t.double().nan_to_num(0.0, 0.0, 0.0) for t in (one, two))
    return float((one - two).abs().max() / one.abs().max().clamp(min=1.0))
