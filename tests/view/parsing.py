"""A page as its elements, read by the standard library's parser."""

import base64
import json
import struct
import zlib
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Element:
    """A start tag: its name, attributes, and the text until its end tag, with that of the elements in it."""

    name: str
    attributes: dict[str, str]
    text: str = ""
    path: tuple[str, ...] = ()


VOID = {"meta", "wbr", "img", "input", "br", "col", "path", "line", "rect"}


@dataclass
class Page(HTMLParser):
    """The elements of a page, in their order."""

    source: str
    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[Element] = []
        self.feed(self.source)
        self.close()

    def __hash__(self) -> int:
        return id(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs}, path=tuple(e.name for e in self.open))
        self.elements.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1].name == tag, f"</{tag}> closes {self.open[-1].name}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.text += data

    def all(self, name: str, **attributes: str) -> list[Element]:
        """The elements of a name; `class_` is one of an element's classes, other attributes must be equal."""
        wanted = attributes.pop("class_", None)
        return [
            each
            for each in self.elements
            if each.name == name
            and (wanted is None or wanted in each.attributes.get("class", "").split())
            and all(each.attributes.get(key.replace("_", "-")) == value for key, value in attributes.items())
        ]

    @property
    def data(self) -> dict[str, Any]:
        """The first document's data for the script."""
        found = json.loads(self.all("script", class_="data")[0].text)
        assert isinstance(found, dict)
        return found


def picture(address: str) -> NDArray[np.uint8]:
    """The palette's entries [row, column] of a PNG in an address, checked chunk by chunk."""
    kind, _, content = address.partition(",")
    assert kind == "data:image/png;base64"
    raw = base64.b64decode(content, validate=True)
    assert raw.startswith(b"\x89PNG\r\n\x1a\n")
    at, body, size = 8, b"", (0, 0)
    while at < len(raw):
        (length,) = struct.unpack(">I", raw[at : at + 4])
        name, chunk = raw[at + 4 : at + 8], raw[at + 8 : at + 8 + length]
        assert struct.unpack(">I", raw[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + chunk)
        if name == b"IHDR":
            size = struct.unpack(">II", chunk[:8])
        body += chunk if name == b"IDAT" else b""
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(body), dtype=np.uint8).reshape(size[1], size[0] + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:]
