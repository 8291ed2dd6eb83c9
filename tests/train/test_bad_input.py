"""One clear error for everything that does not exist, can't be reached or has no gradient."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from headprobe.capture import observing
from headprobe.errors import HeadprobeError, UsageError
from headprobe.train import DiversityPenalty
from tests.capture.models import GEMMA, GPT2, IMAGE, build, inputs
from tests.capture.watching import make
from tests.train.making import checkpointed, ready


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        ({"name": "line"}, "E-PENALTY", "lin"),
        ({"name": "xyzzy"}, "E-PENALTY", "within"),
        ({"name": ["lin", "js"]}, "E-PENALTY", "within"),
        ({"name": "lin", "weight": -1}, "E-OPTION", "0 or more"),
        ({"name": "lin", "weight": float("nan")}, "E-OPTION", "0 or more"),
        ({"name": "lin", "weight": "much"}, "E-OPTION", "0 or more"),
        ({"name": "lin", "weight": True}, "E-OPTION", "0 or more"),
        ({"name": "lin", "layers": "3-1"}, "E-LAYERS", "0-3,7"),
        ({"name": "lin", "layers": -1}, "E-LAYERS", "0-3,7"),
        ({"name": "lin", "layers": 1.5}, "E-LAYERS", "0-3,7"),
        ({"name": "lin", "layers": []}, "E-LAYERS", "0-3,7"),
        ({"name": "lin", "kinds": "decodr"}, "E-KIND", "decoder"),
        ({"name": "lin", "kinds": []}, "E-KIND", "encoder"),
        ({"name": "lin", "kinds": 5}, "E-KIND", "encoder"),
    ],
)
def test_arguments(arguments: dict[str, Any], code: str, hint: str) -> None:
    with pytest.raises(HeadprobeError) as caught:
        DiversityPenalty(**arguments)
    assert caught.value.code == code
    assert hint in caught.value.hint


def test_weight_is_checked_when_it_changes() -> None:
    penalty = DiversityPenalty("lin")
    with pytest.raises(HeadprobeError, match="weight"):
        penalty.weight = float("inf")
    assert penalty.weight == 1.0


def refused(penalty: DiversityPenalty, family: str, *, grad: bool = True, model: Any = None) -> HeadprobeError:
    model = model or ready(family, training=True)[0]
    with pytest.raises(HeadprobeError) as caught:
        step(penalty, model, family, grad)
    return caught.value


def step(penalty: DiversityPenalty, model: Any, family: str, grad: bool) -> None:
    with torch.set_grad_enabled(grad), penalty.watching(model):
        model(**inputs(family))
        penalty()


def test_layers_and_kinds_that_the_model_lacks() -> None:
    error = refused(DiversityPenalty("lin", layers="1-9"), "bert")
    assert (error.code, error.hint) == ("E-LAYERS", "Its layers are 0 to 1.")
    assert refused(DiversityPenalty("lin", kinds="cross"), "bert").code == "E-KIND"


def test_attention_that_is_not_eager() -> None:
    model, _ = ready("bert", training=True)
    model.set_attn_implementation("sdpa")
    error = refused(DiversityPenalty("lin"), "bert", model=model)
    assert error.code == "E-EAGER"
    assert 'set_attn_implementation("eager")' in error.hint


def hidden(attend: Any) -> Any:
    """The same attention, computed where nobody sees it."""

    def call(*args: Any, **options: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return attend(*args, **options)

    return call


def test_attention_that_shows_nothing_is_not_passed_over() -> None:
    model, batch = build("gptj").train(), inputs("gptj")
    first, second = (block.attn for block in model.h)
    second._attn = hidden(second._attn)
    error = refused(DiversityPenalty("lin"), "gptj", model=model)
    assert (error.code, "h.1.attn" in error.problem) == ("E-CAPTURE", True)
    penalty = DiversityPenalty("lin", layers=0)
    with penalty.watching(model):
        model(**batch)
        assert penalty().requires_grad
    first._attn = hidden(first._attn)
    error = refused(DiversityPenalty("lin"), "gptj", model=model)
    assert (error.code, "no attention of GPTJModel" in error.problem) == ("E-CAPTURE", True)


def test_a_pooler_that_shows_nothing_stops_nobody_who_chose_another_tower() -> None:
    import transformers as hf

    config = hf.Gemma3Config(text_config=GEMMA, vision_config=IMAGE, mm_tokens_per_image=4, image_token_index=3)
    model: Any = hf.Gemma3ForConditionalGeneration._from_config(config, attn_implementation="eager")
    ids = torch.randint(5, 97, (2, 9))
    ids[:, 1:5] = 3
    batch = {"input_ids": ids, "token_type_ids": (ids == 3).long(), "pixel_values": torch.randn(2, 3, 16, 16)}

    def towers(**choice: Any) -> list[str]:
        penalty = DiversityPenalty("lin", **choice)
        with penalty.watching(model):
            model(**batch)
            penalty()
        return [site.path.split(".")[1] for site in penalty.values]

    assert towers(kinds="decoder") == ["language_model"] * 2
    assert towers(layers=1) == ["vision_tower", "language_model"]
    for choice in ({}, {"kinds": "encoder"}, {"layers": 0}):
        with pytest.raises(HeadprobeError, match=r"vision_tower\.head\.attention shows no probabilities"):
            towers(**choice)


@pytest.mark.parametrize("name", ["output", "subspace"])
def test_outputs_beside_the_interface(name: str) -> None:
    error = refused(DiversityPenalty(name), "gptj", model=build("gptj").train())
    assert (error.code, "h.0.attn" in error.problem) == ("E-OUTPUTS", True)
    assert "the penalties output and subspace" in error.hint


def test_copies_of_a_model() -> None:
    """What nn.DataParallel runs on several devices."""
    model, batch = ready("bert", training=True)
    with pytest.raises(UsageError, match="trains copies"), DiversityPenalty("lin").watching(model):
        model._replicate_for_data_parallel()(**batch)
    wrapped = nn.DataParallel(model)
    wrapped.device_ids = [0, 1]
    with pytest.raises(UsageError, match="trains copies"), DiversityPenalty("lin").watching(wrapped):
        wrapped(**batch)


def test_layers_that_are_dropped_at_random() -> None:
    model, batch = ready("bart", training=True)
    model.encoder.layerdrop = 0.5

    def steps() -> None:
        for seed in range(10):  # in some of which one of the two layers is dropped
            torch.manual_seed(seed)
            with DiversityPenalty("lin").watching(model):
                model(**batch)

    with pytest.raises(HeadprobeError, match="not seen") as caught:
        steps()
    assert "layerdrop to 0" in caught.value.hint


def test_no_model() -> None:
    with pytest.raises(UsageError, match="str is no model"), DiversityPenalty("lin").watching("bert"):  # type: ignore[arg-type]
        pass


def test_no_gradient() -> None:
    error = refused(DiversityPenalty("lin", layers=1), "bert", grad=False)
    assert error.code == "E-GRADIENT"
    assert "encoder 1" in error.problem
    model, _ = ready("bert", training=True)
    model.requires_grad_(False)
    assert refused(DiversityPenalty("js"), "bert", model=model).code == "E-GRADIENT"


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_reentrant_checkpointing() -> None:
    model, _ = ready("bert", training=True)
    checkpointed(model, {"use_reentrant": True})
    error = refused(DiversityPenalty("lin"), "bert", model=model)
    assert error.code == "E-GRADIENT"
    assert "use_reentrant=False" in error.hint


def test_calls_in_the_wrong_order() -> None:
    model, batch = ready("bert", training=True)
    penalty = DiversityPenalty("lin")
    with pytest.raises(HeadprobeError, match="no forward pass was watched"):
        penalty()
    with penalty.watching(model):
        model(**batch)
        penalty()
        with pytest.raises(HeadprobeError, match="since the last call"):
            penalty()
        with pytest.raises(HeadprobeError, match="observed already"), penalty.watching(model):
            pass
        with pytest.raises(HeadprobeError, match="observed already"), observing(model, print):
            pass
    with observing(model, print), pytest.raises(HeadprobeError, match="observed already"), penalty.watching(model):
        pass


def test_a_single_head_has_no_other() -> None:
    import transformers as hf

    model = make(hf.GPT2Config(**{**GPT2, "n_head": 1})).train()
    assert refused(DiversityPenalty("js"), "gpt2", model=model).code == "E-HEADS"
    penalty = DiversityPenalty("within")
    with penalty.watching(model):
        model(**inputs("gpt2"))
        penalty().backward()


def test_no_trainer() -> None:
    with pytest.raises(HeadprobeError, match=re.escape("dict is no Trainer")):
        DiversityPenalty("lin").add_to({})
