"""HeadMetricsCallback: what heads do while a model is trained, in the Trainer's own log."""

import math
import random
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from headprobe.errors import HeadprobeError, UsageError
from headprobe.pipeline import scan
from headprobe.report import Report
from headprobe.write.atomic import make_folder

LOGGED = {  # by table, columns of a report whose mean over a layer's rows is logged
    "heads": ("rcos", "entropy", "first_mass", "nearest_js"),
    "layers": ("effective_heads",),
}
METRICS = ("rcos", "entropy", "first_mass", "js", "effective_heads")  # which a scan needs for that, unless told
LIMIT = 16  # built-in texts, where none are given


class HeadMetricsCallback(TrainerCallback):
    """Scan a small fixed corpus every few steps of training, and log what its heads do, layer by layer.

        trainer.add_callback(HeadMetricsCallback(trainer, texts, every=100))

    Logs `headprobe/rcos/encoder.0` and so on through `trainer.log`, so that TensorBoard, Weights & Biases and
    `state.log_history` get them: mean `rcos`, `entropy`, `first_mass` and `nearest_js` of a layer's heads, and its
    `effective_heads`; before the first step, every `every` steps and after the last. Writes `start.json` and
    `final.json` to `output` (default: `headprobe` in the Trainer's `output_dir`), whole reports that
    `headprobe compare` reads.

    The corpus is `texts`, or `batches` of keyword arguments for the model's forward, or a few built-in texts; other
    `options` are those of `headprobe.scan` (`tokenizer`, by default the Trainer's, `processor`, `max_length`, ...).
    Training goes on as if nothing had happened: modes of all modules, attention implementations and random states of
    Python, NumPy and torch are what they were. With several processes the first one scans its copy of the model.

    Raises `UsageError` for a step count that is none and for models that are sharded over processes; whatever
    `headprobe.scan` raises before the first step. After that it is a warning, and training goes on.
    """

    def __init__(
        self,
        trainer: Any,
        texts: Sequence[str] | None = None,
        *,
        batches: Iterable[dict[str, Any]] | None = None,
        every: int = 100,
        output: str | Path | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise UsageError("E-OPTION", f"every {every!r} is no number of steps", "Give 1 or more.")
        if not hasattr(trainer, "callback_handler"):
            raise UsageError(
                "E-TRAINER", f"{type(trainer).__name__} is no Trainer", "Give transformers' Trainer first."
            )
        if getattr(trainer, "is_deepspeed_enabled", False) or getattr(trainer, "is_fsdp_enabled", False):
            raise UsageError(
                "E-SHARDED",
                "no process has the whole model under DeepSpeed or FSDP, so that none can scan it",
                "Scan saved checkpoints instead: headprobe scan FOLDER.",
            )
        self._trainer = trainer
        self._every = every
        self._output = output
        self._options = dict(options, texts=texts, batches=None if batches is None else list(batches))
        if batches is None:
            self._options.setdefault("tokenizer", getattr(trainer, "processing_class", None))
            if texts is None:
                self._options.setdefault("limit", LIMIT)
        self._logged: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What the model is before the first step."""
        if state.is_world_process_zero and not state.global_step:
            report = self._scan(kwargs["model"])
            report.save(self._folder(args) / "start.json")
            self._log(report, state, control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """What it is now, if it is time."""
        due = state.global_step % self._every == 0 or state.global_step >= state.max_steps
        if state.is_world_process_zero and due:
            with _told():
                metrics = self._options.get("metrics") or METRICS
                self._log(self._scan(kwargs["model"], metrics=metrics), state, control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What became of it: the best checkpoint where the Trainer loads that."""
        if state.is_world_process_zero:
            with _told():
                self._scan(kwargs["model"]).save(self._folder(args) / "final.json")

    def _folder(self, args: TrainingArguments) -> Path:
        folder = Path(str(args.output_dir)) / "headprobe" if self._output is None else Path(self._output)
        make_folder(folder)
        return folder

    def _scan(self, model: nn.Module, **more: Any) -> Report:
        with same_random_numbers(), _own_precision(model):
            return scan(model, **{**self._options, **more})

    def _log(self, report: Report, state: TrainerState, control: TrainerControl) -> None:
        """By the Trainer's log, after which it takes its own losses for logged: they are not."""
        if self._logged == state.global_step:
            return
        self._logged, due = state.global_step, control.should_log
        self._trainer.log(logged(report))
        control.should_log = due


def logged(report: Report) -> dict[str, float]:
    """What is logged of a report: `headprobe/COLUMN/KIND.LAYER`, with the tower's name where towers differ.

    What is undefined or was not measured is left out.
    """
    layers = report.layers
    several = bool(layers.duplicated(["kind", "layer"]).any())
    names = {
        row.site: f"{f'{row.tower}.' if several else ''}{row.kind}.{row.layer}"
        for row in layers.itertuples(index=False)
    }
    found = {}
    for name, columns in LOGGED.items():
        table = getattr(report, name)
        for column in [each for each in columns if each in table]:
            means = table.groupby("site")[column].mean().items()
            values = {f"headprobe/{column}/{names[site]}": float(value) for site, value in means}
            found.update({key: value for key, value in values.items() if not math.isnan(value)})
    return found


@contextmanager
def _told() -> Iterator[None]:
    """What stops a scan in the midst of training, attention that has become NaN say, is told and stops nothing else."""
    try:
        yield
    except HeadprobeError as fault:
        warnings.warn(str(fault), stacklevel=2)


@contextmanager
def same_random_numbers() -> Iterator[None]:
    """Whatever runs inside, Python, NumPy and torch on every device draw afterwards what they would have drawn."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=list(devices)):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def _own_precision(model: nn.Module) -> Iterator[None]:
    """The model's own forward, without the autocast that accelerate has wrapped around it: metrics need all digits."""
    wrapped, own = (vars(model).get(name) for name in ("forward", "_original_forward"))
    if wrapped is None or own is None:
        yield
        return
    try:
        model.forward = own
        yield
    finally:
        model.forward = wrapped
