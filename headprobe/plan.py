"""What a scan will see and need, found without loading weights."""

import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headprobe.budget import FLOAT, TILES, Budget, most, sequences_at_once, times_computed
from headprobe.capture import observing
from headprobe.collect import check_choice, metrics_of, wants
from headprobe.errors import InputError
from headprobe.feed.pairs import BUILT_IN_COUNT as PAIRS
from headprobe.feed.random_inputs import inputs_for_plan
from headprobe.feed.takes import modality, reads
from headprobe.load.architecture import scanned, skeleton
from headprobe.load.checkpoint import (
    DTYPES,
    LOADING_FAULTS,
    Checkpoint,
    first_line,
    open_config,
    quiet,
    told,
)
from headprobe.load.collate import MOST_SEQUENCES, TOKENS_A_BATCH, model_limit
from headprobe.load.images import COUNT as IMAGES
from headprobe.load.sounds import COUNT as SOUNDS
from headprobe.metrics import Metric, reads_outputs
from headprobe.metrics.approximate import EXACT
from headprobe.metrics.fused import kernels
from headprobe.metrics.outputs import sums_bytes, sums_products, width
from headprobe.settings import LoadOptions, ScanOptions, parse_layers, parse_size
from headprobe.tile import AttentionTile, Site

BUILT_IN = {"text": 128, "image": IMAGES, "audio": SOUNDS, "image-text": PAIRS, "audio-text": PAIRS}
PASSES = 8  # of a weight through a row metric, each about the price of a logarithm
EAGER = 6  # such passes over the scores in a model's own attention
HEAD_SIZE = 64  # of a head, where the config does not tell
BLOCK = 128  # rows of a block of M1's Gram, of which the upper ones are computed
CALL = 0.015  # seconds that a site costs a forward pass whatever its size, measured on two cores
WRITTEN = 0.1  # of which a token that the model writes itself costs so much
LOOP = 0.5  # of torch's time for a logarithm is what the compiled loops take
LARGEST_ON_CPU = 500_000_000  # parameters of a model that may be built with random weights if it can't run on shapes


@dataclass(frozen=True)
class SiteShape:
    """One attention call, the shape of its probabilities for one sequence, and how a scan goes through it.

    `rows` of a sequence fit a tile; each is `computed` so often, on average. Its heads give `width` features together
    where that is asked, and a model in float32 keeps `source_bytes` alive to compute rows again, None where it can't.
    """

    site: Site
    queries: int
    keys: int
    width: int = 0
    source_bytes: int | None = None
    rows: int = 0
    computed: float = 1.0

    @property
    def probabilities(self) -> int:
        """How many there are."""
        return self.site.heads * self.queries * self.keys


