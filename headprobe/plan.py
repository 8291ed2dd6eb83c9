"""What a scan will see and need, found without loading weights."""

import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headprobe.capture import observing
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
from headprobe.metrics.fused import kernels
from headprobe.settings import LoadOptions, ScanOptions, parse_size
from headprobe.tile import AttentionTile, Site

BUILT_IN = {"text": 128, "image": IMAGES, "audio": SOUNDS, "image-text": PAIRS, "audio-text": PAIRS}
COPIES = 8  # of a tile's probabilities that live at once, at most: the model's own and what metrics make of them
PASSES = 8  # of a weight through a row metric, each about the price of a logarithm
CALL = 0.015  # seconds that a site costs a forward pass whatever its size, measured on two cores
WRITTEN = 0.1  # of which a token that the model writes itself costs so much
LOOP = 0.5  # of torch's time for a logarithm is what the compiled loops take
LARGEST_ON_CPU = 500_000_000  # parameters of a model that may be built with random weights if it can't run on shapes


@dataclass(frozen=True)
class SiteShape:
    """One attention call and the shape of its probabilities for one sequence."""

    site: Site
    queries: int
    keys: int


@dataclass(frozen=True)
class Plan:
    """Sites in order of execution, and estimates in bytes and seconds for a scan with the given options."""

    model: str
    model_class: str
    parameters: int
    sites: tuple[SiteShape, ...]
    sequences: int
    length: int
    batch_size: int
    weight_bytes: int
    attention_bytes: int
    peak_bytes: int
    seconds: float
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The plan as JSON values."""
        simple = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "sites"}
        return {**simple, "sites": [{**asdict(s.site), "queries": s.queries, "keys": s.keys} for s in self.sites]}


def plan(name: str, **given: Any) -> Plan:
    """Find a checkpoint's attention sites by running its code on tensors that have shapes and no values.

    Raises `HeadprobeError` for a checkpoint that can't be read, and where it has no attention.
    """
    options = ScanOptions.of(**given)
    source, looked, config = open_config(name, options)

    def unloaded(device: str) -> Checkpoint:
        task = _skeleton(config, looked.folder, options, device)
        return Checkpoint(scanned(task), config, source, task_model=task)

    checkpoint = unloaded("meta")
    model = checkpoint.model
    length = min(options.max_length, model_limit(checkpoint))
    try:
        sites, notes = _sites(checkpoint, length)
    except LOADING_FAULTS as fault:  # code that looks at values
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if parameters > LARGEST_ON_CPU:
            raise InputError(
                "E-INSPECT", f"{type(model).__name__} can't be run without its weights: {first_line(fault)}"
            ) from fault
        with told("E-FORWARD", f"{type(model).__name__} fails on its inputs"):
            sites, notes = _sites(unloaded("cpu"), length)
    return replace(_plan(checkpoint, sites, options, length), notes=notes)


def _skeleton(config: Any, folder: Path, options: LoadOptions, device: str) -> nn.Module:
    """The whole model, without its weights."""
    with (
        quiet(),
        told("E-CONFIG", f"no model can be made of the config of type {config.model_type}"),
        torch.device(device),
    ):
        model: nn.Module = skeleton(config, folder, options)
    return model.eval()


def _sites(checkpoint: Checkpoint, length: int) -> tuple[tuple[SiteShape, ...], tuple[str, ...]]:
    """The sites of one sequence, and what the observer has to tell of layers that are none."""
    found: list[SiteShape] = []

    def note(tile: AttentionTile) -> None:
        found.append(SiteShape(tile.site, tile.queries, tile.probs.shape[3]))

    model = checkpoint.model
    inputs = inputs_for_plan(checkpoint, length, next(model.parameters()).device)
    with quiet(), torch.no_grad(), observing(model, note, tile_bytes=2**62) as observer:
        model(**inputs)
    return tuple(found), tuple(observer.notes)


def _plan(checkpoint: Checkpoint, sites: tuple[SiteShape, ...], options: ScanOptions, length: int) -> Plan:
    model = checkpoint.model
    is_text = modality(model) == "text"
    built_in = BUILT_IN.get(modality(model), 1)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    sequences = min(options.limit or built_in, built_in)
    automatic = max(1, min(MOST_SEQUENCES, TOKENS_A_BATCH // length)) if is_text else IMAGES
    batch = min(options.batch_size or automatic, sequences)
    largest = max(s.site.heads * s.queries * s.keys for s in sites) * batch * 4
    passes = -(-sequences // batch)
    written = options.target_length if is_text and reads(model) and not options.target_text else 0
    calls = passes * len(sites) * (1 + written * WRITTEN)
    size = torch.empty(0, dtype=DTYPES.get(options.dtype, torch.float32)).element_size()
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
        peak_bytes=parameters * size + min(COPIES * largest, parse_size(options.max_memory)),
        seconds=sequences * _seconds_a_sequence(model, sites) + calls * CALL,
    )


def _seconds_a_sequence(model: Any, sites: tuple[SiteShape, ...]) -> float:
    """Forward pass and metrics, from operation counts and two short measurements on this machine's CPU."""
    embedded = _embedded(model)
    tokens = max(s.queries for s in sites)
    weights = sum(parameter.numel() for parameter in model.parameters()) - embedded
    gram = sum(2 * s.site.heads * s.queries**2 * s.keys for s in sites)
    elements = sum(s.site.heads * s.queries * s.keys for s in sites)
    pair_elements = sum(s.site.heads * (s.site.heads - 1) // 2 * s.queries * s.keys for s in sites)
    flop, log = _measure()
    return float((2 * weights * tokens + gram) * flop + (PASSES * elements + pair_elements) * log)


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
