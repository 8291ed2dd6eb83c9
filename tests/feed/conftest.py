"""Tiny checkpoints, made once for all tests."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.feed.checkpoints import BUILDERS

Made = Callable[[str], Path]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The folder of a checkpoint, by the name of its builder."""
    root = tmp_path_factory.mktemp("made")

    def make(name: str) -> Path:
        if not (root / name).exists():
            (root / name).mkdir()
            BUILDERS[name](root / name)
        return root / name

    return make


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Made:
    """A copy of a checkpoint that a test may break."""
    return lambda name: Path(shutil.copytree(made(name), tmp_path / name))
