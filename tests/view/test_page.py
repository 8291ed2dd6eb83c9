"""What an HTML page says, holds and lets run, read without a browser."""

import base64
import hashlib
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from headprobe.comparison import Comparison, compare_reports
from headprobe.groups import group_table
from headprobe.view.document import Document, Examples, Heading, Place, Strip, Summary
from headprobe.view.html import page
from headprobe.view.pages.scan import scan_page
from headprobe.view.saved import Result, page_of
from tests.audits.samples import audit
from tests.comparison.made import drawn, report
from tests.view.made import HOSTILE, LN2, made
from tests.view.parsing import Page, picture


@cache
def scanned() -> Page:
    return Page(page([scan_page(made(6, 12))]))


def compared() -> Comparison:
    base = report({"rcos": drawn(0), "mean_distance": 50 * drawn(1)})
    tuned = report({"rcos": drawn(0) + 0.2, "mean_distance": 50 * drawn(1)}, model="child")
    drift = pd.DataFrame([(0, head, 0.01, 0.1 * head) for head in range(8)], columns=["site", "head", "js", "tv"])
    return compare_reports(base, tuned, drift)


@pytest.mark.parametrize("result", [lambda: made(3, 4), compared, audit], ids=["scan", "comparison", "audit"])
def test_a_page_is_whole_and_asks_for_nothing(result: Callable[[], Result]) -> None:
    source = page([page_of(result())])
    found = Page(source)
    assert not found.open
    names = [each.attributes["id"] for each in found.elements if "id" in each.attributes]
    assert len(names) == len(set(names))
    for element in found.elements:
        for attribute in ("src", "href"):
            address = element.attributes.get(attribute, "#main")
            assert address.startswith(("#", "data:image/png;base64,")), address
            assert address[:1] != "#" or address[1:] in names, address
        assert not any(name.startswith("on") or name == "style" for name in element.attributes), element
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org/2000/svg)", source)
    assert [each.attributes["lang"] for each in found.all("html")] == ["en"]
    assert len(found.all("h1")) == len(found.all("main")) == 1


