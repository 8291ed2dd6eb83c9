"""Similarity matrices as pictures under their trees, and their numbers packed into a byte each."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headprobe.groups import best_count, medoid, root_js
from headprobe.view.colours import SEQUENTIAL, STEPS
from headprobe.view.document import Similarities, Similarity
from headprobe.view.groups import CLEAR
from headprobe.view.html.pictures import Indices, branch_edges, indices, pack, png, smaller, tree_path, tree_width

BYTES = 255  # entries of a packed number: 0 for nothing in common to 254 for the same, 255 for what is missing
MOST_PICTURE = 512  # heads on a side of a picture that is not packed: finer than a screen shows it
MOST_LABELS = 40
BUDGET = 1_200_000  # bytes of packed matrices: what comes later in the registry is left out first
MOST_THUMBS = 100


def matrix_part(found: Similarities, prefix: str) -> dict[str, Any]:
    """The first matrix as a picture, the others as small ones, and what there is to choose."""
    first = found.choices[0]
    name = next(iter(first.matrices))
    return {
        "titles": [each.title for each in found.choices],
        "quantities": _kept(found),
        "about": found.about,
        "picture": _picture(first, name, MOST_PICTURE),
        "words": _words(first, name),
        "tree": tree_path(first.merges),
        "heads": len(first.places),
        "width": tree_width(len(first.places)),
        "labels": [place.short for place in first.places] if len(first.places) <= MOST_LABELS else [],
        "order": [(prefix + place.name, place.short) for place in first.places],
        "thumbs": [_thumb(each) for each in found.choices[:MOST_THUMBS]] if len(found.choices) > 1 else [],
        "scale": png(np.arange(STEPS, dtype=np.uint8)[None], SEQUENTIAL),
    }


def matrix_data(found: Similarities) -> dict[str, Any]:
    """Every choice: its heads in order, its tree, and its packed matrices, or in which other choice they are."""
    quantities = _kept(found)
    choices: list[dict[str, Any]] = []
    whole: list[tuple[int, set[str]]] = []
    for i, each in enumerate(found.choices):
        names = [place.name for place in each.places]
        within = next((at for at, known in whole if known.issuperset(names)), None)
        made: dict[str, Any] = {
            "title": each.title, "names": names, "tree": tree_path(each.merges), "width": tree_width(len(names)),
            "groups": _groups(each),
        }  # fmt: skip
        if within is None:
            made["packed"] = {name: pack(entries(each, name)) for name in quantities if name in each.matrices}
            whole.append((i, set(names)))
        else:
            made["within"] = within
        choices.append(made)
    distances = [name for name in quantities if name in found.choices[0].distances]
    signed = [name for name in quantities if name in found.choices[0].signed]
    return {
        "choices": choices, "quantities": quantities, "distances": distances, "signed": signed,
        "most": math.log(2), "clear": CLEAR,
    }  # fmt: skip


def _groups(found: Similarity) -> dict[str, Any] | None:
    """How to cut the tree: the n-th of `edges` parts the heads in their order into n + 1 groups where n did before.

    `heights` [edge] are the distances that are parted there, `stand` the heads that stand for the `best` number of
    groups. None where there is nothing to cut.
    """
    if not found.silhouettes:
        return None
    most = len(found.silhouettes) + 1  # the last height is of what is together still
    edges = branch_edges(found.merges)[::-1][:most]
    heights = found.merges[::-1, 2][:most]
    best = best_count(found.silhouettes)
    return {
        "edges": edges, "heights": [round(height, 4) for height in heights.tolist()],
        "silhouettes": [round(mean, 3) for mean in found.silhouettes], "best": best,
        "stand": _stand(found, sorted(edges[: best - 1])),
    }  # fmt: skip


def _stand(found: Similarity, edges: list[int]) -> list[int]:
    """For each group, between `edges` of the order, where in it the head is that stands for the group."""
    distances = root_js(found.matrices["js"])
    model = np.argsort(np.argsort([(place.site << 32) + place.head for place in found.places]))  # the model's order
    groups = np.split(np.arange(len(found.places)), edges)
    return [medoid(distances, group[np.argsort(model[group])]) for group in groups]


def entries(similarity: Similarity, name: str) -> Indices:
    """A quantity as how much alike two heads are, in a byte; distances by their root, which tells near ones apart."""
    return indices(_alike(similarity, name), 0.0, 1.0, BYTES)


def _alike(similarity: Similarity, name: str) -> NDArray[np.float64]:
    values = similarity.matrices[name]
    if name in similarity.distances:
        alike: NDArray[np.float64] = 1 - np.sqrt(np.clip(values, 0, None) / math.log(2))
        return alike
    return (values + 1) / 2 if name in similarity.signed else values


def _kept(found: Similarities) -> list[str]:
    """The quantities whose matrices the page has room for; the first one always."""
    names = list(found.choices[0].matrices)
    heads = {place for each in found.choices for place in each.places}
    most = max(len(each.places) for each in found.choices)
    size = most * (most - 1) // 2 if len(found.choices) > 1 else len(heads) * (len(heads) - 1) // 2
    return names[: max(1, BUDGET // max(1, size))]


def _picture(similarity: Similarity, name: str, most: int) -> str:
    return png(indices(smaller(_alike(similarity, name), most), 0.0, 1.0, STEPS), SEQUENTIAL)


def _thumb(similarity: Similarity) -> dict[str, Any]:
    name = next(iter(similarity.matrices))
    picture = _picture(similarity, name, 64)
    return {"title": similarity.title, "address": picture, "words": _words(similarity, name)}


def _words(similarity: Similarity, name: str) -> str:
    """What the picture shows, for whoever does not see it."""
    values = similarity.matrices[name].copy()
    np.fill_diagonal(values, np.nan)
    at = int(np.nanargmin(values) if name in similarity.distances else np.nanargmax(values))
    a, b = divmod(at, len(values))
    return (
        f"{similarity.title}: {name} of {len(values)} heads with each other, {np.nanmean(values):.3g} on average. Most"
        f" alike are {similarity.places[a].title} and {similarity.places[b].title} ({values[a, b]:.3g})."
    )
