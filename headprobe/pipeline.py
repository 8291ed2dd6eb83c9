"""scan(): from a checkpoint and some texts to a Report, readable top to bottom."""

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from headprobe.assemble import assemble
from headprobe.budget import Budget
from headprobe.capture import Observer, observing
from headprobe.collect import PROBED, Collector, metrics_of
from headprobe.engine.local import Workers
from headprobe.errors import InputError, UsageError
from headprobe.examples import Examples
from headprobe.feed import Feed, Given, feed
from headprobe.feed.contract import enough_memory
from headprobe.feed.nulls import without_meaning
from headprobe.feed.probe import PROBE_NOTE, probe_batches
from headprobe.load.architecture import fresh
from headprobe.load.checkpoint import LOADING_FAULTS, Checkpoint, first_line, load_checkpoint, quiet
from headprobe.load.collate import Batch
from headprobe.load.hashing import file_hashes
from headprobe.load.hub import Source
from headprobe.load.placement import is_placed, places
from headprobe.metrics import Metric
from headprobe.metrics.approximate import NOTE
from headprobe.report import Provenance, Report, no_rows
from headprobe.settings import ScanOptions, parse_layers, parse_size

Watch = Callable[[int, int], None]
# Options that can't change a number, or that provenance tells otherwise.
NOT_IN_PROVENANCE = (
    "token", "cache_dir", "text", "target_text", "images", "audio", "revision", "device", "device_map", "batch_size",
    "max_memory",
)  # fmt: skip


def scan(
    model: str | Path | nn.Module,
    *,
    texts: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    batches: Iterable[dict[str, Any]] | None = None,
    tokenizer: Any = None,
    processor: Any = None,
    watch: Watch | None = None,
    **options: Any,
) -> Report:
    """Measure every attention head of a model.

    `model` is a hub name, a folder, or a transformers model. It is run on `texts`, `images` or `audio` (for a model
    object: with its `tokenizer` or `processor`), on `batches` of keyword arguments for its forward, or on a built-in
    sample. Models of images with texts take both, as many of one as of the other. A decoder reads `targets`, else
    what the model writes. `images` are paths or Pillow images; `audio` are paths, or samples at the model's rate, or
    (samples, rate). Other `options` are those of `headprobe scan` with underscores. `watch(done, total)` is called
    after every batch with numbers of sequences.

    Raises `HeadprobeError` (see its subclasses) where a number would be missing or wrong.
    """
    chosen = ScanOptions.of(**options)
    metrics, columns = metrics_of(chosen)
    checkpoint = checkpoint_of(model, chosen)
    if chosen.null == "random-init" and is_placed(checkpoint.model):
        raise UsageError("E-OPTION", "--null random-init makes a second model, for which there is no device map")
    with ThreadPoolExecutor(1) as background, Workers() as workers, ready(checkpoint.model):
        hashes = background.submit(file_hashes, checkpoint.files)
        given = Given(texts, targets, _kept(batches, chosen), tokenizer, processor)
        fed = feed(checkpoint, given, chosen)
        collector = new_collector(metrics, chosen, workers)
        left = _run(checkpoint.model, fed.batches, collector, chosen, _watched(watch, fed))
        left += _probe(checkpoint.model, checkpoint, given, collector, chosen)
        nulls = _nulls(checkpoint, given, chosen, workers)
        provenance = provenance_of(checkpoint, fed, chosen, hashes.result())
    notes = [*checkpoint.notes, *fed.notes, *left, *([NOTE] if chosen.approx else [])]
    report = assemble(collector, columns, fed.sequences, provenance, notes, allow_invalid=chosen.allow_invalid)
    report = replace(report, examples=_examples(checkpoint, fed, report, chosen))
    return replace(report, null_heads=_stacked("heads", nulls), null_layers=_stacked("layers", nulls))


def _kept(batches: Iterable[dict[str, Any]] | None, options: ScanOptions) -> Iterable[dict[str, Any]] | None:
    """Batches that can be gone through again where a null model is measured too."""
    return batches if batches is None or options.null is None else list(batches)


def _watched(watch: Watch | None, fed: Feed) -> Callable[[int], None] | None:
    return None if watch is None else lambda done: watch(done, fed.total)


def _nulls(checkpoint: Checkpoint, given: Given, options: ScanOptions, workers: Workers) -> list[Report]:
    """The null model's reports, one for each draw."""
    reports = []
    metrics, columns = metrics_of(options)
    for run in range(options.null_runs if options.null is not None else 0):
        fed, model = feed(checkpoint, given, options), checkpoint.model
        batches: Iterable[Batch] = fed.batches
        if options.null == "random-init":
            model = fresh(model, run)
        else:
            batches = without_meaning(batches, model, str(options.null), run)
        collector = new_collector(metrics, options, workers)
        with ready(model):
            _run(model, batches, collector, options, None)
            if options.null == "random-init":  # on other inputs the probe is what it was
                _probe(model, checkpoint, given, collector, options)
        about = Provenance(model=str(options.null), model_class=type(model).__name__)
        reports.append(assemble(collector, columns, (), about, [], allow_invalid=options.allow_invalid))
    return reports


def _stacked(table: str, reports: list[Report]) -> pd.DataFrame:
    """A table of several reports as one, with the number of the report in `run`."""
    if not reports:
        return no_rows(f"null_{table}")
    tables = [getattr(report, table) for report in reports]
    stacked: pd.DataFrame = pd.concat(
        [t.assign(run=run)[["run", *t]] for run, t in enumerate(tables)], ignore_index=True
    )
    return stacked


