"""compare(): a base and a model made from it, run side by side on the same inputs."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headprobe.assemble import assemble
from headprobe.capture import observing
from headprobe.collect import Collector, metrics_of
from headprobe.comparison import Comparison, compare_reports
from headprobe.comparison.matched import matched_reports
from headprobe.drift import Drift, Matching
from headprobe.engine.local import Workers
from headprobe.errors import InputError, UsageError
from headprobe.feed import Feed, Given, feed
from headprobe.feed.takes import modality
from headprobe.feed.texts import token_hashes
from headprobe.load.checkpoint import Checkpoint, quiet
from headprobe.load.collate import MOST_SEQUENCES, Batch
from headprobe.load.hashing import file_hashes
from headprobe.pipeline import (
    Watch,
    checkpoint_of,
    forward,
    new_collector,
    provenance_of,
    ready,
    scan,
)
from headprobe.report import Report
from headprobe.settings import ScanOptions, parse_size

Model = str | Path | nn.Module | Report
OF_ONE = ("revision", "base_model", "gguf_file")  # options that belong to the tuned model alone


@dataclass(frozen=True)
class Both:
    """Two models measured on the same inputs: their reports, and how far apart their attention is."""

    base: Report
    tuned: Report
    between: Drift | Matching | None


def compare(
    base: Model,
    tuned: Model,
    *,
    match: bool = False,
    base_revision: str | None = None,
    watch: Watch | None = None,
    **options: Any,
) -> Comparison:
    """What a fine-tuned model's heads do differently from its base's.

    Each is a hub name, a folder, a transformers model, a `Report` or the path of a saved one. Where both are models
    they are run side by side on the same inputs, and the comparison also has the drift between the attention of the
    same head in both; a saved report stands for its model without that. `match` pairs heads that do not correspond
    by assignment on JS, and then gives no p-values. Other `options` are those of `scan`.

    Raises `HeadprobeError` (see its subclasses), also where the two can't be compared.
    """
    both = measured(base, tuned, match=match, base_revision=base_revision, watch=watch, **options)
    if isinstance(both.between, Matching):
        return matched_reports(both.base, both.tuned, both.between.tables())
    drift = None if both.between is None else both.between.table()
    return compare_reports(both.base, both.tuned, drift)


def measured(
    base: Model,
    tuned: Model,
    *,
    match: bool = False,
    base_revision: str | None = None,
    watch: Watch | None = None,
    **options: Any,
) -> Both:
    """Both models' reports, as `compare` needs them."""
    saved = [saved_report(base), saved_report(tuned)]
    if saved[0] is None and saved[1] is None:
        return _side_by_side(base, tuned, match, base_revision, watch, options)
    if match:
        raise UsageError("E-OPTION", "--match needs both models, not a saved report")
    reports = [
        report if report is not None else scan(model, watch=watch, **given)  # type: ignore[arg-type]  # no report here
        for model, report, given in zip((base, tuned), saved, (of_base(options, base_revision), options), strict=True)
    ]
    return Both(reports[0], reports[1], None)


def of_base(options: dict[str, Any], revision: str | None) -> dict[str, Any]:
    """The options of a scan of the base, given those for the other model."""
    return {name: value for name, value in options.items() if name not in OF_ONE} | {"revision": revision}


def saved_report(model: Model) -> Report | None:
    """The report that is given or was saved, None for a model."""
    if isinstance(model, Report):
        return model
    if isinstance(model, nn.Module):
        return None
    path = Path(model)
    is_report = path.suffix == ".json" or (path.is_dir() and (path / "report.json").is_file())
    return Report.load(path) if is_report else None


