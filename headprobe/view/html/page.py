"""The page around documents: its template, styles and script, and the policy that lets nothing else run."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from headprobe import __version__
from headprobe.errors import printable
from headprobe.view.colours import SEQUENTIAL, SIGNED, ink
from headprobe.view.document import Document, Heading
from headprobe.view.html.parts import Article, article
from headprobe.view.html.widths import width_rules

ASSETS = Path(__file__).parent / "assets"
MOST_TITLE = 200  # characters of the window's title
MOST_COLUMNS = 99  # of a table that can be left out on paper
SCRIPTS = ("start.js", "tables.js", "heads.js", "groups.js", "matrix.js", "card.js")


def page(documents: Sequence[Document]) -> str:
    """One page of `documents`, one after the other: a string without lone surrogates, ready to be written as UTF-8.

    All text of a document is shown as text, whatever is in it. The same documents give the same page.
    """
    several = len(documents) > 1
    articles = [article(document, f"r{i + 1}-" if several else "") for i, document in enumerate(documents)]
    style, script = _styles(), _script()
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)};"
        " base-uri 'none'; form-action 'none'"
    )
    text = _environment().get_template("page.html.j2").render(
        articles=articles,
        navigation=_navigation(articles),
        policy=policy,
        script=Markup(script),  # our own file
        style=Markup(style),  # our own file
        title=" · ".join(_title(document) for document in documents)[:MOST_TITLE],
        version=__version__,
    )  # fmt: skip
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _navigation(articles: list[Article]) -> list[tuple[str, str]]:
    """What the bar at the top leads to: the parts of the one document, or the documents."""
    if len(articles) > 1:
        return [(each.name, each.title) for each in articles]
    return [(section.name, section.short) for section in articles[0].sections]


def _title(document: Document) -> str:
    return next((printable(block.text) for block in document if isinstance(block, Heading)), "headprobe")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, finalize=_shown,
    )  # fmt: skip


def _shown(value: object) -> object:
    """Text with what would be invisible, or would turn the text around it, made visible. Autoescape does the rest."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _styles() -> str:
    rules = [_text("style.css"), _text("parts.css")]
    for name, colours in (("s", SEQUENTIAL), ("d", SIGNED)):
        rules += [f".{name}{i}{{background:{colour};color:{ink(colour)}}}" for i, colour in enumerate(colours)]
    rules += width_rules()
    left_out = [f".x{i} tr>:nth-child({i})" for i in range(1, MOST_COLUMNS + 1)]
    return "\n".join([*rules, _text("print.css"), f"@media print{{{','.join(left_out)}{{display:none}}}}"])


@cache
def _script() -> str:
    return '(()=>{"use strict";\n' + "\n".join(_text(name) for name in SCRIPTS) + "\n})();"


def _text(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """As a browser compares it: of what stands between the tags."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
