"""Inputs that a model's forward takes, told from its signature and its configuration."""

import inspect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.zoo.facts import BATCH, Facts
from tests.zoo.pictures import pictures
from tests.zoo.sounds import sounds
from tests.zoo.special import SPECIAL

Values = dict[str, Any]
LENGTH, SHORT, DECODED = 13, 9, 7  # tokens of the first and of the second text; of what a decoder is given
COUNTS = re.compile(r"tokens\D{0,12}(\d+)\D+?features?\D{0,12}(\d+)", re.DOTALL)
CROSS = re.compile("(?i)cross_?att|encoder_attn|EncDec|encoder_decoder_att")
TRIES = 110


class NotRunError(Exception):
    """No input was found that the model's forward takes, and what it said of the likeliest."""


@dataclass
class Inputs:
    """What to call the model with, and in short what that is."""

    values: Values
    label: str


def inputs_for(model: PreTrainedModel, model_type: str) -> Inputs:
    """The richest inputs that the model takes."""
    reason = ""
    for inputs in itertools.islice(candidates(model, model_type), TRIES):
        for values in _with_places(model, inputs):
            problem = forward(model, values)
            if problem is None:
                return Inputs(values, inputs.label)
            reason = reason or problem
    raise NotRunError(reason or "nothing is known of its inputs")


def complete(model: PreTrainedModel, inputs: Inputs) -> bool:
    """True if nothing that the forward takes is missing: no image, no sound."""
    takes = set(inspect.signature(model.forward).parameters)
    wanted = {"image": {"pixel_values"}, "audio": {"input_features", "input_values"}}
    return "hand-made" in inputs.label or all(kind in inputs.label for kind, names in wanted.items() if names & takes)


def forward(model: PreTrainedModel, values: Values) -> str | None:
    """Run the model: None, or what went wrong as one line."""
    torch.manual_seed(0)
    try:
        with torch.inference_mode():
            model(**values)
    except Exception as error:  # noqa: BLE001 - any failure is a line of the table
        return one_line(error)
    return None


