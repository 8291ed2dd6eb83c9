"""MiniLM with faults planted in its weights, each scanned once, and its own report as the baseline."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import headprobe
from headprobe import Report
from headprobe.audits.audit import audit_report
from headprobe.audits.finding import Audit
from headprobe.audits.policy import default_policy
from headprobe.audits.rule import Facts
from tests.conftest import SAMPLES

LIMIT = 16  # sequences: enough for one of 72 heads to be significant (2/2^16 < 0.05/72)
WIDTH = 32  # features of one of MiniLM's heads
Weights = dict[str, Tensor]
Plant = Callable[[Weights], None]


class Layer:
    """The queries, keys and values of one layer, by head: [head, feature, ...]."""

    def __init__(self, weights: Weights, layer: int) -> None:
        self.base = f"encoder.layer.{layer}.attention"
        self.weights = weights

    def part(self, name: str) -> Tensor:
        """A view of "query.weight" and the like: writing to it changes the weights."""
        tensor = self.weights[f"{self.base}.self.{name}"]
        return tensor.view(-1, WIDTH, *tensor.shape[1:])

    def copy(self, source: int, target: int) -> None:
        """Let head `target` attend as head `source` does."""
        for name in ("query.weight", "query.bias", "key.weight", "key.bias"):
            self.part(name)[target] = self.part(name)[source]


def twin(weights: Weights) -> None:
    Layer(weights, 2).copy(3, 8)


def triplet(weights: Weights) -> None:
    Layer(weights, 2).copy(3, 8)
    Layer(weights, 2).copy(3, 10)


def uniform(weights: Weights) -> None:
    layer = Layer(weights, 1)
    layer.part("query.weight")[5] = 0
    layer.part("query.bias")[5] = 0


def dead(weights: Weights) -> None:
    """Every query of layer 0, head 4 asks for what only the key of [CLS], the same in every text, has."""
    layer, head = Layer(weights, 0), 4
    words = weights["embeddings.word_embeddings.weight"]
    places = weights["embeddings.position_embeddings.weight"]
    kind = weights["embeddings.token_type_embeddings.weight"][0]
    ids = torch.arange(1000, 21000, 7)
    hidden = torch.cat([(words[101] + places[0])[None], words[ids] + places[1 + torch.arange(len(ids)) % 127]]) + kind
    gain, shift = (weights[f"embeddings.LayerNorm.{name}"] for name in ("weight", "bias"))
    hidden = torch.nn.functional.layer_norm(hidden, gain.shape, gain, shift, 1e-12)
    keys = hidden @ layer.part("key.weight")[head].T + layer.part("key.bias")[head]
    others = keys[1:]
    spread = torch.cov(others.T) + 1e-3 * torch.eye(WIDTH)
    towards = torch.linalg.solve(spread, keys[0] - others.mean(0))
    apart = (keys[0] - others.mean(0)) @ towards
    layer.part("query.weight")[head] = 0
    layer.part("query.bias")[head] = 60 * WIDTH**0.5 * towards / apart


def permuted(weights: Weights) -> None:
    """The heads of layer 0 in another order, their outputs with them: the model computes the same."""
    layer = Layer(weights, 0)
    for part in ("query", "key", "value"):
        for kind in ("weight", "bias"):
            layer.part(f"{part}.{kind}").copy_(layer.part(f"{part}.{kind}").roll(1, 0).clone())
    out = weights["encoder.layer.0.attention.output.dense.weight"]
    out.copy_(out.view(len(out), -1, WIDTH).roll(1, 1).reshape(out.shape).clone())


def noise(weights: Weights) -> None:
    """The head of layer 0 that looks at the token before gets weights from a random start."""
    layer = Layer(weights, 0)
    for name in ("query.weight", "key.weight"):
        layer.part(name)[PREVIOUS] = 0.1 * torch.randn(WIDTH, 384, generator=torch.Generator().manual_seed(0))


def alike(weights: Weights) -> None:
    for head in range(1, 12):
        Layer(weights, 3).copy(0, head)


def sharpened(weights: Weights) -> None:
    layer = Layer(weights, 4)
    layer.part("query.weight")[6] *= 8
    layer.part("query.bias")[6] *= 8


PREVIOUS = 2
PLANTS: dict[str, Plant] = {
    plant.__name__: plant for plant in (twin, triplet, uniform, dead, permuted, noise, alike, sharpened)
}


@pytest.fixture(scope="session")
def baseline(minilm: Path) -> Report:
    return headprobe.scan(minilm, limit=LIMIT)


@pytest.fixture(scope="session")
def planted(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Report]:
    """The report of MiniLM with a fault planted, scanned when it is first asked for."""

    @cache
    def report(name: str) -> Report:
        folder = Path(shutil.copytree(minilm, tmp_path_factory.mktemp("planted") / name))
        weights = load_file(folder / "model.safetensors")
        PLANTS[name](weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        found = headprobe.scan(folder, limit=LIMIT)
        shutil.rmtree(folder)
        return found

    return report


@pytest.fixture(scope="session")
def sample() -> Callable[[str], Report]:
    """The report of a sample checkpoint, scanned when it is first asked for."""
    return cache(lambda name: headprobe.scan(SAMPLES / name, limit=LIMIT))


def judged(report: Report, baseline: Report | None = None) -> Audit:
    """An audit by the default policy."""
    return audit_report(Facts(report, baseline), default_policy())


def codes(audit: Audit) -> set[str]:
    """The codes of all findings."""
    return {finding.code for finding in audit.findings}
