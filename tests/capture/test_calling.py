"""Models that are called in other ways than alone, in eval mode and in this thread."""

from threading import Thread
from typing import Any

import pytest
import torch
from torch import nn

from headprobe.capture import observing
from headprobe.errors import UsageError
from tests.capture.models import build, inputs
from tests.capture.watching import watch


def test_training_mode_is_refused() -> None:
    model = build("bert").train()
    with pytest.raises(UsageError, match="training mode"), observing(model, print):
        model(**inputs("bert"))


def test_a_part_in_training_mode_is_refused() -> None:
    """Its dropout would change what attention sees, though rows still sum to one."""
    model = build("bert")
    model.encoder.layer[1].output.train()
    with pytest.raises(UsageError, match=r"encoder\.layer\.1\.output is in training mode"):
        watch(model, **inputs("bert"))


def test_a_forward_pass_in_another_thread_is_refused() -> None:
    """Where torch shows the softmaxes of models that don't use the interface to nobody."""
    model, raised = build("mpnet"), []

    def forward() -> None:
        try:
            model(**inputs("mpnet"))
        except UsageError as error:
            raised.append(error.problem)

    with observing(model, lambda tile: None):
        thread = Thread(target=forward)
        thread.start()
        thread.join()
    assert raised == ["the model runs in another thread than the one that observes it"]


class Wrapped(nn.Module):
    """What adapters, compilers and parallel wrappers look like: arguments have no names of their own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Any, **named: Any) -> Any:
        return self.model(*given, **named)


@pytest.mark.parametrize("family", ["bert", "bart"])
def test_a_wrapper_hides_neither_padding_nor_kinds(family: str) -> None:
    model, batch = build(family), inputs(family)
    alone, wrapped = watch(model, **batch)[0], watch(Wrapped(model).eval(), **batch)[0]
    assert [site.kind for site in wrapped] == [site.kind for site in alone]
    for (one,), (other,) in zip(wrapped.values(), alone.values(), strict=True):
        assert torch.equal(one.query_mask, other.query_mask)
        assert torch.equal(one.support, other.support)
