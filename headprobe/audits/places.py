"""Where things are in a report, and how findings at several heads of a layer are told as one."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from headprobe.audits.finding import Finding
from headprobe.audits.rule import Limits
from headprobe.report import Report

Row = dict[str, Any]
Key = tuple[str, str, int, int, int]
SEVERAL = 3  # from so many heads of a layer on, one finding tells of them all


def rows(table: pd.DataFrame) -> list[Row]:
    """The rows of a table by column name."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def known(value: Any) -> bool:
    """Whether a cell holds a finite number."""
    return value is not None and not pd.isna(value) and math.isfinite(float(value))


def place(row: Mapping[str, Any]) -> Row:
    """What names a site, as arguments of a `Finding`."""
    tower = row.get("tower")
    return {
        "site": int(row["site"]),
        "path": str(row["path"]),
        "tower": tower if isinstance(tower, str) else "",
        "kind": str(row["kind"]),
        "layer": int(row["layer"]),
    }


def sites(report: Report) -> dict[int, Row]:
    """The place of every site that has heads."""
    return {int(row["site"]): place(row) for row in rows(report.heads.drop_duplicates("site"))}


def keys(report: Report) -> dict[Key, Row]:
    """Heads by what they are called in any report of the same architecture.

    That is tower, kind, layer, n-th site of that layer, head. Paths are no part of it: a task's head prefixes them.
    """
    order: dict[tuple[str, str, int], list[int]] = {}
    found: dict[Key, Row] = {}
    for row in rows(report.heads):
        at = place(row)
        same = order.setdefault((at["tower"], at["kind"], at["layer"]), [])
        if at["site"] not in same:
            same.append(at["site"])
        found[at["tower"], at["kind"], at["layer"], same.index(at["site"]), int(row["head"])] = row
    return found


@dataclass(frozen=True)
class Seen:
    """One head that a rule has something to say about: `row` names it; larger `badness` is worse."""

    row: Row
    metric: str
    value: float | None
    limit: float | None
    message: str
    badness: float = 0.0
    baseline: float | None = None


def told(code: str, limits: Limits, seen: Iterable[Seen], several: str) -> Iterator[Finding]:
    """A finding a head, or one a layer where three or more of its heads have the same to tell.

    `several` is the sentence then, with `{heads}` for the heads; the worst head's own sentence follows it.
    """
    by_site: dict[int, list[Seen]] = {}
    for one in seen:
        by_site.setdefault(int(one.row["site"]), []).append(one)
    for group in by_site.values():
        worst = max(group, key=lambda one: one.badness)
        if len(group) < SEVERAL:
            yield from (_one(code, limits, one) for one in group)
            continue
        heads = tuple(sorted(int(one.row["head"]) for one in group))
        yield Finding(
            code=code,
            severity=limits.severity,
            message=f"{several.format(heads=listed(heads))}; head {int(worst.row['head'])}: {worst.message}",
            heads=heads,
            metric=worst.metric,
            value=worst.value,
            limit=worst.limit,
            baseline=worst.baseline,
            **place(worst.row),
        )


def _one(code: str, limits: Limits, one: Seen) -> Finding:
    return Finding(
        code=code,
        severity=limits.severity,
        message=one.message,
        head=int(one.row["head"]),
        heads=(int(one.row["head"]),),
        metric=one.metric,
        value=one.value,
        limit=one.limit,
        baseline=one.baseline,
        **place(one.row),
    )


def listed(heads: Iterable[int]) -> str:
    """Heads in words: "heads 1, 3 and 6 to 8"."""
    words: list[str] = []
    numbers = sorted(heads)
    for _, run in groupby(enumerate(numbers), lambda item: item[1] - item[0]):
        each = [head for _, head in run]
        words += [f"{each[0]} to {each[-1]}"] if len(each) >= SEVERAL else [str(head) for head in each]
    return f"head{'s' * (len(numbers) > 1)} {' and '.join([', '.join(words[:-1]), words[-1]] if words[1:] else words)}"


def clusters(pairs: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    """The connected groups that pairs of heads make, each ascending."""
    group: dict[int, set[int]] = {}
    for a, b in pairs:
        joined = group.get(a, {a}) | group.get(b, {b})
        for head in joined:
            group[head] = joined
    distinct = {id(heads): tuple(sorted(heads)) for heads in group.values()}
    return sorted(distinct.values())
