"""Texts, and what a decoder reads beside them."""

from typing import Any

from headprobe.feed.contract import Feed, Given
from headprobe.feed.decoder import decoded_texts, own_tokenizer
from headprobe.feed.takes import reads
from headprobe.load.checkpoint import Checkpoint
from headprobe.load.collate import Input, batches, encode, fingerprint
from headprobe.load.corpus import Corpus, clean, corpus, from_texts, targets_of
from headprobe.settings import ScanOptions, parse_size


def feed_texts(checkpoint: Checkpoint, given: Given, options: ScanOptions) -> Feed:
    """The texts from Python or from files, else the built-in sample."""
    read = _read(given, options)
    tokenizer = given.tokenizer or own_tokenizer(checkpoint, options)
    encoded = encode(read, checkpoint, tokenizer, options.max_length)
    inputs, notes = encoded.inputs, encoded.notes
    about = {**about_inputs(read.source, inputs), "texts_sha256": read.sha256}
    if reads(checkpoint.model):
        inputs, decoded = decoded_texts(checkpoint, inputs, read.targets, tokenizer, options)
        about["decoder"] = decoded.about
        notes = [*notes, *decoded.notes]
    return padded_feed(checkpoint, inputs, tokenizer.pad_token_id, about, notes, options)


def padded_feed(
    checkpoint: Checkpoint,
    inputs: list[Input],
    pad: int | None,
    about: dict[str, Any],
    notes: list[str],
    options: ScanOptions,
) -> Feed:
    """A feed of sequences of ids, in batches for which the memory suffices."""
    size = options.batch_size
    if options.pairs == "model":
        longest = max(max(len(item.ids), 0 if item.reads is None else len(item.reads)) for item in inputs)
        size = size or _pooled_batch(checkpoint.config, longest, options)
    return Feed(batches(inputs, checkpoint, pad, size), inputs, len(inputs), about, notes)


def token_hashes(checkpoint: Checkpoint, given: Given, options: ScanOptions) -> list[tuple[int, str]]:
    """The number of every text and a hash of the ids that a checkpoint's own tokenizer makes of it."""
    encoded = encode(_read(given, options), checkpoint, own_tokenizer(checkpoint, options), options.max_length)
    return [(item.number, fingerprint(item.ids)) for item in encoded.inputs]


def about_inputs(source: str, inputs: list[Input]) -> dict[str, Any]:
    """What provenance says of sequences of ids."""
    return {
        "source": source,
        "sequences": len(inputs),
        "tokens": sum(item.length for item in inputs),
        "cut": sum(item.was_cut for item in inputs),
    }


def _read(given: Given, options: ScanOptions) -> Corpus:
    targets = targets_of(options) if given.targets is None else [clean(text) for text in given.targets]
    if given.texts is not None:
        return from_texts(list(given.texts), "texts given in Python", options, targets)
    return corpus(options, targets)


def _pooled_batch(config: Any, positions: int, options: ScanOptions) -> int:
    """A batch size at which the attention of all layers at once fits: pairs across layers need it together."""
    layers, heads = (getattr(config, name, None) or 16 for name in ("num_hidden_layers", "num_attention_heads"))
    stacks = 3 if getattr(config, "is_encoder_decoder", False) else 1
    a_sequence = stacks * layers * heads * positions**2 * 4
    return int(max(1, min(16, parse_size(options.max_memory) // (4 * a_sequence))))
