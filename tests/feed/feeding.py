"""How the tests feed checkpoints and compare what came of it."""

from pathlib import Path
from typing import Any

import pandas as pd

import headprobe
from headprobe.feed import Feed, Given, feed
from headprobe.load.checkpoint import Checkpoint, load_checkpoint
from headprobe.load.collate import Batch
from headprobe.load.hub import Source
from headprobe.settings import ScanOptions

FEW: dict[str, Any] = {"metrics": ["rcos", "entropy"], "pairs": "none"}
TEXTS = ["a cat sat on the mat .", "why ?", "the river runs to the sea ."]


def fed(folder: Path, given: Given | None = None, **options: Any) -> tuple[Feed, list[Batch]]:
    """The feed of a checkpoint and its batches."""
    chosen = ScanOptions.of(**options)
    made = feed(load_checkpoint(str(folder), chosen), given or Given(), chosen)
    return made, list(made.batches)


def of_model(model: Any, given: Given, **options: Any) -> list[Batch]:
    chosen = ScanOptions.of(**options)
    return list(feed(Checkpoint(model.eval(), model.config, Source(Path(), "random")), given, chosen).batches)


def same(one: headprobe.Report, other: headprobe.Report) -> None:
    pd.testing.assert_frame_equal(one.heads, other.heads, rtol=1e-4, atol=1e-5)
