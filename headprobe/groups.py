"""Groups of heads that attend alike, in each layer and over the model: how many, who stands for each, how stable."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headprobe.grouping import Block, Head, Matrix, average_linkage, blocks, part_of
from headprobe.report import Report, no_rows

LEAST = 3  # heads: of fewer no grouping is better than another
MOST_GROUPS = 512  # beyond which the best number of groups is not looked for
RESAMPLES = 25  # draws of the sequences
LEAST_SEQUENCES = 8  # to draw from
SEED = 0
ROUNDING = 1e-12  # of a mean silhouette
NEAR_COPY = 0.02  # nats of JS: heads this near differ by less than a fiftieth of the largest possible divergence
NAMES = ("site", "path", "kind", "layer", "head")
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sampled:
    """Of heads in their order: sums of JS [sequence, head, head] over a sequence's queries, and how many [sequence]."""

    heads: tuple[Head, ...]
    sums: Matrix
    counts: Matrix


@dataclass(frozen=True, eq=False)
class Grouping:
    """The groups of a block of heads: the number of each head's group, from 0, and how well it fits there.

    `silhouettes` [head] are between -1 and 1, 0 for a head on its own. `medoids` [group] are the heads with the least
    mean distance to the rest of their group. `stability` [group] is the mean over draws of the sequences of the best
    Jaccard index with a group that is found then; missing where sequences were not kept apart.
    """

    labels: Labels
    silhouettes: Matrix
    medoids: Labels
    stability: Matrix


def group_table(report: Report, sampled: Sequence[Sampled] = ()) -> pd.DataFrame:
    """A row a head and scope ("layer", "model"): its group, the group's size and representative, and how good it is.

    `block` numbers the groupings, `group` the groups of each from 1 on, the largest first. `silhouette` is the head's,
    `mean_silhouette` the whole grouping's, `distance` √JS from the representative, `stability` the group's.
    `copy_group` numbers sets of near copies instead, and `copies` is how many are in the head's. `effective_heads` is
    that of the whole block.
    """
    heads = report.heads
    at = {key: row for row, key in enumerate(zip(heads["site"].tolist(), heads["head"].tolist(), strict=True))}
    parts = [part for part in _parts(report) if len(part[1].heads) >= LEAST]
    if not parts:
        return no_rows("groups")
    found = [_rows(part, grouped(part, sampled), np.array([at[head] for head in part.heads])) for _, part in parts]
    sizes = [len(part.heads) for _, part in parts]
    columns = {name: np.concatenate([rows[name] for rows in found]) for name in found[0]}
    row, stands = columns.pop("row"), columns.pop("stands")
    named = {name: heads[name].to_numpy()[row] for name in NAMES}
    medoids = {f"representative_{name}": heads[name].to_numpy()[stands] for name in ("site", "layer", "head")}
    scopes = {
        "scope": np.repeat([scope for scope, _ in parts], sizes),
        "block": np.repeat(np.arange(len(sizes)), sizes),
    }
    return pd.DataFrame({**scopes, **named, **columns, **medoids})


def _parts(report: Report) -> Iterator[tuple[str, Block]]:
    """Every layer's heads, and before them all heads that were compared across layers."""
    found = blocks(report)
    wide = [block for block in found if len({site for site, _ in block.heads}) > 1]
    yield from (("model", block) for block in wide)
    for block in found:
        for site in dict.fromkeys(site for site, _ in block.heads):
            yield "layer", part_of(block, [head for head in block.heads if head[0] == site])


def grouped(block: Block, sampled: Sequence[Sampled] = ()) -> Grouping:
    """Average linkage on √JS, cut into the number of groups whose mean silhouette is the largest."""
    distances = root_js(block.matrices["js"])
    labels = best_cut(distances)
    sizes = np.bincount(labels)
    order = np.lexsort((np.arange(len(sizes)), -sizes))  # the largest first, then in the heads' order
    labels = np.argsort(order)[labels]
    medoids = [medoid(distances, np.flatnonzero(labels == group)) for group in range(len(sizes))]
    own = next((one for one in sampled if set(block.heads) <= set(one.heads)), None)
    unknown = np.full(len(sizes), np.nan)
    stability = unknown if own is None else _stability(own, block.heads, labels, unknown)
    return Grouping(labels, silhouettes(distances, labels), np.array(medoids), stability)


def silhouettes(distances: Matrix, labels: Labels) -> Matrix:
    """[head]: (b - a) / max(a, b) of the mean distances to the own group and to the nearest other; 0 on its own."""
    members = (labels[:, None] == np.arange(labels.max() + 1)).astype(np.float64)
    return _silhouettes(distances @ members, members.sum(0), labels)


def _silhouettes(sums: Matrix, sizes: Matrix, labels: Labels) -> Matrix:
    """From each head's summed distances [head, group] to the groups."""
    rows = np.arange(len(labels))
    size = sizes[labels]
    own = sums[rows, labels] / np.maximum(size - 1, 1)
    others = sums / sizes
    others[rows, labels] = np.inf
    nearest = others.min(1)
    largest = np.maximum(own, nearest)
    found: Matrix = np.where((size > 1) & (largest > 0), (nearest - own) / np.where(largest > 0, largest, 1), 0.0)
    return found


def best_cut(distances: Matrix) -> Labels:
    """[head]: the cut of the tree with the largest mean silhouette, of 2 groups up to one less than heads.

    Groups are numbered in the order of their first heads. Of equally good cuts the one with the fewest groups.
    """
    best, found = -np.inf, np.arange(len(distances))
    for mean, labels in _cuts(distances):
        if mean >= best - ROUNDING:
            best, found = max(best, mean), labels.copy()
    return _numbered(found)


