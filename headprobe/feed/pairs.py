"""Texts that come with an image or a sound, through the checkpoint's own processor, one pair at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from headprobe.errors import HeadprobeError, InputError, UsageError
from headprobe.feed.bundles import Bundle, bundle
from headprobe.feed.contract import Feed, Given, refuse, wrong_modality
from headprobe.feed.media import RATE, Medium, media_feed, medium, repeatable
from headprobe.feed.takes import modality, takes_words
from headprobe.load import images, sounds
from headprobe.load.checkpoint import LOADING_FAULTS, Checkpoint, quiet, told
from headprobe.load.collate import model_limit, tokenizer_limit
from headprobe.load.corpus import chosen, clean, corpus, records
from headprobe.load.processors import pair_processor
from headprobe.settings import InputOptions, ScanOptions

BUILT_IN_COUNT = 16


@dataclass(frozen=True)
class Pair:
    """A text and the image or sound beside it: a path or an object."""

    text: str
    beside: Any
    name: str


def feed_pairs(checkpoint: Checkpoint, given: Given, options: ScanOptions) -> Feed:
    """The pairs of a .jsonl file or from Python, else built-in ones."""
    kind = "image" if modality(checkpoint.model) == "image-text" else "audio"
    pairs, source = _pairs(checkpoint, given, options, kind)
    maker = _Maker(checkpoint, _processor(checkpoint, given, options), kind, options.max_length)

    def process() -> Iterator[Bundle]:
        for index in chosen([*range(len(pairs))], options):
            yield maker.bundle(index, pairs[index])

    return media_feed(checkpoint, process(), Medium([*pairs], [], source, []), given, options)


def read_pairs(paths: tuple[str, ...], field: str, kind: str) -> list[Pair]:
    """Pairs from .jsonl files; what a line names lies beside the file unless its path is absolute."""
    pairs = []
    for name in paths:
        path = Path(name)
        for number, row in records(path):
            where = f"{path}:{number}"
            for key in (kind, field):
                if not isinstance(row.get(key), str):
                    what = f'"{key}" is no text' if key in row else f'has no field "{key}"'
                    raise InputError("E-FIELD", f"{where} {what}", f"Every line needs {kind} (a path) and {field}.")
            beside = path.parent / row[kind]
            pairs.append(Pair(clean(row[field]), beside, f"{beside} ({where})"))
    if not pairs:
        raise InputError("E-DATA", f"no lines in {', '.join(paths)}")
    return pairs


def _pairs(checkpoint: Checkpoint, given: Given, options: ScanOptions, kind: str) -> tuple[list[Pair], str]:
    beside = options.images if kind == "image" else options.audio
    if given.texts is not None:
        return _from_python(checkpoint, list(given.texts), beside, kind), "pairs given in Python"
    if options.text:
        refuse("pairs in files have", options, "images", "audio")
        return read_pairs(options.text, options.field or "text", kind), ", ".join(options.text)
    if beside:
        raise wrong_modality(checkpoint, takes_words(checkpoint.model), f"{kind}s alone", _hint(kind))
    texts = corpus(InputOptions(limit=BUILT_IN_COUNT)).texts
    made = [images.built_in_image(i) if kind == "image" else None for i in range(BUILT_IN_COUNT)]
    pairs = [Pair(text, image, f"pair {i}") for i, (text, image) in enumerate(zip(texts, made, strict=True))]
    return pairs, f"built-in {images.BUILT_IN if kind == 'image' else sounds.BUILT_IN} with texts"


def _from_python(checkpoint: Checkpoint, texts: list[str], beside: tuple[Any, ...], kind: str) -> list[Pair]:
    if not beside:
        raise wrong_modality(checkpoint, takes_words(checkpoint.model), "texts alone", f"Give {_python(kind)} too.")
    found = medium(beside, images.SUFFIXES if kind == "image" else sounds.SUFFIXES, kind)
    if len(found.items) != len(texts):
        raise InputError("E-DATA", f"{len(texts)} texts for {len(found.items)} {_python(kind)}", "Give one for each.")
    return [Pair(clean(text), *other) for text, *other in zip(texts, found.items, found.names, strict=True)]


def _python(kind: str) -> str:
    return "images" if kind == "image" else "audio"


def _hint(kind: str) -> str:
    return f"Give --text FILE.jsonl whose lines have {kind} (a path) and text."


def check_pair_files(checkpoint: Checkpoint, options: ScanOptions) -> None:
    """Refuse texts alone for a model that takes them with images or sounds."""
    kind = "image" if modality(checkpoint.model) == "image-text" else "audio"
    for name in options.text:
        if Path(name).suffix.lower() != ".jsonl":
            raise wrong_modality(checkpoint, takes_words(checkpoint.model), "texts alone", _hint(kind))


def names_pairs(checkpoint: Checkpoint, options: ScanOptions) -> bool:
    """True if the texts' files say what lies beside each text."""
    kind = "image" if modality(checkpoint.model) == "image-text" else "audio"
    files = [Path(name) for name in options.text if Path(name).suffix.lower() == ".jsonl"]
    return any(kind in row for path in files for _, row in records(path))


