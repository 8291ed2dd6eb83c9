"""What a decoder reads: target texts, else what the model writes itself."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from headprobe.errors import InputError, UsageError
from headprobe.feed.bundles import Bundle, placed
from headprobe.feed.contract import Given, enough_memory
from headprobe.feed.takes import reads
from headprobe.load.checkpoint import Checkpoint, quiet, told
from headprobe.load.collate import (
    Input,
    batches,
    check_id,
    decoder_start,
    load_tokenizer,
    model_limit,
    tokenizer_limit,
)
from headprobe.load.corpus import check_targets, clean, targets_of
from headprobe.settings import ScanOptions

PROMPT = 8  # tokens that a decoder may begin with before it writes, as Whisper's language and task
ABOUT = {
    "targets": ("target texts", "the decoder read the target texts"),
    "generated": ("texts generated greedily by the model", "the decoder read texts generated greedily by the model"),
    "source": ("source text, shifted right", "the decoder read the source text, shifted right"),
    "start": ("its start token alone", "the decoder read its start token alone: give --target-text for more"),
}


@dataclass(frozen=True)
class Target:
    """What a decoder is given to write a text: ids, which of them are special tokens, and whether the text was cut."""

    ids: Tensor
    special: Tensor
    was_cut: bool


@dataclass(frozen=True)
class Told:
    """What the decoder read, in words: for provenance, and as notes."""

    about: str
    notes: list[str]


def decoded_texts(
    checkpoint: Checkpoint, inputs: list[Input], targets: Sequence[str], tokenizer: Any, options: ScanOptions
) -> tuple[list[Input], Told]:
    """The inputs with what the decoder reads. `targets` are by the inputs' numbers."""
    if targets:
        read = [target_of(targets[item.number], checkpoint, tokenizer, options) for item in inputs]
        made = [replace(i, reads=t.ids, reads_special=t.special) for i, t in zip(inputs, read, strict=True)]
        return made, _told_of("targets", read)
    if not writes(checkpoint):
        return inputs, _told_of("source")
    written: list[tuple[int, Tensor]] = []
    for batch in batches(inputs, checkpoint, tokenizer.pad_token_id, None):  # batches that no option changes
        given = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
        written += zip(batch.numbers or (), generate(checkpoint, given, options), strict=True)
    ids_of, special = dict(written), torch.tensor(tokenizer.all_special_ids, dtype=torch.long)
    return [
        replace(i, reads=ids_of[i.number], reads_special=torch.isin(ids_of[i.number], special)) for i in inputs
    ], _told_of("generated")


def decoded_bundles(
    checkpoint: Checkpoint, bundles: list[Bundle], targets: Sequence[str], tokenizer: Any, options: ScanOptions
) -> tuple[list[Bundle], Told]:
    """The same for inputs that are no texts."""
    read: list[Target] = []
    if targets:
        read = [target_of(targets[item.number], checkpoint, tokenizer, options) for item in bundles]
        ids = [target.ids for target in read]
    elif writes(checkpoint):
        ids = [generate(checkpoint, placed(item.tensors, checkpoint.model), options)[0] for item in bundles]
    else:
        ids = [torch.tensor([_start(checkpoint)]) for _ in bundles]
    made = [
        replace(item, tensors={**item.tensors, "decoder_input_ids": row[None]})
        for item, row in zip(bundles, ids, strict=True)
    ]
    return made, _told_of("targets" if targets else "generated" if writes(checkpoint) else "start", read)


def targets_for(checkpoint: Checkpoint, given: Given, options: ScanOptions, count: int, what: str) -> list[str]:
    """One target text for each of `count` inputs, or none at all."""
    targets = [clean(text) for text in given.targets] if given.targets is not None else targets_of(options)
    if targets is None:
        return []
    check_targets(targets, count, what)
    return targets


def tokenizer_for_targets(checkpoint: Checkpoint, given: Given, options: ScanOptions) -> Any:
    """The tokenizer that came with a processor from Python, else the checkpoint's own."""
    return given.tokenizer or getattr(given.processor, "tokenizer", None) or own_tokenizer(checkpoint, options)


