"""Images and sounds: files from folders or objects from Python, through the checkpoint's own processor."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headprobe.errors import InputError, UsageError
from headprobe.feed.bundles import Bundle, Told, bundle, bundle_batches
from headprobe.feed.contract import Feed, Given
from headprobe.feed.decoder import decoded_bundles, targets_for, tokenizer_for_targets
from headprobe.feed.takes import reads, sound_name
from headprobe.load import images, sounds
from headprobe.load.checkpoint import Checkpoint, quiet, told
from headprobe.load.corpus import chosen
from headprobe.load.folders import find_files
from headprobe.load.processors import feature_extractor, image_processor
from headprobe.settings import ScanOptions

RATE = 16_000  # where a feature extractor names none


@dataclass(frozen=True)
class Medium:
    """Images or sounds of a user, in order: each a path or an object, with its name; and words about them."""

    items: list[Any]
    names: list[str]
    source: str
    notes: list[str]


def medium(given: tuple[Any, ...], suffixes: tuple[str, ...], what: str) -> Medium:
    """All files that the given paths name, and the objects among them as they are."""
    paths = tuple(item for item in given if isinstance(item, str))
    if not paths:
        names = [f"{what} {index}" for index in range(len(given))]
        return Medium(list(given), names, f"{what}s given in Python", [])
    if len(paths) != len(given):
        raise UsageError("E-OPTION", f"{what}s are paths or objects, not both")
    found = find_files(paths, suffixes, what)
    notes = [f"{found.skipped} other files beside the {what}s were left out"] if found.skipped else []
    return Medium([*found.paths], [str(path) for path in found.paths], ", ".join(paths), notes)


def feed_images(checkpoint: Checkpoint, given: Given, options: ScanOptions) -> Feed:
    """The images of a folder or from Python, else built-in ones."""
    if not options.images:
        source = f"built-in {images.BUILT_IN}"
        made = images.built_in_images(checkpoint.config, checkpoint.source.folder, None).inputs
        with told("E-PROCESSOR", "the built-in images can't be normalised"):
            ready = [bundle(item.number, {"pixel_values": item.ids[None]}, checkpoint.model) for item in made]
        return media_feed(checkpoint, chosen(ready, options), Medium([*ready], [], source, []), given, options)
    found = medium(options.images, images.SUFFIXES, "image")
    processor = _own(checkpoint, given, options, image_processor, "image processor")
    processor = getattr(processor, "image_processor", processor)
    channels = images.image_shape(checkpoint.config)[0]

    def process(index: int) -> Bundle:
        name = found.names[index]
        image = images.read_image(found.items[index], channels, name)
        with quiet(), repeatable(), told("E-DATA", f"the image processor fails on {name}"):
            return bundle(index, processor(images=[image], return_tensors="pt"), checkpoint.model)

    return media_feed(checkpoint, map(process, chosen([*range(len(found.items))], options)), found, given, options)


def feed_sounds(checkpoint: Checkpoint, given: Given, options: ScanOptions) -> Feed:
    """The sounds of a folder or from Python, else built-in ones."""
    extractor = _own(checkpoint, given, options, feature_extractor, "feature extractor")
    extractor = getattr(extractor, "feature_extractor", extractor)
    rate = int(getattr(extractor, "sampling_rate", RATE))
    if options.audio:
        found = medium(options.audio, sounds.SUFFIXES, "sound")
    else:
        items = [(made.samples, made.rate) for made in (sounds.built_in_sound(i, rate) for i in range(sounds.COUNT))]
        found = Medium([*items], [f"sound {i}" for i in range(len(items))], f"built-in {sounds.BUILT_IN}", [])
    name = sound_name(checkpoint.model)

    def process(index: int) -> Bundle:
        sound = sounds.read_sound(found.items[index], rate, found.names[index])
        _check_length(sound, checkpoint.model, found.names[index])
        with quiet(), repeatable(), told("E-DATA", f"the feature extractor fails on {found.names[index]}"):
            made = extractor(sound.samples, sampling_rate=rate, return_tensors="pt")
            if name not in made:
                raise InputError("E-PROCESSOR", f"the feature extractor makes {', '.join(made)}, not {name}")
            return bundle(index, made, checkpoint.model, was_cut=len(sound.samples) > window(extractor, rate))

    return media_feed(checkpoint, map(process, chosen([*range(len(found.items))], options)), found, given, options)


def window(extractor: Any, rate: int) -> float:
    """How many samples a feature extractor takes before it cuts."""
    frames = getattr(extractor, "max_length", None)  # of 10 ms, where spectrograms are cut and not samples
    samples = (getattr(extractor, name, None) for name in ("n_samples", "nb_max_samples"))
    longest = next((count for count in samples if isinstance(count, int)), None)
    return longest or (frames * rate / 100 if isinstance(frames, int) else math.inf)


@contextmanager
def repeatable() -> Iterator[None]:
    """The same random numbers every time: some processors cut long sounds at random places."""
    state = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            np.random.seed(0)
            yield
    finally:
        np.random.set_state(state)


def _check_length(sound: sounds.Sound, model: Any, name: str) -> None:
    frames = getattr(model, "_get_feat_extract_output_lengths", None)
    if frames is None or sound_name(model) != "input_values":
        return
    if int(frames(torch.tensor(len(sound.samples)))) < 1:
        raise InputError("E-AUDIO", f"{name} is too short for the model: {len(sound.samples)} samples")


def media_feed(
    checkpoint: Checkpoint, made: Iterable[Bundle], found: Medium, given: Given, options: ScanOptions
) -> Feed:
    """A feed of bundles, made one after another as the model runs unless a decoder has to write first."""
    total = len(chosen(found.items, options))
    about: dict[str, Any] = {"source": found.source, "sequences": total, "tokens": None, "cut": 0}
    notes = list(found.notes)
    if reads(checkpoint.model):
        targets = targets_for(checkpoint, given, options, len(found.items), "inputs")
        tokenizer = tokenizer_for_targets(checkpoint, given, options) if targets else None
        made, decoded = decoded_bundles(checkpoint, list(made), targets, tokenizer, options)
        about["decoder"] = decoded.about
        notes += decoded.notes
    seen: list[Told] = []
    batches = bundle_batches(_counted(made, about, notes, total), checkpoint.model, options.batch_size, seen)
    return Feed(batches, seen, total, about, notes)


def _counted(made: Iterable[Bundle], about: dict[str, Any], notes: list[str], total: int) -> Iterator[Bundle]:
    for item in made:
        about["cut"] += item.was_cut
        yield item
    if about["cut"]:
        notes.append(f"{about['cut']} of {total} inputs were cut at the model's limit")


def _own(checkpoint: Checkpoint, given: Given, options: ScanOptions, load: Callable[..., Any], what: str) -> Any:
    if given.processor is not None:
        return given.processor
    if not checkpoint.files:
        raise UsageError("E-PROCESSOR", f"a model object has no {what}", "Pass processor=..., or batches=[...].")
    return load(checkpoint.source.folder, options.trust_remote_code)