def silhouettes_by_count(distances: Matrix) -> tuple[float, ...]:
    """The mean silhouette of the tree cut into 2, 3, … groups, up to one less than heads or `MOST_GROUPS`."""
    return tuple(mean for mean, _ in _cuts(distances))[::-1]


def best_count(means: Sequence[float]) -> int:
    """How many groups `best_cut` takes, from the `silhouettes_by_count`."""
    return 2 + next(i for i, mean in enumerate(means) if mean >= max(means) - ROUNDING)


def _cuts(distances: Matrix) -> Iterator[tuple[float, Labels]]:
    """Every cut, the most groups first: its mean silhouette, and labels [head] that the next one overwrites."""
    count = len(distances)
    merges = average_linkage(distances)
    sums, sizes = distances.copy(), np.ones(count)
    labels, names = np.arange(count), list(range(count))  # what SciPy calls the cluster of each column
    for step, (one, other) in enumerate(merges[:-1, :2].astype(int)):
        kept, gone = sorted((names.index(one), names.index(other)))
        sums[:, kept] += sums[:, gone]
        sizes[kept] += sizes[gone]
        last = len(names) - 1
        labels[labels == gone] = kept
        sums[:, gone], sizes[gone], names[gone] = sums[:, last], sizes[last], names[last]
        labels[labels == last] = gone if last != gone else kept
        names[kept] = count + step
        names.pop()
        if last <= MOST_GROUPS:
            yield float(_silhouettes(sums[:, :last], sizes[:last], labels).mean()), labels


def _stability(sampled: Sampled, heads: tuple[Head, ...], labels: Labels, unknown: Matrix) -> Matrix:
    """[group]: how much of each group comes back when the sequences are drawn anew (Hennig 2007)."""
    count = len(sampled.counts)
    if count < LEAST_SEQUENCES:
        return unknown
    draws = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)
    rows = np.array([sampled.heads.index(head) for head in heads])
    sums = sampled.sums[:, rows][:, :, rows]
    upper = np.triu_indices(len(rows), 1)
    seen = draws @ sampled.counts
    means = (draws @ sums[:, *upper]) / np.where(seen > 0, seen, np.nan)[:, None]
    mine = labels[:, None] == np.arange(labels.max() + 1)
    found = np.zeros(mine.shape[1])
    for mean in means:
        found += _recovered(mine, average_linkage(np.sqrt(mean.clip(min=0))))
    return found / RESAMPLES


def _recovered(mine: NDArray[np.bool_], merges: Matrix) -> Matrix:
    """[group]: the best Jaccard index of each group `mine` [head, group] with a branch of the tree."""
    heads = len(mine)
    inside = np.zeros((2 * heads - 1, mine.shape[1]))  # [branch, group]: how many of the group's heads it holds
    inside[:heads] = mine
    for step, (one, other) in enumerate(merges[:, :2].astype(int).tolist()):
        inside[heads + step] = inside[one] + inside[other]
    sizes = np.concatenate([np.ones(heads), merges[:, 3]])[:, None]
    best: Matrix = (inside / (sizes + mine.sum(0) - inside)).max(0)
    return best


def _rows(block: Block, made: Grouping, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The columns of a block's heads, of which `rows` says where they stand in the table of heads."""
    js, heads = block.matrices["js"], len(block.heads)
    stands = made.medoids[made.labels]
    copies = _copies(js)
    return {
        "row": rows,
        "group": made.labels + 1,
        "size": np.bincount(made.labels)[made.labels],
        "stands": rows[stands],
        "distance": root_js(js)[np.arange(heads), stands],
        "silhouette": made.silhouettes,
        "mean_silhouette": np.full(heads, made.silhouettes.mean()),
        "stability": made.stability[made.labels],
        "copies": np.bincount(copies)[copies],
        "copy_group": copies + 1,
        "effective_heads": np.full(heads, effective(js)),
    }


def _copies(js: Matrix) -> Labels:
    """[head]: sets of near copies, in the order of their first heads: the tree cut at a mean JS of `NEAR_COPY`."""
    labels = np.arange(len(js))
    members = {i: [i] for i in range(len(js))}
    for step, (one, other, height, _) in enumerate(average_linkage(root_js(js)).tolist()):
        members[len(js) + step] = members[int(one)] + members[int(other)]
        if height <= NEAR_COPY**0.5:
            labels[members[len(js) + step]] = min(members[len(js) + step])
    return _numbered(labels)


def effective(js: Matrix) -> float:
    """Vendi score of order 1 of the kernel 1 - JS / ln 2: how many different heads a block of them amounts to."""
    kernel = 1 - np.where(np.eye(len(js), dtype=bool), 0.0, js) / np.log(2)
    values = np.linalg.eigvalsh(kernel / len(js)).clip(min=0)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def root_js(js: Matrix) -> Matrix:
    """√JS [head, head], which is a distance, 0 of a head from itself."""
    distances: Matrix = np.sqrt(np.clip(js, 0, None))
    np.fill_diagonal(distances, 0.0)
    return distances


def medoid(distances: Matrix, members: Labels) -> int:
    """The first of the members with the least summed distance to the others, but for rounding."""
    summed = distances[np.ix_(members, members)].sum(1)
    return int(members[np.argmax(summed <= summed.min() + ROUNDING)])


def _numbered(labels: Labels) -> Labels:
    """The same groups, numbered in the order of their first members."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    ranks: Labels = np.argsort(np.argsort(first))[inverse]
    return ranks