def _side_by_side(
    base: Any, tuned: Any, match: bool, base_revision: str | None, watch: Watch | None, options: dict[str, Any]
) -> Both:
    chosen = ScanOptions.of(**options)
    for_base = replace(chosen, revision=base_revision, base_model=None, gguf_file=None)
    metrics, columns = metrics_of(chosen)
    checkpoints = [checkpoint_of(base, for_base), checkpoint_of(tuned, chosen)]
    if checkpoints[0].model is checkpoints[1].model:
        raise UsageError("E-MODEL", "base and tuned are the same model object", "Load it twice, or give its name.")
    budget = parse_size(chosen.max_memory) // 2
    between: Drift | Matching = Matching(budget // 2) if match else Drift(budget)
    with ExitStack() as stack:
        background = stack.enter_context(ThreadPoolExecutor(1))
        workers = stack.enter_context(Workers())
        for checkpoint in checkpoints:
            stack.enter_context(ready(checkpoint.model))
        hashes = [background.submit(file_hashes, checkpoint.files) for checkpoint in checkpoints]
        feeds = _feeds(checkpoints, for_base, chosen)
        collectors = [new_collector(metrics, chosen, workers) for _ in checkpoints]
        left = _run(checkpoints, feeds, collectors, between, chosen, watch)
        reports = [
            assemble(
                collector, columns, fed.sequences, provenance_of(checkpoint, fed, given, known.result()),
                [*checkpoint.notes, *fed.notes, *notes], allow_invalid=chosen.allow_invalid,
            )
            for checkpoint, fed, collector, notes, known, given in zip(
                checkpoints, feeds, collectors, left, hashes, (for_base, chosen), strict=True
            )
        ]  # fmt: skip
    return Both(reports[0], reports[1], between)


def _feeds(checkpoints: list[Checkpoint], for_base: ScanOptions, for_tuned: ScanOptions) -> list[Feed]:
    """What each model is run on: the same, and told before either runs where it is not.

    Of texts the base's batches are for both, so that a decoder reads the same where the model writes it itself.
    """
    base, tuned = checkpoints
    given = Given()
    fed = feed(base, given, replace(for_base, batch_size=for_base.batch_size or _batch(base, for_base)))
    if modality(base.model) != modality(tuned.model):
        raise InputError(
            "E-INPUTS", f"{type(base.model).__name__} and {type(tuned.model).__name__} take different inputs"
        )
    if modality(base.model) != "text":
        return [fed, feed(tuned, given, for_tuned)]
    one, other = token_hashes(base, given, for_base), token_hashes(tuned, given, for_tuned)
    differ = sum(a != b for a, b in zip(one, other, strict=False)) + abs(len(one) - len(other))
    if differ:
        raise InputError(
            "E-INPUTS",
            f"the two tokenizers give different ids for {differ} of {len(one)} texts",
            "Only models with the same tokenizer can be compared: their heads must read the same tokens.",
        )
    return [fed, fed]


def _batch(checkpoint: Checkpoint, options: ScanOptions) -> int | None:
    """A batch size at which the base's attention of all layers fits, None where the usual one does."""
    config = getattr(checkpoint.config, "text_config", None) or checkpoint.config
    layers, heads = (getattr(config, name, None) or 16 for name in ("num_hidden_layers", "num_attention_heads"))
    stacks = 3 if getattr(config, "is_encoder_decoder", False) else 1
    one = 4 * stacks * layers * heads * options.max_length**2
    fits = parse_size(options.max_memory) // 8 // one
    return None if fits >= MOST_SEQUENCES else max(1, fits)


def _run(
    checkpoints: list[Checkpoint],
    feeds: Sequence[Feed],
    collectors: list[Collector],
    between: Drift | Matching,
    options: ScanOptions,
    watch: Watch | None,
) -> list[list[str]]:
    """Every batch through the base and then through the other model; what the observers have to tell."""
    receivers = [_both(collectors[0], between.before), _both(collectors[1], between.after)]
    done = 0
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(torch.no_grad())
        observers = [
            stack.enter_context(
                observing(
                    checkpoint.model,
                    receive,
                    **collectors[0].room,
                    allow_invalid=options.allow_invalid,
                    outputs=collectors[0].reads_outputs,
                )
            )
            for checkpoint, receive in zip(checkpoints, receivers, strict=True)
        ]
        for collector, observer in zip(collectors, observers, strict=True):
            collector.widths = observer.wiring.widths
        for pair in _paired(feeds):
            for checkpoint, batch, collector, observer in zip(checkpoints, pair, collectors, observers, strict=True):
                collector.begin(batch)
                forward(checkpoint.model, batch, observer)
                collector.end(observer.sites)
            between.end()
            done += len(pair[0].numbers or ())
            if watch is not None:
                watch(done, feeds[0].total)
    return [observer.notes for observer in observers]


def _both(collector: Collector, other: Callable[[Any], None]) -> Callable[[Any], None]:
    def receive(tile: Any) -> None:
        seen = collector.receive(tile)
        if seen is not None:
            other(seen)

    return receive


def _paired(feeds: Sequence[Feed]) -> Iterator[tuple[Batch, Batch]]:
    """The batches of both models. Raises `InputError` where they are not of the same inputs."""
    if feeds[0] is feeds[1]:
        for batch in feeds[0].batches:
            yield batch, batch
        return
    for one, other in zip(feeds[0].batches, feeds[1].batches, strict=True):
        same = one.numbers == other.numbers and one.inputs.keys() == other.inputs.keys()
        if not same or not all(_equal(value, other.inputs[name]) for name, value in one.inputs.items()):
            raise InputError(
                "E-INPUTS",
                "the two models' processors make different inputs of the same data",
                "Compare models with the same processor; give a decoder its text with --target-text.",
            )
        yield one, other


def _equal(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor):
        return bool(one == other)
    return one.shape == other.shape and torch.equal(one.cpu(), other.cpu())
