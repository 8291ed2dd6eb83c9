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
        " type is run and what headprobe captures is held to every softmax that the model computed.\n"
    )
    total = "\n".join(f"| {word} | {count} |" for word, count in words.most_common())
    rows = "\n".join(_row(line) for line in results)
    return (
        f"{head}\n| result | types |\n|---|---|\n{total}\n\n"
        f"| model type | sites | kinds | inputs | result |\n|---|---|---|---|---|\n{rows}\n"
    )


def _row(line: Line) -> str:
    excluded = "; ".join(f"not counted: {count} {reason}" for reason, count in line.get("excluded", {}).items())
    result = ". ".join(filter(None, [str(line["verdict"]), excluded])).replace("|", "\\|")
    kinds = ", ".join(line.get("kinds", []))
    return f"| {line['type']} | {line.get('sites', 0) or ''} | {kinds} | {line.get('inputs', '')} | {result} |"