def own_tokenizer(checkpoint: Checkpoint, options: ScanOptions) -> Any:
    """The checkpoint's own tokenizer."""
    if not checkpoint.files:
        raise UsageError("E-TOKENIZER", "a model object has no tokenizer", "Pass tokenizer=..., or batches=[...].")
    return load_tokenizer(checkpoint.source.folder, options.trust_remote_code, checkpoint.source.gguf)


def target_of(target: str, checkpoint: Checkpoint, tokenizer: Any, options: ScanOptions) -> Target:
    """What a decoder is given to write `target`: its ids shifted right.

    A tokenizer that writes the start token itself, as Whisper's, doesn't make the decoder read it twice.
    """
    folder = checkpoint.source.folder
    longest = min(options.max_length, model_limit(checkpoint), tokenizer_limit(tokenizer, folder))
    with quiet():
        tokens = tokenizer(text_target=target, return_special_tokens_mask=True)
        was_cut = len(tokens["input_ids"]) > longest
        if was_cut:
            tokens = tokenizer(text_target=target, truncation=True, max_length=longest, return_special_tokens_mask=True)
    labels = torch.tensor(tokens["input_ids"], dtype=torch.long)
    special = torch.tensor(tokens["special_tokens_mask"], dtype=torch.bool)
    start = torch.tensor([_start(checkpoint)])
    if len(labels) and labels[0] == start:
        labels, special = labels[1:], special[1:]
    shift = getattr(_task(checkpoint), "prepare_decoder_input_ids_from_labels", None)
    if shift is None or not len(labels):
        ids = torch.cat([start, labels[:-1]])
    else:
        with told("E-TARGETS", "the model can't shift the target texts"):
            ids = shift(labels=labels[None])[0]
    check_id(int(ids.max()), checkpoint)
    return Target(ids, torch.cat([torch.tensor([True]), special])[: len(ids)], was_cut)


def writes(checkpoint: Checkpoint) -> bool:
    """True if the checkpoint has the head that a decoder writes with, and its weights."""
    task = _task(checkpoint)
    if getattr(checkpoint, "missing_in_head", ()):
        return False
    return reads(task) and callable(getattr(task, "generate", None)) and bool(task.can_generate())


def generate(checkpoint: Checkpoint, inputs: dict[str, Any], options: ScanOptions) -> list[Tensor]:
    """What the decoder read while the model wrote, for each input: from its start token to before its end.

    It is taken from the last forward pass: what generate() returns lacks Whisper's tokens of language and task.
    """
    task, ends = _task(checkpoint), _ends(_task(checkpoint))
    most = max(1, min(options.target_length, model_limit(checkpoint) - PROMPT))
    read: list[Tensor] = []

    def note(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        read[:] = [given["decoder_input_ids"].cpu()]

    plain = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1, "use_cache": False}
    with quiet(), torch.inference_mode(), _writing(task), task.register_forward_pre_hook(note, with_kwargs=True):
        task.generate(**inputs, max_new_tokens=most, **plain)
    return [_until_end(row, ends) for row in read[-1]]


@contextmanager
def _writing(task: Any) -> Iterator[None]:
    try:
        with told("E-GENERATE", f"{type(task).__name__} fails to write"), enough_memory():
            yield
    except InputError as fault:
        raise InputError(fault.code, fault.problem, "Give it --target-text.") from fault


def _until_end(row: Tensor, ends: set[int]) -> Tensor:
    """What was read before the text's end; a start token may look like one."""
    ids = row.tolist()
    return torch.tensor(ids[: next((i for i, token in enumerate(ids) if i and token in ends), len(ids))])


def _ends(task: Any) -> set[int]:
    named = getattr(task.generation_config, "eos_token_id", None)
    return set(named) if isinstance(named, list) else set() if named is None else {named}


def _told_of(way: str, read: Sequence[Target] = ()) -> Told:
    about, note = ABOUT[way]
    cut = sum(target.was_cut for target in read)
    return Told(about, [note, *([f"{cut} of {len(read)} target texts were cut"] if cut else [])])


def _task(checkpoint: Checkpoint) -> Any:
    return getattr(checkpoint, "task_model", None) or checkpoint.model


def _start(checkpoint: Checkpoint) -> int:
    named = getattr(getattr(_task(checkpoint), "generation_config", None), "decoder_start_token_id", None)
    return named if isinstance(named, int) else decoder_start(checkpoint.config)
