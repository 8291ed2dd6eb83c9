"""Which heads attend alike: a report's pairs as matrices, their tree, and an order in which like stands by like."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from headprobe.report import Report

MOST_OPTIMAL = 1_500  # heads: the best order of more takes longer than anybody waits, and the tree's own will do
Matrix = NDArray[np.float64]
Head = tuple[int, int]  # site, head


@dataclass(frozen=True, eq=False)
class Block:
    """Heads of which every pair was measured, in the model's order, and a symmetric matrix [head, head] a quantity."""

    heads: tuple[Head, ...]
    matrices: dict[str, Matrix]


@dataclass(frozen=True, eq=False)
class Tree:
    """A hierarchy of heads. `merges` [heads - 1, 4] is SciPy's linkage matrix, whose heights are distances.

    `order` [heads] lists the heads as the tree's leaves from left to right.
    """

    merges: Matrix
    order: NDArray[np.int64]


def blocks(report: Report, columns: tuple[str, ...] = ("js",)) -> list[Block]:
    """The report's heads, parted so that all pairs in a block have a value of the first of `columns`.

    Pairs that were measured within layers only give a block a layer. Heads whose pairs are undefined are left out, and
    so are blocks of one head. No blocks where the report has no such column.
    """
    columns = tuple(name for name in columns if name in report.pairs)
    if not columns or report.pairs.empty:
        return []
    heads = [(int(site), int(head)) for site, head in zip(report.heads["site"], report.heads["head"], strict=True)]
    whole = {name: pair_matrix(report.pairs, name, heads) for name in columns}
    first, site_of = whole[columns[0]], np.array([site for site, _ in heads])
    found = []
    for sites in _together(first, site_of):
        rows = _defined(first, np.flatnonzero(np.isin(site_of, list(sites))))
        if len(rows) > 1:
            matrices = {name: matrix[np.ix_(rows, rows)] for name, matrix in whole.items()}
            found.append(Block(tuple(heads[row] for row in rows), matrices))
    return found


def pair_matrix(pairs: pd.DataFrame, column: str, heads: list[Head]) -> Matrix:
    """A column of a pairs table as a symmetric matrix [head, head] over `heads`: NaN where a pair was not measured.

    A head beside itself is missing too: what it would be is the quantity's to say.
    """
    listed = np.array(heads, np.int64).reshape(-1, 2).T
    ends = [[pairs[f"{part}_{side}"].to_numpy(dtype=np.int64) for part in ("site", "head")] for side in ("a", "b")]
    row_of = np.full([1 + max(part.max(initial=0) for part in parts) for parts in zip(listed, *ends, strict=True)], -1)
    row_of[*listed] = np.arange(len(heads))
    a, b = (row_of[site, head] for site, head in ends)
    known = (a >= 0) & (b >= 0)
    a, b = a[known], b[known]
    matrix = np.full((len(heads), len(heads)), np.nan)
    matrix[a, b] = matrix[b, a] = pairs[column].to_numpy(dtype=np.float64)[known]
    return matrix


def tree(js: Matrix) -> Tree:
    """The tree of heads [head, head] by average linkage on √JS, which is a distance, ordered so that like is by like.

    The diagonal is not looked at. Raises `ValueError` if a pair is missing, or for fewer than two heads.
    """
    from scipy.cluster.hierarchy import leaves_list, optimal_leaf_ordering

    if len(js) < 2:
        raise ValueError(f"{len(js)} heads make no tree")
    between = np.sqrt(np.clip(js[np.triu_indices(len(js), 1)], 0, None))
    merges = average_linkage(between)
    if len(js) <= MOST_OPTIMAL:
        merges = optimal_leaf_ordering(merges, between)
    return Tree(merges, leaves_list(merges).astype(np.int64))


def average_linkage(distances: Matrix) -> Matrix:
    """SciPy's linkage matrix [heads - 1, 4], from distances [head, head] or those above the diagonal, row by row."""
    from scipy.cluster.hierarchy import linkage

    upper = distances if distances.ndim == 1 else distances[np.triu_indices(len(distances), 1)]
    merges: Matrix = linkage(upper, method="average")
    return merges


def part_of(block: Block, heads: list[Head]) -> Block:
    """Some heads of a block."""
    rows = np.array([block.heads.index(head) for head in heads])
    return Block(tuple(heads), {name: matrix[np.ix_(rows, rows)] for name, matrix in block.matrices.items()})


def scaled(distances: Matrix) -> tuple[Matrix, float]:
    """Places [point, 2] whose distances are as near to those of a matrix [point, point] as a plane allows.

    Classical scaling (Torgerson 1952). Returns also which share of the spread the plane has. An axis points to where
    its largest value is positive, so that the same matrix gives the same map.
    """
    squared = distances**2
    centred = -0.5 * (squared - squared.mean(0) - squared.mean(1)[:, None] + squared.mean())
    values, vectors = np.linalg.eigh(centred)
    top = values[::-1][:2].clip(min=0)
    places: Matrix = vectors[:, ::-1][:, :2] * np.sqrt(top)
    largest = places[np.abs(places).argmax(0), [0, 1]]
    total = float(values.clip(min=0).sum())
    return places * np.where(largest < 0, -1.0, 1.0), float(top.sum() / total) if total else 1.0


def _together(matrix: Matrix, sites: NDArray[np.int64]) -> list[set[int]]:
    """Sites whose heads were all compared: each joins the first group of which it knows every member."""
    known = ~np.isnan(matrix)
    groups: list[set[int]] = []
    for site in dict.fromkeys(sites.tolist()):
        mine = known[sites == site]
        group = next((g for g in groups if all(mine[:, sites == other].any() for other in g)), None)
        if group is None:
            groups.append({site})
        else:
            group.add(site)
    return groups


def _defined(matrix: Matrix, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """`rows` without the heads, worst first, that lack a value with another one that stays."""
    while len(rows):
        missing = np.isnan(matrix[np.ix_(rows, rows)])
        np.fill_diagonal(missing, False)
        lacking = missing.sum(1)
        if not lacking.any():
            break
        rows = np.delete(rows, int(lacking.argmax()))
    return rows
