"""What a decoder reads: target texts, else what the model writes itself."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

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
from headprobe.load.corpus import check_targets, targets_of
from headprobe.settings import ScanOptions

ABOUT = {
    "targets": ("target texts", "the decoder read the target texts"),
    "generated": ("texts generated greedily by the model", "the decoder read texts generated greedily by the model"),
    "source": ("source text, shifted right", "the decoder read the source text, shifted right"),
    "start": ("its start token alone", "the decoder read its start token alone: give --target-text for more"),
}


def decoded_texts(
    checkpoint: Checkpoint, inputs: list[Input], targets: Sequence[str], tokenizer: Any, options: ScanOptions
) -> tuple[list[Input], str]:
    """The inputs with what the decoder reads, and which of `ABOUT` that is."""
    if targets:
        read = {item.number: target_ids(targets[item.number], checkpoint, tokenizer, options) for item in inputs}
        return [replace(i, reads=read[i.number][0], reads_special=read[i.number][1]) for i in inputs], "targets"
    if not writes(checkpoint):
        return inputs, "source"
    written: list[tuple[int, Tensor]] = []
    for batch in batches(inputs, checkpoint, tokenizer.pad_token_id, None):  # batches that no option changes
        given = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
        written += zip(batch.numbers or (), generate(checkpoint, given, options), strict=True)
    ids_of, special = dict(written), torch.tensor(tokenizer.all_special_ids, dtype=torch.long)
    return [
        replace(i, reads=ids_of[i.number], reads_special=torch.isin(ids_of[i.number], special)) for i in inputs
    ], "generated"


def decoded_bundles(
    checkpoint: Checkpoint, bundles: list[Bundle], targets: Sequence[str], tokenizer: Any, options: ScanOptions
) -> tuple[list[Bundle], str]:
    """The same for inputs that are no texts. `targets` are in the order of the bundles."""
    made = []
    way = "targets" if targets else "generated" if writes(checkpoint) else "start"
    for index, item in enumerate(bundles):
        if way == "targets":
            ids = target_ids(targets[index], checkpoint, tokenizer, options)[0]
        elif way == "generated":
            ids = generate(checkpoint, placed(item.tensors, checkpoint.model), options)[0]
        else:
            ids = torch.tensor([_start(checkpoint)])
        made.append(replace(item, tensors={**item.tensors, "decoder_input_ids": ids[None]}))
    return made, way


def targets_for(checkpoint: Checkpoint, given: Given, options: ScanOptions, count: int, what: str) -> list[str]:
    """One target text for each of `count` inputs, or none at all."""
    targets = list(given.targets) if given.targets is not None else targets_of(options)
    if targets is None:
        return []
    check_targets(targets, count, what)
    return targets


def tokenizer_for_targets(checkpoint: Checkpoint, given: Given, options: ScanOptions) -> Any:
    """The tokenizer that came with a processor from Python, else the checkpoint's own."""
    at_hand = given.tokenizer or getattr(given.processor, "tokenizer", None)
    return at_hand or load_tokenizer(checkpoint.source.folder, options.trust_remote_code, checkpoint.source.gguf)


def target_ids(target: str, checkpoint: Checkpoint, tokenizer: Any, options: ScanOptions) -> tuple[Tensor, Tensor]:
    """What a decoder is given to write `target`: its ids shifted right, and which of them are special tokens."""
    folder = checkpoint.source.folder
    longest = min(options.max_length, model_limit(checkpoint), tokenizer_limit(tokenizer, folder))
    with quiet():
        tokens = tokenizer(text_target=target, truncation=True, max_length=longest, return_special_tokens_mask=True)
    labels = torch.tensor(tokens["input_ids"], dtype=torch.long)
    special = torch.tensor(tokens["special_tokens_mask"], dtype=torch.bool)
    start = torch.tensor([_start(checkpoint)])
    shift = getattr(_task(checkpoint), "prepare_decoder_input_ids_from_labels", None)
    if shift is None or not len(labels):
        ids = torch.cat([start, labels[:-1]])
    else:
        with told("E-TARGETS", "the model can't shift the target texts"):
            ids = shift(labels=labels[None])[0]
    check_id(int(ids.max()), checkpoint)
    return ids, torch.cat([torch.tensor([True]), special])[: len(ids)]


def writes(checkpoint: Checkpoint) -> bool:
    """True if the checkpoint has the head that a decoder writes with, and its weights."""
    task = _task(checkpoint)
    if getattr(checkpoint, "missing_in_head", ()):
        return False
    return reads(task) and callable(getattr(task, "generate", None)) and bool(task.can_generate())


def generate(checkpoint: Checkpoint, inputs: dict[str, Any], options: ScanOptions) -> list[Tensor]:
    """What the decoder read while the model wrote, for each input: from its start token to before its end."""
    task = _task(checkpoint)
    most = max(1, min(options.target_length, model_limit(checkpoint) - 2))
    with quiet(), torch.inference_mode(), told("E-GENERATE", f"{type(task).__name__} fails to write"), enough_memory():
        rows = task.generate(**inputs, max_new_tokens=most, do_sample=False, num_beams=1)
    return [_read(row.cpu(), _ends(task), _start(checkpoint)) for row in rows]


def _read(row: Tensor, ends: set[int], start: int) -> Tensor:
    ids = row.tolist()
    if ids[0] != start:
        ids = [start, *ids]
    end = next((i for i, token in enumerate(ids) if i and token in ends), len(ids) - 1)
    return torch.tensor(ids[: max(1, end)])


def _ends(task: Any) -> set[int]:
    named = getattr(task.generation_config, "eos_token_id", None)
    return set(named) if isinstance(named, list) else set() if named is None else {named}


def _task(checkpoint: Checkpoint) -> Any:
    return getattr(checkpoint, "task_model", None) or checkpoint.model


def _start(checkpoint: Checkpoint) -> int:
    named = getattr(getattr(_task(checkpoint), "generation_config", None), "decoder_start_token_id", None)
    return named if isinstance(named, int) else decoder_start(checkpoint.config)
