"""Attention of one head on one text as a drawing: what looks on the left, what is looked at on the right."""

import unicodedata
from typing import Any

from headprobe.errors import printable
from headprobe.view.document import Examples, Strip
from headprobe.view.wording import capital

LEAST = 0.02  # weights below are not drawn
LINE = 16  # pixels a token
LEFT, RIGHT = 130, 230  # where lines begin and end
MOST_TOKENS = 64
LONGEST = 17  # letters of a token; what is twice as wide counts twice
SHADES = 24  # how dark a line can be


def examples_part(block: Examples, prefix: str) -> dict[str, Any]:
    """Pairs of drawings with a title and a caption each, and drawings alone."""
    pairs = [
        {
            "title": capital(f"{one.place.title} and {other.place.title}"),
            "caption": one.caption,
            "strips": [drawn(one, prefix, caption=False), drawn(other, prefix, caption=False)],
        }
        for one, other in block.pairs
    ]
    alone = [drawn(strip, prefix) for strip in block.strips]
    return {"kind": "examples", "about": block.about, "pairs": pairs, "strips": alone}


def drawn(strip: Strip, prefix: str, *, caption: bool = True) -> dict[str, Any]:
    """Tokens with their places, lines between them as one path a shade, and the same in words."""
    tokens, keys = _labels(strip.tokens), _labels(strip.keys or strip.tokens)
    weights = [row[: len(keys)] for row in strip.weights[: len(tokens)]]
    return {
        "title": capital(strip.place.title), "name": prefix + strip.place.name,
        "caption": strip.caption if caption else "",
        "tokens": _placed(tokens), "looked_at": _placed(keys), "paths": _paths(weights),
        "words": _words(tokens, keys, weights), "height": LINE * (max(len(tokens), len(keys)) + 1) + 2,
    }  # fmt: skip


def _labels(tokens: tuple[str, ...]) -> list[str]:
    """Tokens in which all can be seen, no wider than there is room for."""
    return [_short(printable(token)) for token in tokens[:MOST_TOKENS]]


def _short(token: str) -> str:
    room = LONGEST
    for i, letter in enumerate(token):
        room -= 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if room < 0:
            return token[: max(1, i - 1)] + "…"
    return token


def _placed(labels: list[str]) -> list[tuple[int, str]]:
    """The first line is for the words above the columns."""
    return [(LINE * (i + 1) + 12, label) for i, label in enumerate(labels)]


def _paths(weights: list[tuple[float, ...]]) -> list[tuple[str, str]]:
    """For each shade that is there its opacity and its lines, the lightest first."""
    shades: dict[int, list[str]] = {}
    for query, row in enumerate(weights):
        for key, weight in enumerate(row):
            if weight >= LEAST:
                shade = min(SHADES, max(1, round(SHADES * weight)))
                line = f"M{LEFT} {LINE * (query + 1) + 8}L{RIGHT} {LINE * (key + 1) + 8}"
                shades.setdefault(shade, []).append(line)
    return [(f"{shade / SHADES:.2f}", "".join(lines)) for shade, lines in sorted(shades.items())]


def _words(tokens: list[str], keys: list[str], weights: list[tuple[float, ...]]) -> list[tuple[str, str, str]]:
    """For each token the one that it looks at most, and with how much of its attention."""
    said = []
    for token, row in zip(tokens, weights, strict=False):
        best = max(range(len(row)), key=lambda key: row[key], default=None)
        if best is not None:
            said.append((token, keys[best], f"{row[best]:.2f}"))
    return said
