"""scan(): from a checkpoint and some texts to a Report, readable top to bottom."""

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headprobe.assemble import assemble
from headprobe.capture import Observer, observing
from headprobe.collect import Collector
from headprobe.engine.local import Workers
from headprobe.errors import EnvironmentFailure, InputError, UsageError
from headprobe.load.checkpoint import LOADING_FAULTS, Checkpoint, first_line, load_checkpoint, quiet
from headprobe.load.collate import Batch, Encoded, Input, batches, encode, load_tokenizer
from headprobe.load.corpus import Corpus, corpus, from_texts
from headprobe.load.hashing import file_hashes
from headprobe.load.hub import Source
from headprobe.load.images import BUILT_IN as BUILT_IN_IMAGES
from headprobe.load.images import built_in_images, image_batches
from headprobe.metrics import Metric, select
from headprobe.report import Provenance, Report
from headprobe.settings import ScanOptions, parse_layers, parse_size

Watch = Callable[[int, int], None]
# Options that can't change a number, or that provenance tells otherwise.
NOT_IN_PROVENANCE = ("token", "cache_dir", "text", "revision", "device", "batch_size", "max_memory")


@dataclass(frozen=True)
class Feed:
    """What the model is run on: batches, their sequences, and words about their source."""

    batches: Iterable[Batch]
    sequences: list[Input]
    about: dict[str, Any]
    notes: list[str]


def scan(
    model: str | Path | nn.Module,
    *,
    texts: Sequence[str] | None = None,
    batches: Iterable[dict[str, Any]] | None = None,
    tokenizer: Any = None,
    watch: Watch | None = None,
    **options: Any,
) -> Report:
    """Measure every attention head of a model.

    `model` is a hub name, a folder, or a transformers model. It is run on `texts` (for a model object: with its
    `tokenizer`), on `batches` of keyword arguments for its forward, or on a built-in sample. `options` are those of
    `headprobe scan` with underscores. `watch(done, total)` is called after every batch with numbers of sequences.

    Raises `HeadprobeError` (see its subclasses) where a number would be missing or wrong.
    """
    chosen = ScanOptions.of(**options)
    metrics, columns = _metrics(chosen)
    checkpoint = _checkpoint(model, chosen)
    with ThreadPoolExecutor(1) as background, Workers() as workers, _ready(checkpoint.model):
        hashes = background.submit(file_hashes, checkpoint.files)
        feed = _feed(checkpoint, texts, batches, tokenizer, chosen)
        collector = Collector(
            metrics,
            special=chosen.special,
            layers=None if chosen.layers is None else parse_layers(chosen.layers),
            kind=chosen.kind,
            pool_bytes=parse_size(chosen.max_memory) if chosen.pairs == "model" else 0,
            workers=workers,
        )
        _run(checkpoint.model, feed, collector, chosen, watch)
        provenance = _provenance(checkpoint, feed, chosen, hashes.result())
    notes = [*checkpoint.notes, *feed.notes]
    return assemble(collector, columns, feed.sequences, provenance, notes, allow_invalid=chosen.allow_invalid)


def _metrics(options: ScanOptions) -> tuple[list[Metric], frozenset[str]]:
    metrics, columns = select(options.metrics)
    if options.pairs != "none":
        return metrics, columns
    compared = [metric.name for metric in metrics if metric.pairwise]
    if options.metrics and compared:
        raise UsageError("E-OPTION", f"--pairs none leaves out {', '.join(compared)}, which --metrics asks for")
    return [metric for metric in metrics if not metric.pairwise], columns


def _checkpoint(model: str | Path | nn.Module, options: ScanOptions) -> Checkpoint:
    if not isinstance(model, nn.Module):
        return load_checkpoint(str(model), options)
    config = getattr(model, "config", None)
    if config is None:
        raise UsageError(
            "E-MODEL", f"{type(model).__name__} is no transformers model", "Use headprobe.observing for other modules."
        )
    return Checkpoint(model, config, Source(Path(), getattr(config, "_name_or_path", "") or type(model).__name__))


@contextmanager
def _ready(model: Any) -> Iterator[None]:
    """The model in eval mode with eager attention, and afterwards as it was."""
    training = {module: module.training for module in model.modules()}
    attention = model.config._attn_implementation
    try:
        model.eval()
        if attention != "eager":
            model.set_attn_implementation("eager")
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
        if attention != "eager":
            model.set_attn_implementation(attention)


def _feed(
    checkpoint: Checkpoint,
    texts: Sequence[str] | None,
    given: Iterable[dict[str, Any]] | None,
    tokenizer: Any,
    options: ScanOptions,
) -> Feed:
    if given is not None:
        if texts is not None or options.text:
            raise UsageError("E-OPTION", "batches and texts exclude each other")
        _refuse("batches given in Python have", options, "special", "limit")
        return _given_feed(list(given))
    if checkpoint.modality == "image":
        if texts is not None or options.text:
            raise UsageError(
                "E-MODALITY",
                f"{type(checkpoint.model).__name__} takes images, not texts",
                "Leave --text out: built-in images are used.",
            )
        _refuse("images have", options, "special")
        return _image_feed(checkpoint, options)
    if isinstance(texts, str):
        raise UsageError("E-OPTION", "texts is one text", "Give a list of them: texts=[...].")
    read = corpus(options) if texts is None else from_texts(list(texts), "texts given in Python", options)
    return _text_feed(checkpoint, read, tokenizer, options)