@dataclass(frozen=True)
class Plan:
    """Sites in order of execution, and estimates in bytes and seconds for a scan with the given options.

    `attention_bytes` is a batch of the largest site's attention, `kept_bytes` what pairs across layers keep of a batch,
    `sums_bytes` what metrics of outputs hold, `peak_bytes` the most that weights, a forward pass's tiles and those take
    together.
    """

    model: str
    model_class: str
    parameters: int
    sites: tuple[SiteShape, ...]
    sequences: int
    length: int
    batch_size: int
    weight_bytes: int
    attention_bytes: int
    kept_bytes: int
    sums_bytes: int
    budget_bytes: int
    peak_bytes: int
    seconds: float
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The plan as JSON values."""
        simple = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "sites"}
        return {
            **simple,
            "sites": [
                {**asdict(s.site), "queries": s.queries, "keys": s.keys, "rows": s.rows, "computed": s.computed}
                for s in self.sites
            ],
        }


def plan(name: str, **given: Any) -> Plan:
    """Find a checkpoint's attention sites by running its code on tensors that have shapes and no values.

    Raises `HeadprobeError` for a checkpoint that can't be read, and where it has no attention.
    """
    options = ScanOptions.of(**given)
    metrics, _ = metrics_of(options)
    source, looked, config = open_config(name, options)

    def unloaded(device: str) -> Checkpoint:
        task = _skeleton(config, looked.folder, options, device)
        return Checkpoint(scanned(task), config, source, task_model=task)

    checkpoint = unloaded("meta")
    model = checkpoint.model
    length = min(options.max_length, model_limit(checkpoint))
    try:
        sites, notes = _sites(checkpoint, length, metrics)
    except LOADING_FAULTS as fault:  # code that looks at values
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if parameters > LARGEST_ON_CPU:
            raise InputError(
                "E-INSPECT", f"{type(model).__name__} can't be run without its weights: {first_line(fault)}"
            ) from fault
        with told("E-FORWARD", f"{type(model).__name__} fails on its inputs"):
            sites, notes = _sites(unloaded("cpu"), length, metrics)
    layers = None if options.layers is None else parse_layers(options.layers)
    check_choice([shape.site for shape in sites], layers, None if options.kind is None else [options.kind])
    chosen = tuple(shape for shape in sites if wants(shape.site, layers, options.kind))
    return replace(_plan(checkpoint, chosen, metrics, options, length), notes=notes)


def _skeleton(config: Any, folder: Path, options: LoadOptions, device: str) -> nn.Module:
    """The whole model, without its weights."""
    with (
        quiet(),
        told("E-CONFIG", f"no model can be made of the config of type {config.model_type}"),
        torch.device(device),
    ):
        model: nn.Module = skeleton(config, folder, options)
    return model.eval()


def _sites(checkpoint: Checkpoint, length: int, metrics: list[Metric]) -> tuple[tuple[SiteShape, ...], tuple[str, ...]]:
    """The sites of one sequence, and what the observer has to tell of layers that are none."""
    found: list[SiteShape] = []

    def note(tile: AttentionTile) -> None:
        source = None if tile.source is None else tile.source.bytes
        found.append(SiteShape(tile.site, tile.queries, tile.probs.shape[3], width(tile), source))

    model = checkpoint.model
    inputs = inputs_for_plan(checkpoint, length, next(model.parameters()).device)
    outputs = any(reads_outputs(metric) for metric in metrics)
    with quiet(), torch.no_grad(), observing(model, note, tile_bytes=2**62, outputs=outputs) as observer:
        model(**inputs)
    return tuple(found), tuple(observer.notes)


def _plan(
    checkpoint: Checkpoint, found: tuple[SiteShape, ...], metrics: list[Metric], options: ScanOptions, length: int
) -> Plan:
    model, budget = checkpoint.model, Budget(parse_size(options.max_memory))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    size = torch.empty(0, dtype=DTYPES.get(options.dtype, torch.float32)).element_size()
    sequences, batch = _batches(model, options, length, budget)
    sites = tuple(_cut(shape, budget, options.approx) for shape in found)
    largest = max(shape.probabilities for shape in sites) * batch * FLOAT
    across = options.pairs == "model"
    kept = batch * sum(_kept(shape, size) for shape in sites) if across else 0
    budget.check_kept(kept)
    widths = {shape.site: shape.width for shape in sites}
    sums = sums_bytes(metrics, widths, across=across, workers=torch.get_num_threads())
    budget.check_sums(sums)
    written = options.target_length if modality(model) == "text" and reads(model) and not options.target_text else 0
    calls = -(-sequences // batch) * len(sites) * (1 + written * WRITTEN)
    return Plan(
        model=checkpoint.source.name,
        model_class=type(checkpoint.task_model).__name__,
        parameters=parameters,
        sites=sites,
        sequences=sequences,
        length=max(s.queries for s in sites),
        batch_size=batch,
        weight_bytes=parameters * size,
        attention_bytes=largest,
        kept_bytes=kept,
        sums_bytes=sums,
        budget_bytes=budget.bytes,
        peak_bytes=parameters * size + min(TILES * largest + 2 * kept, budget.bytes) + sums,
        seconds=sequences * _seconds_a_sequence(model, sites, metrics, options) + calls * CALL,
    )


def _batches(model: Any, options: ScanOptions, length: int, budget: Budget) -> tuple[int, int]:
    """How many sequences a scan reads, and how many at a time."""
    is_text, built_in = modality(model) == "text", BUILT_IN.get(modality(model), 1)
    sequences = min(options.limit or built_in, built_in)
    fits = sequences_at_once(model.config, length, budget, across=options.pairs == "model")
    automatic = max(1, min(MOST_SEQUENCES, TOKENS_A_BATCH // length, fits)) if is_text else IMAGES
    return sequences, min(options.batch_size or automatic, sequences)


def _cut(shape: SiteShape, budget: Budget, approx: bool) -> SiteShape:
    """The site with its share of the budget. Raises `EnvironmentFailure` where not a single query fits."""
    rows = min(shape.queries, budget.rows(1, shape.site.heads, shape.keys))
    return replace(shape, rows=rows, computed=times_computed(shape.queries, rows, approx=approx))


def _kept(shape: SiteShape, bytes_a_number: int) -> int:
    """What pairs across layers keep of a site for a sequence: queries and keys, or its attention where that is less.

    Queries and keys are parts of larger tensors in some models, and what heads give comes with attention that is held.
    """
    held = shape.probabilities * max(FLOAT, bytes_a_number) + 2 * shape.queries * shape.width * bytes_a_number
    if shape.source_bytes is None:
        return held
    source = shape.source_bytes * bytes_a_number // FLOAT
    return min(held, source) if shape.rows == shape.queries else source


def _head_size(model: Any) -> int:
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    heads, width = most(config, "num_attention_heads"), most(config, "hidden_size")
    return most(config, "head_dim") or (width // heads if heads and width else HEAD_SIZE)


def _seconds_a_sequence(model: Any, sites: tuple[SiteShape, ...], metrics: list[Metric], options: ScanOptions) -> float:
    """Forward pass and metrics, from operation counts and two short measurements on this machine's CPU."""
    weights = sum(parameter.numel() for parameter in model.parameters()) - _embedded(model)
    operations = 2.0 * weights * max(s.queries for s in sites)
    has_pairs = any(metric.pairwise and not reads_outputs(metric) for metric in metrics)
    has_rows = any(metric.shape == "sequence" for metric in metrics)
    products = any(sums_products(metric) for metric in metrics)
    logarithms = 0.0
    for s in sites:
        attention = 4.0 * _head_size(model) * s.probabilities * s.computed
        is_estimated = not has_rows or (options.approx and s.queries > EXACT)
        operations += attention + (0 if is_estimated else _gram(s)) + products * 2.0 * s.queries * s.width**2
        pairs = (s.site.heads - 1) / 2 if has_pairs else 0
        logarithms += s.probabilities * (PASSES + EAGER * s.computed + pairs)
    flop, log = _measure()
    return float(operations * flop + logarithms * log)


def _gram(shape: SiteShape) -> float:
    """Operations of M1: the products of each row with all before it, over the keys that both see."""
    products = shape.queries * (shape.queries + min(BLOCK, shape.queries)) * shape.keys * shape.site.heads
    return products / 3 if shape.site.kind == "decoder" else float(products)


def _embedded(model: Any) -> int:
    """Parameters that are looked up and not multiplied with."""
    try:
        return sum(parameter.numel() for parameter in model.get_input_embeddings().parameters())
    except (NotImplementedError, AttributeError):
        return 0


def _measure() -> tuple[float, float]:
    """Seconds a floating point operation of a matrix product, and a logarithm with what goes with it."""
    matrix, vector = torch.rand(768, 768), torch.rand(2**18)
    best = [float("inf"), float("inf")]
    for _ in range(5):
        start = time.perf_counter()
        _ = matrix @ matrix
        middle = time.perf_counter()
        (vector + 1e-38).log_().mul_(vector).sum()
        end = time.perf_counter()
        best = [min(best[0], middle - start), min(best[1], end - middle)]
    return best[0] / (2 * 768**3), best[1] / 2**18 * (LOOP if kernels() is not None else 1)
