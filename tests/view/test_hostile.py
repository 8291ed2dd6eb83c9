"""A scan full of strings that try to be more, on a terminal, as Markdown and as plots: text, and nothing else."""

import io
import re

import pytest
from markdown_it import MarkdownIt

from headprobe.view.markdown import markdown
from headprobe.view.terminal import console, show
from tests.view.made import HOSTILE
from tests.view.test_page import full_of

TAGS = {"h2", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
every = pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))


@every
def test_a_terminal_shows_text(text: str) -> None:
    stream = io.StringIO()
    show(full_of(text), console(stream, width=120))
    assert all(char == "\n" or char.isprintable() for char in stream.getvalue())
    assert len(stream.getvalue()) > 1_000


@every
def test_markdown_shows_text(text: str) -> None:
    written = markdown(full_of(text))
    assert all(char == "\n" or char.isprintable() for char in written)
    rendered = str(MarkdownIt("commonmark", {"html": True}).enable("table").render(written))
    assert set(re.findall(r"</?(\w+)", rendered)) <= TAGS
