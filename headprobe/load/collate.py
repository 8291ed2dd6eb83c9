"""Texts become padded batches: sorted by length, padded on the right, every mask and position given explicitly."""

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headprobe.errors import InputError
from headprobe.load.checkpoint import Checkpoint, quiet, told
from headprobe.load.corpus import Corpus

TOKENS_A_BATCH = 2048
MOST_SEQUENCES = 32
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "source.spm", "tekken.json", "bpe.codes", "entity_vocab.json",
)  # fmt: skip


@dataclass(frozen=True)
class Input:
    """One sequence: token ids (or pixels), which of them are special tokens, and whether it was cut."""

    number: int
    ids: Tensor
    special: Tensor | None = None
    was_cut: bool = False

    @property
    def sha256(self) -> str:
        """Hash of what the model is given, short enough for a table."""
        return hashlib.sha256(self.ids.contiguous().numpy().tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Batch:
    """Arguments of the model's forward, the sequences' numbers, and their special tokens by side."""

    inputs: dict[str, Any]
    numbers: tuple[int, ...] | None = None
    special: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """The inputs of a corpus, and what a reader should know of them."""

    inputs: list[Input]
    notes: list[str]


def load_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """The checkpoint's tokenizer. Without its files transformers makes one that turns every word into [UNK]."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(
            "E-TOKENIZER", f"no tokenizer files in {folder}", "Copy them from the model that it was trained from."
        )
    with quiet(), told("E-TOKENIZER", f"the tokenizer in {folder} can't be loaded"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)


def encode(texts: Corpus, checkpoint: Checkpoint, tokenizer: Any, max_length: int) -> Encoded:
    """Token ids of every text, cut at the model's limit or `max_length`, whichever is less.

    Raises `InputError` where a token has no embedding or no text gives any token.
    """
    longest = min(max_length, model_limit(checkpoint), _tokenizer_limit(tokenizer, checkpoint.source.folder))
    sequences = []
    unknown = total = 0
    with quiet():
        for number, text in enumerate(texts.texts):
            tokens = tokenizer(text, return_special_tokens_mask=True)
            was_cut = len(tokens["input_ids"]) > longest
            if was_cut:
                tokens = tokenizer(text, truncation=True, max_length=longest, return_special_tokens_mask=True)
            ids = tokens["input_ids"]
            if not ids:
                continue
            special = torch.tensor(tokens["special_tokens_mask"], dtype=torch.bool)
            sequences.append(Input(number, torch.tensor(ids), special, was_cut))
            unknown += ids.count(tokenizer.unk_token_id)
            total += len(ids)
    if not sequences:
        raise InputError("E-DATA", f"no text of {texts.source} gives any token")
    _check_ids(sequences, checkpoint)
    return Encoded(sequences, _notes(sequences, texts, longest, unknown / total))


def _notes(sequences: list[Input], texts: Corpus, longest: int, unknown: float) -> list[str]:
    cut = sum(sequence.was_cut for sequence in sequences)
    notes = []
    if cut:
        notes.append(f"{cut} of {len(texts.texts)} texts were cut at {longest} tokens")
    if texts.empty:
        notes.append(f"{texts.empty} empty texts were left out")
    if unknown > 0.2:
        notes.append(f"{unknown:.0%} of the tokens are unknown to the tokenizer: is it this model's?")
    return notes


def model_limit(checkpoint: Checkpoint) -> int:
    """The longest sequence that the model's positions are made for."""
    config = checkpoint.config
    limit = getattr(config, "max_position_embeddings", None)
    return limit - _position_offset(checkpoint.model) if isinstance(limit, int) and limit > 0 else 10**9


def _tokenizer_limit(tokenizer: Any, folder: Path) -> int:
    limit = tokenizer.model_max_length
    if not isinstance(limit, int | float) or limit < 2:
        raise InputError("E-TOKENIZER", f"tokenizer_config.json in {folder} has model_max_length {limit!r}")
    return int(min(limit, 10**9))


def _position_offset(model: nn.Module) -> int:
    """RoBERTa and its kin start counting positions after their padding index."""
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and isinstance(padding, int):
            return padding + 1
    return 0


def _decoder_start(config: Any) -> int:
    """The token that a decoder's text begins with; models that name none begin with padding."""
    named = (getattr(config, name, None) for name in ("decoder_start_token_id", "pad_token_id"))
    return next((token for token in named if isinstance(token, int)), 0)


def _check_ids(sequences: list[Input], checkpoint: Checkpoint) -> None:
    model: Any = checkpoint.model
    rows = model.get_input_embeddings().weight.shape[0]
    largest = max(int(sequence.ids.max()) for sequence in sequences)
    if getattr(checkpoint.config, "is_encoder_decoder", False):
        largest = max(largest, _decoder_start(checkpoint.config))
    if largest >= rows:
        raise InputError(
            "E-VOCAB",
            f"the tokenizer gives id {largest}, the embedding has {rows} rows",
            "Tokenizer and model do not match.",
        )


def batches(sequences: Sequence[Input], checkpoint: Checkpoint, pad: int | None, size: int | None) -> Iterator[Batch]:
    """Padded batches, longest sequences first, so that memory runs short at once or not at all.

    Sequences of one length need no padding; where some is needed it goes to the right, whatever the tokenizer says,
    with any valid id: it is masked.
    """
    ordered = sorted(sequences, key=lambda sequence: -len(sequence.ids))
    position = 0
    while position < len(ordered):
        fits = max(1, min(MOST_SEQUENCES, TOKENS_A_BATCH // len(ordered[position].ids)))
        group = ordered[position : position + (size or fits)]
        position += len(group)
        yield _pad(group, checkpoint, pad or 0)


def _pad(group: Sequence[Input], checkpoint: Checkpoint, pad: int) -> Batch:
    model, config = checkpoint.model, checkpoint.config
    device = next(model.parameters()).device
    ids = nn.utils.rnn.pad_sequence([s.ids for s in group], batch_first=True, padding_value=pad)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(s.ids) for s in group], batch_first=True)
    special = nn.utils.rnn.pad_sequence([_special(s) for s in group], batch_first=True)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    accepted = inspect.signature(model.forward).parameters
    sides = {"encoder": special, "decoder": special}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = nn.functional.pad(ids[:, :-1], (1, 0), value=_decoder_start(config))
        inputs["decoder_attention_mask"] = mask
        sides["decoder"] = nn.functional.pad(special[:, :-1], (1, 0), value=True)
    elif "position_ids" in accepted and not _multimodal_positions(config):
        inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0) + _position_offset(model)
    if "use_cache" in accepted:
        inputs["use_cache"] = False  # nothing is generated
    numbers = tuple(s.number for s in group)
    moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
    return Batch(moved, numbers, {side: known.to(device) for side, known in sides.items()})


def _special(sequence: Input) -> Tensor:
    return torch.zeros_like(sequence.ids, dtype=torch.bool) if sequence.special is None else sequence.special


def _multimodal_positions(config: Any) -> bool:
    rope = getattr(config, "rope_parameters", None) or {}
    return "mrope_section" in rope
