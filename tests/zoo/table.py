"""The results as a page of documentation."""

from collections import Counter
from typing import Any

import torch
import transformers

Line = dict[str, Any]


def markdown(results: list[Line]) -> str:
    """The page: totals, then a line for every type."""
    words = Counter(str(line["verdict"]).partition(":")[0] for line in results)
    head = (
        f"# Coverage\n\nWhat `python -m tests.zoo` finds for the {len(results)} model types of transformers"
        f" {transformers.__version__} with torch {torch.__version__.partition('+')[0]}: a tiny random model of each"
        " type is run, with one of two inputs padded where it takes a mask, and what headprobe captures is held to\n"
        "every softmax that the model computed: *exact* means within 2e-5, whole layers and tiles of one row alike,\n"
        "and a model output that did not change. Where tiles of one row change the rounding of a sum, and random"
        " weights amplify that from layer to layer, they are held in float64, to 1e-7.\n"
    )
    total = "\n".join(f"| {word} | {count} |" for word, count in words.most_common())
    rows = "\n".join(_row(line) for line in results)
    return (
        f"{head}\n| result | types |\n|---|---|\n{total}\n\n"
        f"| model type | sites | kinds | inputs | result |\n|---|---|---|---|---|\n{rows}\n"
    )


def _row(line: Line) -> str:
    excluded = "; ".join(f"not counted: {count} {reason}" for reason, count in line.get("excluded", {}).items())
    tiled = str(line.get("tiled", ""))
    tiles = "" if tiled in ("", "exact") else f"tiles of one row: {tiled}"
    result = ". ".join(filter(None, [str(line["verdict"]).removesuffix("."), tiles, excluded])).replace("|", "\\|")
    kinds = ", ".join(line.get("kinds", []))
    return f"| {line['type']} | {line.get('sites', 0) or ''} | {kinds} | {line.get('inputs', '')} | {result} |"
