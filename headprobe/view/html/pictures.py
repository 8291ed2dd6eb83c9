"""Small pictures as part of the page: heat maps as PNG with a palette, trees as paths."""

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.uint8]
CLEAR = 255  # the palette's last entry has no colour
TREE = 400  # units that a tree is wide at least


def png(indices: Indices, palette: Sequence[str]) -> str:
    """A picture [row, column] of entries of a palette of at most 255 colours, as an address; 255 is see-through."""
    height, width = indices.shape
    colours = b"".join(bytes.fromhex(colour[1:]) for colour in palette).ljust(3 * 256, b"\0")
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each begins with the number of its filter: none
    rows[:, 1:] = indices
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", colours),
        (b"tRNS", b"\xff" * 255 + b"\0"),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(parts)).decode()


def indices(values: NDArray[np.float64], low: float, high: float, steps: int) -> Indices:
    """Values as entries of a palette of `steps` colours; what is missing is see-through."""
    missing = np.isnan(values)
    share = (np.where(missing, low, values) - low) / ((high - low) or 1.0)
    scaled = np.rint(np.clip(share, 0, 1) * (steps - 1)).astype(np.uint8)
    scaled[missing] = CLEAR
    return scaled


def smaller(matrix: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """A matrix with at most `most` rows and columns: means of squares of it, which hide no block of like heads."""
    size = len(matrix)
    if size <= most:
        return matrix
    edges = np.linspace(0, size, most + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(matrix, edges, axis=0), edges, axis=1)
    counts = np.diff([*edges, size])
    made: NDArray[np.float64] = sums / np.outer(counts, counts)
    return made


def pack(entries: Indices) -> str:
    """The upper triangle [head, head] without the diagonal, row by row, as compressed bytes in text."""
    return base64.b64encode(zlib.compress(entries[np.triu_indices(len(entries), 1)].tobytes(), 9)).decode()


def tree_width(leaves: int) -> int:
    """How wide a tree's drawing is: what is drawn too small and stretched comes out blurred."""
    return leaves * max(1, TREE // leaves)


def tree_path(merges: NDArray[np.float64], height: float = 100.0) -> str:
    """A tree as an SVG path: leaves are side by side in `tree_width`, in their order, and roots are up at y = 0."""
    leaves = len(merges) + 1
    top = float(merges[:, 2].max()) or 1.0
    places = _leaf_places(merges, leaves)
    unit = tree_width(leaves) / leaves
    across = {leaf: unit * (place + 0.5) for leaf, place in places.items()}
    up = dict.fromkeys(range(leaves), height)
    parts = []
    for i, (left, right, distance, _) in enumerate(merges.tolist()):
        a, b, y = int(left), int(right), height * (1 - distance / top) + 0.5
        parts.append(f"M{_short(across[a])} {_short(up[a])}V{_short(y)}H{_short(across[b])}V{_short(up[b])}")
        across[leaves + i], up[leaves + i] = (across[a] + across[b]) / 2, y
    return "".join(parts)


def branch_edges(merges: NDArray[np.float64]) -> list[int]:
    """For each merge where in the order of the leaves its right branch begins."""
    leaves = len(merges) + 1
    first = dict(_leaf_places(merges, leaves))
    for i, left in enumerate(merges[:, 0].astype(int).tolist()):
        first[leaves + i] = first[left]
    return [first[right] for right in merges[:, 1].astype(int).tolist()]


def _leaf_places(merges: NDArray[np.float64], leaves: int) -> dict[int, int]:
    """Where each leaf stands from left to right, as SciPy's leaves_list has it."""
    order: list[int] = []
    open_ = [leaves + len(merges) - 1]
    while open_:
        node = open_.pop()
        if node < leaves:
            order.append(node)
        else:
            open_ += [int(merges[node - leaves][1]), int(merges[node - leaves][0])]
    return {leaf: place for place, leaf in enumerate(order)}


def _short(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".")
