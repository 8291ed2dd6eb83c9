"""Documents as Markdown, read back by a parser of CommonMark that is not ours."""

import html
import re

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from headprobe.errors import printable
from headprobe.view.document import Grid, Heading, Paragraph, Table, TableColumn
from headprobe.view.markdown import escaped, markdown

NASTY = [
    "a|b", "`code`", "<script>alert(1)</script>", "*x* _y_ **z**", "[text](javascript:alert(1))", "![i](x)", "\\|",
    "\\", "a\\|b|c\\\\|", "1. one", "12) twelve", "- item", "+ item", "# title", "===", "---", "> quote", "    code",
    "\x1b[31mred", "a\nb", "| --- |", "entropy_norm", "__init__", "~~~", "$x$", "&lt;", "&#124;", "<!-- -->", "a  ",
    "```", "~~gone~~", "|", "_", "title #", "x_", "\u202eabc",
]  # fmt: skip
words = st.one_of(
    st.sampled_from(NASTY),
    st.lists(st.sampled_from([*"\\`*_[]|~$#<>&!.-+=1) \ta", "<b>", "]("]), max_size=12).map("".join),
    st.text(max_size=12),
)


def read(text: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))


def shown(text: str) -> str:
    """What is to be seen of a text: white space at its ends and repeated is none in HTML."""
    return " ".join(printable(text).split())


def plain(rendered: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", rendered)).split())


def test_a_document_as_markdown() -> None:
    document = (
        Heading("bert: what changed"),
        Paragraph("One line.\nAnother."),
        Table("Heads", (TableColumn("path", text=True), TableColumn("q")), (("layer_1", "0.01"), ("a|b", ""))),
        Grid("Drift", ("L0",), ("H0", "H1"), ((0.125, None),), 0.0, 1.0),
    )
    assert markdown(document) == (
        "## bert: what changed\n\nOne line.\n\nAnother.\n\n**Heads**\n\n"
        "| path | q |\n| --- | ---: |\n| layer_1 | 0.01 |\n| a\\|b |  |\n\n"
        "**Drift**\n\n|  | H0 | H1 |\n| --- | ---: | ---: |\n| L0 | 0.125 |  |\n"
    )


@given(words)
@example("1.")
@settings(max_examples=300, deadline=None)
def test_a_line_is_shown_as_it_is(text: str) -> None:
    rendered = read(markdown((Paragraph(f"{text}x"),))) if "\n" not in text else "<p>x</p>"
    assert set(re.findall(r"<[^>]*>", rendered)) == {"<p>", "</p>"}
    if "\n" not in text:
        assert plain(rendered) == shown(f"{text}x")
    rendered = read(markdown((Heading(f"x{text}"),)))
    assert set(re.findall(r"<[^>]*>", rendered)) == {"<h2>", "</h2>"}
    assert plain(rendered) == shown(f"x{text}")


@given(words, words, words)
@settings(max_examples=300, deadline=None)
def test_a_cell_is_shown_as_it_is_and_stays_one(title: str, cell: str, other: str) -> None:
    table = Table(title, (TableColumn(other, text=True), TableColumn("n")), ((cell, other), ("end", "1")))
    rendered = read(markdown((table,)))
    cells = [plain(found) for found in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", rendered)]
    assert cells == [shown(text) for text in (other, "n", cell, other, "end", "1")]
    assert plain(rendered.split("<table>")[0]) == shown(title)
    assert len(re.findall("<strong>", rendered)) == bool(shown(title))


def test_words_within_a_line_stay_readable() -> None:
    assert escaped("entropy_norm of layer.0 (JS = 0.1)") == "entropy_norm of layer.0 (JS = 0.1)"
