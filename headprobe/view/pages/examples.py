"""What a report's examples show: like heads side by side on one text, and heads that do one clear thing."""

import math
from typing import Any

import pandas as pd

from headprobe.report import Report
from headprobe.view.document import Examples, Strip
from headprobe.view.pages.types import SEEN
from headprobe.view.places import Places
from headprobe.view.wording import capital

PAIR = "similar pair"
ABOUT = (
    "Every token on the left looks at the tokens on the right that its lines lead to: the stronger a line, the more"
    " of its attention goes there. Below 2 % none is drawn. These are texts that were measured: --no-examples leaves"
    " them out."
)
RAW = " It is the model's own attention: special tokens are in it, although the numbers on this page treat them apart."
CUT = " Texts that are too long for a picture were read again up to the end of a sentence."


def examples_of(report: Report, known: Places) -> Examples | None:
    """The block of a report's examples; None where it has none."""
    rows = [row for row in report.examples.to_dict("records") if (row["site"], row["head"]) in known]
    if not rows:
        return None
    by_example: dict[int, list[dict[Any, Any]]] = {}
    for row in rows:
        by_example.setdefault(row["example"], []).append(row)
    pairs, alone = [], []
    for found in by_example.values():
        if len(found) == 2 and found[0]["shows"] == PAIR:
            caption = _of_pair(report, found[0], found[1])
            pairs.append((_strip(found[0], caption, known), _strip(found[1], caption, known)))
        else:
            alone += [_strip(row, _of_type(report, row), known) for row in found]
    apart = report.provenance.options.get("special", "keep") != "keep"
    cut = any(row["excerpt"] for row in rows)
    return Examples(tuple(alone), tuple(pairs), ABOUT + CUT * cut + RAW * apart)


def _strip(row: dict[Any, Any], caption: str, known: Places) -> Strip:
    weights = tuple(tuple(float(weight) for weight in line) for line in row["weights"])
    keys = tuple(row["keys"]) if row["keys"] != row["tokens"] else ()
    return Strip(known[row["site"], row["head"]], tuple(row["tokens"]), weights, caption, keys)


def _of_pair(report: Report, one: dict[Any, Any], other: dict[Any, Any]) -> str:
    """How alike they are over all texts, and how much of their attention goes to the same places on this one."""
    told = ""
    if "js" in report.pairs:
        ends = {(one["site"], one["head"]), (other["site"], other["head"])}
        pairs = report.pairs[report.pairs["site_a"].isin([site for site, _ in ends])]
        mine = pairs[_names(pairs, "a").isin(ends) & _names(pairs, "b").isin(ends)]
        told = "".join(f"JS {js:.3f} over all texts. " for js in mine["js"].head(1) if not math.isnan(js))
    if len(one["keys"]) == len(other["keys"]) and len(one["tokens"]) == len(other["tokens"]) > 0:
        rows = zip(one["weights"], other["weights"], strict=True)
        shared = sum(min(a, b) for mine, theirs in rows for a, b in zip(mine, theirs, strict=True))
        share = f"{100 * shared / len(one['tokens']):.0f} % of their attention goes to the same tokens"
        return f"{told}{share} on {_where(one)}."
    return f"{told}{capital(_where(one))}."


def _names(pairs: pd.DataFrame, side: str) -> "pd.Series[Any]":
    return pd.Series(list(zip(pairs[f"site_{side}"], pairs[f"head_{side}"], strict=True)), index=pairs.index)


def _of_type(report: Report, row: dict[Any, Any]) -> str:
    """What the head is for, and what there is to be seen of it."""
    seen = f": {SEEN[row['shows']]}" if row["shows"] in SEEN else ""
    value = ""
    if "type" in report.types:
        types = report.types
        mine = types[(types["site"] == row["site"]) & (types["head"] == row["head"]) & (types["type"] == row["shows"])]
        value = "".join(f" {found:.2f}" for found in mine["value"].head(1) if not math.isnan(found))
    return f"{capital(row['shows'])}{value}{seen}. {capital(_where(row))}."


def _where(row: dict[Any, Any]) -> str:
    return f"{'the beginning of ' if row['excerpt'] else ''}sequence {row['sequence']:.0f}"