def _refuse(what: str, options: ScanOptions, *names: str) -> None:
    """Options that mean nothing for an input are refused, not ignored."""
    for name in names:
        value = getattr(options, name)
        if value != getattr(ScanOptions, name):
            raise UsageError("E-OPTION", f"{what} no use for --{name} {value}")


def _given_feed(given: list[dict[str, Any]]) -> Feed:
    ready = [Batch(dict(batch)) for batch in given]
    return Feed(ready, [], {"source": "batches given in Python"}, [])


def _image_feed(checkpoint: Checkpoint, options: ScanOptions) -> Feed:
    encoded = built_in_images(checkpoint.config, checkpoint.source.folder, options.limit)
    size = options.batch_size
    if options.pairs == "model":
        patches = (encoded.inputs[0].ids.shape[-1] // getattr(checkpoint.config, "patch_size", 16)) ** 2 + 1
        size = size or _pooled_batch(checkpoint.config, patches, options)
    ready = image_batches(encoded.inputs, checkpoint.model, size)
    return Feed(ready, encoded.inputs, _about(f"built-in {BUILT_IN_IMAGES}", encoded), encoded.notes)


def _text_feed(checkpoint: Checkpoint, read: Corpus, tokenizer: Any, options: ScanOptions) -> Feed:
    if tokenizer is None and not checkpoint.files:
        raise UsageError("E-TOKENIZER", "a model object has no tokenizer", "Pass tokenizer=..., or batches=[...].")
    tokenizer = tokenizer or load_tokenizer(checkpoint.source.folder, options.trust_remote_code)
    encoded = encode(read, checkpoint, tokenizer, options.max_length)
    about = {**_about(read.source, encoded), "texts_sha256": read.sha256}
    notes = encoded.notes
    if getattr(checkpoint.config, "is_encoder_decoder", False):
        about["decoder"] = "source text, shifted right"
        notes = [*notes, "the decoder read the source text, shifted right"]
    size = options.batch_size
    if options.pairs == "model":
        longest = max(len(item.ids) for item in encoded.inputs)
        size = size or _pooled_batch(checkpoint.config, longest, options)
    return Feed(batches(encoded.inputs, checkpoint, tokenizer.pad_token_id, size), encoded.inputs, about, notes)


def _about(source: str, encoded: Encoded) -> dict[str, Any]:
    return {
        "source": source,
        "sequences": len(encoded.inputs),
        "tokens": sum(item.ids.shape[-1] for item in encoded.inputs) if encoded.inputs[0].ids.dim() == 1 else None,
        "cut": sum(item.was_cut for item in encoded.inputs),
    }


def _pooled_batch(config: Any, positions: int, options: ScanOptions) -> int:
    """A batch size at which the attention of all layers at once fits: pairs across layers need it together."""
    layers, heads = (getattr(config, name, None) or 16 for name in ("num_hidden_layers", "num_attention_heads"))
    stacks = 3 if getattr(config, "is_encoder_decoder", False) else 1
    a_sequence = stacks * layers * heads * positions**2 * 4
    return int(max(1, min(16, parse_size(options.max_memory) // (4 * a_sequence))))


def _run(model: nn.Module, feed: Feed, collector: Collector, options: ScanOptions, watch: Watch | None) -> None:
    """Every batch once through the model, with the collector watching."""
    tile_bytes = parse_size(options.max_memory) // 8  # a tile and what the metrics make of it
    total, done = len(feed.sequences), 0
    with (
        quiet(),
        torch.inference_mode(),
        observing(model, collector.receive, tile_bytes=tile_bytes, allow_invalid=options.allow_invalid) as observer,
    ):
        for batch in feed.batches:
            collector.begin(batch)
            _forward(model, batch, observer)
            collector.end(observer.sites)
            done += 0 if batch.numbers is None else len(batch.numbers)
            if watch is not None:
                watch(done, total)
    if not sum(int(count) for count in collector.queries.values()):
        raise InputError("E-DATA", "nothing was measured: no query is left")


def _forward(model: nn.Module, batch: Batch, observer: Observer) -> None:
    """One forward pass. What goes wrong in the model's own code is told as such, what does in ours is a bug."""
    try:
        with torch.random.fork_rng(devices=[]):  # some models mask their inputs at random
            torch.manual_seed(0)
            model(**batch.inputs)
    except (torch.OutOfMemoryError, MemoryError) as fault:
        raise _out_of_memory() from fault
    except LOADING_FAULTS as fault:
        if "can't allocate memory" in str(fault):
            raise _out_of_memory() from fault
        if observer.receiving:
            raise
        raise InputError("E-FORWARD", f"{type(model).__name__} fails on its inputs: {first_line(fault)}") from fault


def _out_of_memory() -> EnvironmentFailure:
    return EnvironmentFailure(
        "E-MEMORY", "memory ran out during the scan", "Lower --batch-size, --max-length or --max-memory."
    )


def _provenance(checkpoint: Checkpoint, feed: Feed, options: ScanOptions, files: dict[str, str]) -> Provenance:
    parameter: Tensor = next(checkpoint.model.parameters())
    shaped = {name: value for name, value in asdict(options).items() if name not in NOT_IN_PROVENANCE}
    return Provenance(
        model=checkpoint.source.name,
        model_class=type(checkpoint.model).__name__,
        commit=checkpoint.source.commit,
        dtype=str(parameter.dtype).removeprefix("torch."),
        device=str(parameter.device),
        files=files,
        corpus=feed.about,
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