def test_nothing_runs_but_our_own_script() -> None:
    policy = scanned().all("meta", http_equiv="Content-Security-Policy")[0].attributes["content"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for rule, element in (("script-src", "script"), ("style-src", "style")):
        texts = [each.text for each in scanned().all(element) if each.attributes.get("type") != "application/json"]
        assert len(texts) == 1
        digest = base64.b64encode(hashlib.sha256(texts[0].encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert "unsafe" not in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", scanned().source)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_text(text: str) -> None:
    harmless, hostile = (Page(page([full_of(each)])) for each in ("plain", text))
    shapes = [
        [(each.name, set(each.attributes)) for each in shown.elements if each.path[-1:] != ("code",)]
        for shown in (hostile, harmless)
    ]  # a command is a piece a word
    assert shapes[0] == shapes[1]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\x00\x07\x1b]", hostile.source)
    shown = hostile.all("h1")[0].text
    assert shown.startswith(text[:3]) or not text[:3].isprintable()


def full_of(text: str) -> Document:
    """A scan's page in which a test's text stands wherever a model, a file, a plug-in or a user has the word."""
    found = made(2, 4, model=text)
    provenance = replace(
        found.provenance, model_class=text, commit=text, files={text: text}, corpus={text: text}, options={text: text}
    )
    tables = {
        name: getattr(found, name).assign(
            path=_whole(text), tower=[f"{_whole(text)}{site % 2}" for site in getattr(found, name)["site"]]
        )
        for name in ("heads", "layers")
    }
    tables["heads"] = tables["heads"].assign(label=_whole(text), plugged=0.5).rename(columns={"plugged": _whole(text)})
    types = tables["heads"][["site", "path", "kind", "layer", "head"]].assign(type=_whole(text) or "", value=0.9)
    found = replace(found, provenance=provenance, notes=(text,), types=types, **tables)
    found = replace(found, groups=group_table(found))
    strip = Strip(Place(0, 0, 0), (text, "b"), ((1.0, 0.0), (0.5, 0.5)), text)
    other = replace(strip, keys=("a", text))
    return scan_page(found, examples=Examples((strip, other), ((strip, other),), text))


def _whole(text: str) -> str:
    """Tables hold no lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()


def test_every_number_is_there_without_a_script() -> None:
    found = made(6, 12)
    rows = {each.attributes["id"]: each.text for each in scanned().all("tr") if "id" in each.attributes}
    assert len(rows) == 72
    for row in found.heads.to_dict("records"):
        text = rows[f"layer-{row['layer']}-head-{row['head']}"]
        assert f"{row['rcos']:.3f}" in text
        assert f"{row['entropy_norm']:.2f}" in text
        assert f"L{row['nearest_layer']} H{row['nearest_head']}" in text
    assert all("hidden" in each.attributes for each in scanned().all("div", class_="controls"))
    assert all("disabled" in each.attributes for each in scanned().all("button") if "id" not in each.attributes)


def test_the_map_has_a_cell_a_head_that_leads_to_it() -> None:
    cells = [each for each in scanned().all("a") if each.path[-1] == "td" and "tbody" in each.path]
    in_map = [each for each in cells if each.path.count("table") == 1 and re.fullmatch(r"\d\.\d\d", each.text)]
    values = made(6, 12).heads["rcos"]
    assert [each.text for each in in_map[:72]] == [f"{value:.2f}" for value in values]
    assert [each.attributes["href"] for each in in_map[:72]] == [
        f"#layer-{layer}-head-{head}" for layer in range(6) for head in range(12)
    ]


def test_every_picture_has_words_and_shows_the_numbers() -> None:
    images = scanned().all("img")
    assert all("alt" in each.attributes for each in images)
    thumb = next(each for each in images if each.attributes["alt"].startswith("first_mass:"))
    values = made(6, 12).heads["first_mass"].to_numpy().reshape(6, 12)
    assert picture(thumb.attributes["src"]).shape == (6, 12)
    assert picture(thumb.attributes["src"]) == pytest.approx(np.rint(values / values.max() * 32))


def test_every_column_of_the_report_can_be_chosen() -> None:
    numbers = made(6, 12).heads.drop(columns=["site", "path", "tower", "kind", "layer", "head", "kv_group"])
    left_out = {"sequences", "queries", "row_error", "leak", "nearest_layer", "nearest_head"}
    measures = {measure["name"] for measure in scanned().data["heads"]["measures"]}
    assert measures == set(numbers.columns) - left_out
    assert len(scanned().all("option")) >= len(measures)


def unpacked(text: str, size: int) -> NDArray[np.float64]:
    """A packed matrix of JS [head, head]."""
    entries = np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)
    js = np.zeros((size, size))
    js[np.triu_indices(size, 1)] = (1 - entries / 254) ** 2 * LN2
    return js + js.T


def test_the_packed_matrix_is_the_report_s() -> None:
    found = made(6, 12)
    choices = scanned().data["matrices"]["choices"]
    assert [each["title"] for each in choices] == ["The whole model", *(f"Layer {layer}" for layer in range(6))]
    assert [each.get("within") for each in choices] == [None, 0, 0, 0, 0, 0, 0]
    js = unpacked(choices[0]["packed"]["js"], 72)
    order = [tuple(map(int, re.findall(r"\d+", name))) for name in choices[0]["names"]]
    exact = found.matrix("js").to_numpy()
    rows = [12 * layer + head for layer, head in order]
    assert np.abs(js - exact[np.ix_(rows, rows)]).max() < 0.003


def test_a_packed_cosine_can_be_negative() -> None:
    data = scanned().data["matrices"]
    assert data["signed"] == ["ocos"]
    entries = np.frombuffer(zlib.decompress(base64.b64decode(data["choices"][0]["packed"]["ocos"])), dtype=np.uint8)
    exact = made(6, 12).matrix("ocos").to_numpy()
    order = [
        12 * layer + head for layer, head in (map(int, re.findall(r"\d+", n)) for n in data["choices"][0]["names"])
    ]
    expected = exact[np.ix_(order, order)][np.triu_indices(72, 1)]
    assert expected.min() < -0.5
    assert 2 * (entries / 254) - 1 == pytest.approx(expected, abs=0.004)


def test_like_heads_stand_side_by_side() -> None:
    names = scanned().data["matrices"]["choices"][0]["names"]
    groups = [int(name.rpartition("-")[2]) % 4 for name in names]
    assert sum(a != b for a, b in pairwise(groups)) == 3


@pytest.mark.parametrize(("layers", "heads", "most"), [(12, 12, 1_500_000), (24, 16, 2_000_000), (32, 32, 4_000_000)])
def test_size(layers: int, heads: int, most: int) -> None:
    found = page([scan_page(made(layers, heads, sequences=4))]).encode()
    assert len(found) < most


def test_pairs_of_layers_alone_are_a_matrix_a_layer() -> None:
    data = Page(page([scan_page(made(3, 8, pairs="layer"))])).data["matrices"]
    assert [(each["title"], len(each["names"])) for each in data["choices"]] == [(f"Layer {i}", 8) for i in range(3)]


def test_without_pairs_there_is_no_matrix() -> None:
    found = made(3, 4)
    lonely = replace(found, pairs=found.pairs.head(0), heads=found.heads.drop(columns=["nearest_js"]))
    shown = Page(page([scan_page(lonely)]))
    assert "matrices" not in shown.data
    assert [each.attributes["id"] for each in shown.all("section")] == [
        "heads",
        "numbers",
        "layers",
        "evidence",
        "limits",
    ]


def test_missing_numbers_are_no_zeros() -> None:
    found = made(2, 4)
    heads = found.heads.assign(rcos=[math.nan, *found.heads["rcos"][1:]])
    shown = Page(page([scan_page(replace(found, heads=heads))]))
    assert shown.data["heads"]["measures"][0]["values"][0] is None
    assert [each.text for each in shown.all("td", class_="none")] == ["none"]


def test_several_results_are_one_page() -> None:
    shown = Page(page([scan_page(made(2, 4)), page_of(compared()), page_of(audit())]))
    assert len(shown.all("article")) == len(shown.all("h1")) == 3
    assert {each.attributes["id"] for each in shown.all("tr") if "id" in each.attributes} == {
        f"r1-layer-{layer}-head-{head}" for layer in range(2) for head in range(4)
    }


def test_folders_of_this_machine_are_not_told() -> None:
    found = made(2, 4, model="/home/gwendolyn/secret/checkpoint-9")
    source = page([scan_page(found)])
    assert "gwendolyn" not in source
    assert "checkpoint-9" in source


def test_the_same_report_gives_the_same_page() -> None:
    assert page([scan_page(made(3, 4))]) == page([scan_page(made(3, 4))])


def test_three_sentences_and_what_to_do() -> None:
    document = scan_page(made(3, 4))
    assert isinstance(document[0], Heading)
    summary = document[1]
    assert isinstance(summary, Summary)
    assert len(summary.sentences) == 3
    assert summary.sentences[0] == (
        "made/model (MadeModel) has 12 attention heads in 3 layers, watched on 16 sequences (1,600 tokens)."
    )
    assert summary.steps
    assert all(step.command.startswith("headprobe ") or not step.command for step in summary.steps)


def test_commands_can_be_pasted() -> None:
    summary = scan_page(made(2, 4, model="a b; rm -rf ~"))[1]
    assert isinstance(summary, Summary)
    assert any("'a b; rm -rf ~'" in step.command for step in summary.steps)


def test_a_plug_in_s_column_and_label_are_shown() -> None:
    found = made(2, 4)
    heads = found.heads.assign(mine=np.linspace(0, 1, 8), mine_se=0.1, label=["previous token 0.93", *[""] * 7])
    data = Page(page([scan_page(replace(found, heads=heads))])).data["heads"]
    assert data["measures"][-1]["name"] == "mine"
    assert data["labels"] == [["previous token 0.93"], *[[]] * 7]


def test_an_audit_says_so_first() -> None:
    shown = Page(page([page_of(audit())]))
    assert shown.all("p", class_="verdict")[0].text == "Failed"


def test_grouped_heads_have_a_line_between_them() -> None:
    found = made(2, 8)
    grouped = found.heads.assign(kv_group=lambda rows: rows["head"] // 4)
    shown = Page(page([scan_page(replace(found, heads=grouped))]))
    assert len(shown.all("td", class_="g")) == 2


def test_types_are_labels_and_measures() -> None:
    found = made(2, 4)
    types = found.heads[["site", "path", "kind", "layer", "head"]].assign(
        previous=np.linspace(-0.1, 0.9, 8), type=[""] * 7 + ["previous token"], value=0.9
    )
    shown = Page(page([scan_page(replace(found, types=types))]))
    assert "what a head is for is clear for 1 of 8: 1 previous token." in shown.source
    data = shown.data["heads"]
    assert data["labels"] == [*[[]] * 7, ["previous token 0.90"]]
    assert data["measures"][-1]["name"] == "previous (type)"
    assert data["measures"][-1]["signed"]