def _processor(checkpoint: Checkpoint, given: Given, options: ScanOptions) -> Any:
    if given.processor is not None:
        if not hasattr(given.processor, "tokenizer"):
            raise UsageError(
                "E-PROCESSOR", f"{type(given.processor).__name__} is no processor of pairs: it has no tokenizer"
            )
        return given.processor
    if not checkpoint.files:
        raise UsageError("E-PROCESSOR", "a model object has no processor", "Pass processor=..., or batches=[...].")
    return pair_processor(checkpoint.source.folder, options.trust_remote_code)


def mark(processor: Any, kind: str, token: str) -> str:
    """What marks the place of an image or a sound before a text: as the chat template has it, else its token."""
    from jinja2 import TemplateError

    faults: tuple[type[Exception], ...] = (*LOADING_FAULTS, ImportError, TemplateError)
    text = {"type": "text", "text": "TEXT"}
    turns = [[{"role": "user", "content": content}] for content in ([{"type": kind}, text], [text])]
    try:
        written, without = (str(processor.apply_chat_template(turn, tokenize=False)) for turn in turns)
    except faults:  # there is no template, or it asks for something else
        return f"{token}\n"
    found = written.partition("TEXT")[0].removeprefix(without.partition("TEXT")[0])
    return found if token in found else f"{token}\n"


class _Maker:
    """Makes bundles of pairs: reads what lies beside the text, cuts the text, and puts in what marks the place."""

    def __init__(self, checkpoint: Checkpoint, processor: Any, kind: str, max_length: int) -> None:
        self._model = checkpoint.model
        self._processor = processor
        self._kind = kind
        tokenizer = processor.tokenizer
        limits = (max_length, model_limit(checkpoint), tokenizer_limit(tokenizer, checkpoint.source.folder))
        self._longest = max(1, min(limits) - tokenizer.num_special_tokens_to_add())
        names = ("image_token_id", "image_token_index") if kind == "image" else ("audio_token_id", "audio_token_index")
        ids = (getattr(checkpoint.config, name, None) for name in names)
        self._place = next((found for found in ids if isinstance(found, int)), None)
        self._token = getattr(processor, f"{kind}_token", None)
        if self._token is None and self._place is not None:
            self._token = tokenizer.convert_ids_to_tokens(self._place)
        self._mark = mark(processor, kind, str(self._token)) if self._token else ""
        # where no mask is made for padding, the model was trained to see all of it
        self._padded = "attention_mask" not in tokenizer.model_input_names and tokenizer.pad_token is not None

    def bundle(self, number: int, pair: Pair) -> Bundle:
        """The arguments of the model's forward for one pair."""
        beside = self._read(number, pair)
        text, was_cut = self._cut(pair.text)
        problem = f"the processor fails on {pair.name}"
        unmarked = bool(self._mark) and str(self._token) not in text
        made: Any = None
        with quiet(), repeatable():
            try:
                with told("E-DATA", problem):
                    made = self._made(text, beside)
            except HeadprobeError:
                if not unmarked:
                    raise
            with told("E-DATA", problem):
                if unmarked and not self._marked(made):
                    made = self._made(self._mark + text, beside)
                return bundle(number, made, self._model, was_cut=was_cut)

    def _read(self, number: int, pair: Pair) -> dict[str, Any]:
        if self._kind == "image":
            return {"images": [images.read_image(pair.beside, 3, pair.name)]}
        rate = int(getattr(getattr(self._processor, "feature_extractor", None), "sampling_rate", RATE))
        if pair.beside is None:
            return {"audio": [sounds.built_in_sound(number, rate).samples], "sampling_rate": rate}
        return {"audio": [sounds.read_sound(pair.beside, rate, pair.name).samples], "sampling_rate": rate}

    def _cut(self, text: str) -> tuple[str, bool]:
        """The text as far as the model's limit: cut as text, so that no token that marks a place is lost."""
        tokenizer = self._processor.tokenizer
        with quiet():
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            cut, kept = text, self._longest
            while kept and len(tokenizer(cut, add_special_tokens=False)["input_ids"]) > self._longest:
                cut, kept = str(tokenizer.decode(ids[:kept])), kept - 1  # what was cut may have more tokens than it had
        return cut, cut != text

    def _made(self, text: str, beside: dict[str, Any]) -> Any:
        extra = {"padding": "max_length"} if self._padded else {}
        return self._processor(text=[text], **beside, return_tensors="pt", **extra)

    def _marked(self, made: Any) -> bool:
        if made is None:
            return False
        ids = made.get("input_ids")
        return self._place is None or not isinstance(ids, Tensor) or bool((ids == self._place).any())
