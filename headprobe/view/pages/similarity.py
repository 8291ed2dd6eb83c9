"""Which heads attend alike: matrices in the order of their tree, a head's nearest ones, and the most similar pairs."""

import numpy as np

from headprobe.grouping import Block, blocks, tree
from headprobe.groups import LEAST, root_js, silhouettes_by_count
from headprobe.report import Report
from headprobe.view.columns import described
from headprobe.view.document import Place, Similarity
from headprobe.view.places import Places, stacks

DISTANCE = "js"  # what trees are made of
NEIGHBOURS = 5
MOST_PAIRS = 4_000  # heads: a matrix of more is a file's business


def similarities(report: Report, known: Places) -> tuple[Similarity, ...]:
    """A matrix for every set of heads that were all compared, and one for every layer where a set has several.

    Empty where the report has no JS of pairs.
    """
    if DISTANCE not in report.pairs:
        return ()
    names = (DISTANCE, *(name for name in _symmetric() if name != DISTANCE))
    found = blocks(report, names)
    whole = [_matrix(block, block.heads, _title(report, block), known) for block in found if len(block.heads) > 1]
    whole = [each for each in whole if len(each.places) <= MOST_PAIRS]
    if all(len({site for site, _ in block.heads}) == 1 for block in found):
        return tuple(whole)
    layers = []
    for block in found:
        for site in dict.fromkeys(site for site, _ in block.heads):
            heads = tuple(head for head in block.heads if head[0] == site)
            if len(heads) > 1:
                layers.append(_matrix(block, heads, _layer(known[heads[0]]), known))
    return (*whole, *layers)


def nearest(report: Report, known: Places) -> tuple[tuple[tuple[int, float], ...], ...]:
    """For each head the `NEIGHBOURS` that attend most like it: indices into the heads table, with their JS."""
    index = {key: i for i, key in enumerate(known)}
    alike: list[tuple[tuple[int, float], ...]] = [()] * len(known)
    for block in blocks(report, (DISTANCE,)):
        js = block.matrices[DISTANCE].copy()
        np.fill_diagonal(js, np.inf)
        closest = np.argsort(js, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(js) - 1)]
        for row, others in enumerate(closest):
            alike[index[block.heads[row]]] = tuple((index[block.heads[i]], float(js[row, i])) for i in others)
    return tuple(alike)


def _symmetric() -> list[str]:
    """Pair columns that don't depend on which head comes first."""
    return [name for name, _ in described("pair").items() if not name.endswith(("_ab", "_ba"))]


def _matrix(block: Block, heads: tuple[tuple[int, int], ...], title: str, known: Places) -> Similarity:
    rows = np.array([block.heads.index(head) for head in heads])
    mine = {name: matrix[np.ix_(rows, rows)] for name, matrix in block.matrices.items()}
    mine = {name: matrix for name, matrix in mine.items() if not np.isnan(matrix).all()}
    made = tree(mine[DISTANCE])
    order = made.order
    ordered = {name: matrix[np.ix_(order, order)] for name, matrix in mine.items()}
    for name, matrix in ordered.items():
        np.fill_diagonal(matrix, 0.0 if name == DISTANCE else 1.0)
    means = silhouettes_by_count(root_js(mine[DISTANCE])) if len(heads) >= LEAST else ()
    places = tuple(known[heads[i]] for i in order)
    return Similarity(title, places, ordered, made.merges, signed=_signed(), silhouettes=means)


def _signed() -> frozenset[str]:
    """Pair columns that can be below zero."""
    lows = {name: found.column.low for name, found in described("pair").items()}
    return frozenset(name for name, low in lows.items() if low is not None and low < 0)


def _title(report: Report, block: Block) -> str:
    sites = {site for site, _ in block.heads}
    if len(sites) == report.layers["site"].nunique():
        return "The whole model"
    kinds = stacks(report)
    names = sorted({str(kinds[site]) for site in sites})
    if len(sites) == 1:
        site = next(iter(sites))
        layer = report.layers.set_index("site")["layer"][site]
        return (f"{kinds[site]} layer {layer}" if kinds.nunique() > 1 else f"layer {layer}").capitalize()
    return f"{' and '.join(names)} layers".capitalize()


def _layer(place: Place) -> str:
    return f"{place.stack} layer {place.layer}".strip().capitalize()