def new_collector(metrics: list[Metric], options: ScanOptions, workers: Workers) -> Collector:
    """A collector as the options want it."""
    return Collector(
        metrics,
        special=options.special,
        layers=None if options.layers is None else parse_layers(options.layers),
        kind=options.kind,
        budget=Budget(parse_size(options.max_memory)),
        across=options.pairs == "model",
        workers=workers,
    )


def checkpoint_of(model: str | Path | nn.Module, options: ScanOptions) -> Checkpoint:
    """A model by name, folder or as an object."""
    if not isinstance(model, nn.Module):
        return load_checkpoint(str(model), options)
    config = getattr(model, "config", None)
    if config is None:
        raise UsageError(
            "E-MODEL", f"{type(model).__name__} is no transformers model", "Use headprobe.observing for other modules."
        )
    return Checkpoint(model, config, Source(Path(), getattr(config, "_name_or_path", "") or type(model).__name__))


@contextmanager
def ready(model: Any) -> Iterator[None]:
    """The model in eval mode with eager attention, and afterwards as it was."""
    training = {module: module.training for module in model.modules()}
    attention = [(config, config._attn_implementation) for config in _configs(model)]
    try:
        model.eval()
        if any(implementation not in ("eager", None) for _, implementation in attention):
            model.set_attn_implementation("eager")
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
        for config, implementation in attention:  # one by one: towers may have different ones
            config._attn_implementation_internal = implementation


def _configs(model: Any) -> list[Any]:
    """The configs of a model and of its parts, each once."""
    found: dict[int, Any] = {}
    left = [module.config for module in model.modules() if hasattr(module, "config")]
    while left:
        config = left.pop()
        if id(config) not in found and hasattr(config, "_attn_implementation"):
            found[id(config)] = config
            left += [getattr(config, name, None) for name in getattr(config, "sub_configs", ())]
    return list(found.values())


def _run(
    model: nn.Module,
    batches: Iterable[Batch],
    collector: Collector,
    options: ScanOptions,
    watch: Callable[[int], None] | None,
) -> list[str]:
    """Every batch once through the model, with the collector watching; what the observer has to tell about layers."""
    done = 0
    with (
        quiet(),
        torch.no_grad(),  # in inference mode torch takes other, slightly different paths while it is watched
        observing(
            model,
            collector.receive,
            **collector.room,
            allow_invalid=options.allow_invalid,
            outputs=collector.reads_outputs,
        ) as observer,
    ):
        collector.widths = observer.wiring.widths
        for batch in batches:
            collector.begin(batch)
            forward(model, batch, observer)
            collector.end(observer.sites)
            done += 0 if batch.numbers is None else len(batch.numbers)
            if watch is not None:
                watch(done)
    if not sum(int(count) for count in collector.queries.values()):
        raise InputError("E-DATA", "nothing was measured: no query is left")
    return observer.notes


def _probe(
    model: nn.Module, checkpoint: Checkpoint, given: Given, collector: Collector, options: ScanOptions
) -> list[str]:
    """One more pass, on repeated random tokens, for the metrics that need them; what to tell of it."""
    metrics = [metric for metric in collector.metrics if metric.name in PROBED]
    if not metrics:
        return []
    apart = new_collector(metrics, replace(options, pairs="none"), collector.workers)
    _run(model, probe_batches(checkpoint, given, options), apart, options, None)
    collector.adopt(apart)
    return [PROBE_NOTE]


def _examples(checkpoint: Checkpoint, fed: Feed, report: Report, options: ScanOptions) -> pd.DataFrame:
    """One more pass, on a few short texts, for the heads that are worth a look."""
    if not options.examples or fed.tokenizer is None:
        return no_rows("examples")
    examples, tile = Examples(report, fed.sequences, fed.tokenizer), Budget(parse_size(options.max_memory)).tile
    with (
        ready(checkpoint.model),
        quiet(),
        torch.no_grad(),
        observing(checkpoint.model, examples.receive, tile_bytes=tile, allow_invalid=options.allow_invalid) as observer,
    ):
        for batch in examples.batches(checkpoint):
            forward(checkpoint.model, batch, observer)
    return examples.table()


def forward(model: nn.Module, batch: Batch, observer: Observer) -> None:
    """One forward pass. What goes wrong in the model's own code is told as such, what does in ours is a bug."""
    try:
        with enough_memory(), torch.random.fork_rng(devices=[]):  # some models mask their inputs at random
            torch.manual_seed(0)
            model(**batch.inputs)
    except LOADING_FAULTS as fault:
        if observer.receiving:
            raise
        raise InputError("E-FORWARD", f"{type(model).__name__} fails on its inputs: {first_line(fault)}") from fault


def provenance_of(checkpoint: Checkpoint, fed: Feed, options: ScanOptions, files: dict[str, str]) -> Provenance:
    """What was measured, on what, with what."""
    parameter: Tensor = next(checkpoint.model.parameters())
    names = [field.name for field in fields(options) if field.name not in NOT_IN_PROVENANCE]
    shaped = {name: getattr(options, name) for name in names}
    return Provenance(
        model=checkpoint.source.name,
        model_class=type(checkpoint.task_model).__name__,
        commit=checkpoint.source.commit,
        dtype=str(parameter.dtype).removeprefix("torch."),
        device=places(checkpoint.model),
        files=files,
        corpus=fed.about,
        options={name: list(value) if isinstance(value, tuple) else value for name, value in shaped.items()},
        versions={
            "python": platform.python_version(),
            **{name: _version(name) for name in ("headprobe", "torch", "transformers")},
        },
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "unknown"
