"""Two processes under DistributedDataParallel train as one does with both halves of the batch."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from headprobe.train import DiversityPenalty, RepulsiveHeads
from tests.capture.models import build
from tests.train.making import gradients, loss_of

pytestmark = pytest.mark.slow


def halves() -> list[Tensor]:
    return list(torch.randint(5, 97, (4, 9), generator=torch.Generator().manual_seed(5)).split(2))


def fresh() -> Any:
    model = build("bert")
    model.pooler = None
    return model


def process(rank: int, folder: str, wrapper: bool) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = fresh()
    wrapped = DistributedDataParallel(model)
    penalty = DiversityPenalty("lin", weight=0.5)
    with penalty.watching(wrapped if wrapper else model):
        loss = loss_of(wrapped, {"input_ids": halves()[rank]}) + penalty()
    loss.backward()
    averaged = gradients(model)
    RepulsiveHeads(wrapped, "spos", temperature=0.1)(0.1)
    torch.save((averaged, gradients(model)), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("wrapper", [True, False])
def test_gradients_are_those_of_one_process(tmp_path: Path, wrapper: bool) -> None:
    spawn(process, (str(tmp_path), wrapper), nprocs=2)
    (first, repelled), (second, same) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    model, penalty = fresh(), DiversityPenalty("lin", weight=0.5)
    for half in halves():
        with penalty.watching(model):
            loss = loss_of(model, {"input_ids": half}) + penalty()
        (loss / 2).backward()
    alone = gradients(model)
    assert alone.keys() == first.keys()
    for name, gradient in alone.items():
        assert torch.allclose(gradient, first[name], rtol=1e-5, atol=1e-7), name
        assert torch.equal(first[name], second[name])
        assert torch.equal(repelled[name], same[name])  # each draws the same noise
    assert any(not torch.equal(repelled[name], gradient) for name, gradient in first.items())