def one_line(error: BaseException) -> str:
    """An exception as one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def candidates(model: PreTrainedModel, model_type: str) -> Iterator[Inputs]:
    """Inputs of every kind that the signature names, the richest first."""
    facts = Facts(model)
    if model_type in SPECIAL:
        yield from (Inputs(values, "hand-made") for values in SPECIAL[model_type](facts))
    takes = set(inspect.signature(model.forward).parameters)
    text = texts(facts, takes) if {"input_ids", "decoder_input_ids"} & takes else {}
    seen, heard = list(pictures(facts, takes)), list(sounds(facts, takes))
    if text:
        for picture, sound in itertools.product(seen[:3], heard[:15]):
            yield Inputs(text | picture | sound, "text, image, audio")
    for label, parts in (("image", seen), ("audio", heard)):
        for part in parts[:18] if text else []:
            yield Inputs(text | part, f"text, {label}")
            yield Inputs({k: v for k, v in text.items() if k != "attention_mask"} | part, f"text, {label}")
    states = encoded(facts, model, takes)
    if text:
        yield from (Inputs(text | state, "text, encoder states") for state in states)
        yield Inputs(text, "text")
    for label, parts in (("image", seen), ("audio", heard)):
        for part in parts:
            decoder = {name: value for name, value in text.items() if name.startswith("decoder")}
            yield from (Inputs(part | more, label) for more in ([decoder, {}] if decoder else [{}]))
    vectors = {name: maker(facts) for name, maker in OTHER.items() if name in takes}
    yield from (Inputs(vectors | state, "vectors, encoder states") for state in states)
    plain = {k: v for k, v in vectors.items() if k != "attention_mask"}
    yield from (Inputs(plain | state, "vectors, encoder states") for state in states)
    yield Inputs(vectors, "vectors")
    yield Inputs(plain, "vectors")


def encoded(facts: Facts, model: PreTrainedModel, takes: set[str]) -> list[Values]:
    """What an encoder would hand over, for a decoder alone; none where no layer looks at it."""
    if "encoder_hidden_states" not in takes or not any(CROSS.search(name) for name, _ in model.named_modules()):
        return []
    names = ("encoder_hidden_size", "cross_attention_hidden_size", "hidden_size", "d_model")
    widths = dict.fromkeys(w for w in (facts.find(name, None, ()) for name in names) if isinstance(w, int))
    states: list[Values] = [{"encoder_hidden_states": torch.randn(BATCH, 11, width)} for width in widths]
    if "query_embeds" in takes:
        queries = {"query_embeds": torch.randn(BATCH, 4, facts.width)}
        both = [{k: torch.cat([_mask(4, 4), _mask(LENGTH, SHORT)], 1)} for k in ("attention_mask",)]
        states = [queries | state | mask for state in states for mask in both if "input_ids" in takes] + [
            queries | state for state in states
        ]
    return states


def texts(facts: Facts, takes: set[str]) -> Values:
    """Two texts, the second shorter and padded on the right; for a decoder, two shorter ones."""
    values: Values = {}
    if "input_ids" in takes:
        mask = _mask(LENGTH, SHORT)
        values["input_ids"] = _ids(facts, mask)
        if "attention_mask" in takes:
            values["attention_mask"] = mask
    if "decoder_input_ids" in takes:
        mask = _mask(DECODED, DECODED - 2)
        values["decoder_input_ids"] = _ids(facts, mask, offset=3)
        if "decoder_attention_mask" in takes:
            values["decoder_attention_mask"] = mask
    if "bbox" in takes:
        corner = torch.arange(LENGTH)
        values["bbox"] = torch.stack([corner, corner, corner + 5, corner + 3], -1).expand(BATCH, -1, -1).clone()
    return values


def _mask(length: int, short: int) -> Tensor:
    return (torch.arange(length)[None] < torch.tensor([length, short])[:, None]).long()


def _ids(facts: Facts, mask: Tensor, offset: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(offset)
    ids = torch.randint(5, min(60, facts.vocab), mask.shape, generator=generator)
    return ids.masked_fill(mask == 0, facts.pad)


def _with_places(model: PreTrainedModel, inputs: Inputs) -> Iterator[Values]:
    """The inputs; with as many tokens for the image or the sound as the model asks for, if it takes some."""
    facts = Facts(model)
    kinds = [kind for kind in ("image", "audio") if kind in inputs.label and "text" in inputs.label]
    tokens = {kind: facts.token(kind) for kind in kinds}
    wanted = {kind: _counts(facts, inputs.values, kind) for kind, token in tokens.items() if token is not None}
    if not wanted:
        yield inputs.values
        return
    for _ in range(4):
        values = _placed(facts, inputs.values, wanted)
        yield values
        problem = forward(model, values) or ""
        found = COUNTS.search(problem)
        if found is None:
            return
        have, need = int(found[1]), int(found[2])
        fitting = [k for k, counts in wanted.items() if sum(counts) == have]
        kind = next((k for k in wanted if k in problem.lower()), (fitting or list(wanted))[0])
        if lines := _lines(facts, inputs.values, need):
            wanted[kind] = lines
            continue
        need = need if need < 4000 else need // max(facts.width, 1)
        wanted[kind] = [need // BATCH, need - need // BATCH]


def _lines(facts: Facts, values: Values, need: int) -> list[int]:
    """Where rows of an image end with a token of their own, and the image begins and ends with one."""
    grid, merge = values.get("image_grid_thw"), facts.picture("spatial_merge_size", 2)
    counts = [] if grid is None else [int(h) // merge * (int(w) // merge + 1) + 2 for _, h, w in grid]
    return counts if sum(counts) == need else []


def _counts(facts: Facts, values: Values, kind: str) -> list[int]:
    grid = values.get("image_grid_thw")
    if kind == "image" and grid is not None:
        merge = facts.picture("spatial_merge_size", 2)
        return [int(row.prod()) // merge**2 for row in grid]
    return [4, 4]


def _placed(facts: Facts, values: Values, wanted: dict[str, list[int]]) -> Values:
    """The texts with runs of the special tokens put in after their third token."""
    rows = []
    for row in range(BATCH):
        runs: list[int] = []
        for kind, counts in wanted.items():
            token = facts.token(kind)
            assert token is not None
            before, after = facts.around(kind)
            runs += [*before, *[token] * counts[row], *after]
        ids = values["input_ids"][row].tolist()
        keep = LENGTH if row == 0 else SHORT
        rows.append(ids[:3] + runs + ids[3:keep])
    longest = max(map(len, rows))
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    ids = torch.tensor([row + [facts.pad] * (longest - len(row)) for row in rows])
    result = values | {"input_ids": ids}
    if "attention_mask" in values:
        result["attention_mask"] = mask
    kinds = {"image": 1, "video": 2, "audio": 3}
    types = torch.zeros_like(ids)
    for kind in wanted:
        types[ids == facts.token(kind)] = kinds[kind]
    for name in ("mm_token_type_ids", "token_type_ids"):
        if facts.takes(name):
            result[name] = types if name.startswith("mm") else (types > 0).long()
    return result


OTHER: dict[str, Any] = {
    "inputs_embeds": lambda facts: torch.randn(BATCH, LENGTH, facts.width),
    "hidden_states": lambda facts: torch.randn(BATCH, LENGTH, facts.width),
    "attention_mask": lambda facts: _mask(LENGTH, SHORT),
    "mask": lambda facts: _mask(LENGTH, SHORT).bool(),
    "query_embeds": lambda facts: torch.randn(BATCH, 4, facts.width),
    "context": lambda facts: torch.randn(BATCH, LENGTH, facts.width),
    "image": lambda facts: torch.randn(BATCH, 3, facts.picture("image_size", 32), facts.picture("image_size", 32)),
    "patch_embeds": lambda facts: torch.randn(BATCH, facts.width, 2, 2),
    "spectrogram": lambda facts: torch.randn(BATCH, LENGTH, facts.find("model_in_dim", 80, ())),
    "audio_mel": lambda facts: torch.randn(BATCH, 64, 128),
    "audio_mel_mask": lambda facts: torch.zeros(BATCH, 64, dtype=torch.bool),
    "num_patches": lambda facts: LENGTH,
}
