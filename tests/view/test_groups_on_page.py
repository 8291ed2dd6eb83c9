"""Groups of heads on a page: cut by a slider in a browser as they are cut in Python, and said in words."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser
from scipy.cluster.hierarchy import fcluster

from headprobe.grouping import average_linkage
from headprobe.groups import best_count, group_table, root_js, silhouettes, silhouettes_by_count
from headprobe.headtypes import TYPES
from headprobe.report import Report
from headprobe.view.groups import group_blocks, group_marks
from headprobe.view.html import page
from headprobe.view.pages.scan import scan_page
from headprobe.view.places import places
from tests.view.browsing import CHROMIUM, Shown
from tests.view.made import made
from tests.view.parsing import Page
from tests.view.results import results, show

pytestmark = pytest.mark.slow

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium")


def scanned() -> Report:
    found = results("tiny-llama")[0]
    assert isinstance(found, Report)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_every_number_of_groups_has_its_silhouette(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(12, 3))
    between = np.linalg.norm(points[:, None] - points[None], axis=-1)
    merges = average_linkage(between)
    means = [silhouettes(between, fcluster(merges, k, "maxclust") - 1).mean() for k in range(2, 12)]
    assert silhouettes_by_count(between) == pytest.approx(means)
    assert best_count(means) == 2 + int(np.argmax(means))


def test_the_page_s_cuts_are_the_tree_s() -> None:
    found = made(4, 6)
    choice = Page(page([scan_page(found)])).data["matrices"]["choices"][0]
    order = [tuple(map(int, re.findall(r"\d+", name))) for name in choice["names"]]
    js = found.matrix("js").to_numpy()
    merges = average_linkage(root_js(np.nan_to_num(js)))
    for count in range(2, 24):
        edges = [0, *sorted(choice["groups"]["edges"][: count - 1]), 24]
        labels = fcluster(merges, count, "maxclust")
        parts = [{6 * layer + head for layer, head in order[a:b]} for a, b in pairwise(edges)]
        assert sorted(map(sorted, parts)) == sorted(np.flatnonzero(labels == k).tolist() for k in set(labels))
    assert choice["groups"]["best"] == 4


@pytest.fixture
def shown(browser: Browser, folder: Path) -> Iterator[Shown]:
    found = show(browser, folder, "tiny-llama")
    yield found
    assert found.noise == []
    found.page.context.close()


def listed(shown: Shown) -> set[tuple[str, frozenset[str]]]:
    """Who stands for whom."""
    entries = [entry.locator("a").all_inner_texts() for entry in shown.page.locator(".groups li").all()]
    return {(links[0], frozenset(links)) for links in entries}


@in_a_browser
@pytest.mark.parametrize("scope", ["The whole model", "Layer 2"])
def test_the_clearest_groups_are_the_report_s(shown: Shown, scope: str) -> None:
    shown.page.locator(".scope").select_option(label=scope)
    groups = scanned().groups
    mine = groups[groups["scope"] == "model"] if scope.startswith("The") else groups[groups["layer"] == 2]
    mine = mine[(mine["scope"] == "model") == scope.startswith("The")]
    shown.page.wait_for_function(f"document.querySelector('.told').textContent.includes('of {len(mine)} heads')")
    several = mine[mine["size"] > 1]
    expected = set()
    for _, part in several.groupby("group"):
        stands = part.iloc[0]
        names = [f"L{layer} H{head}" for layer, head in zip(part["layer"], part["head"], strict=True)]
        expected.add((f"L{stands['representative_layer']} H{stands['representative_head']}", frozenset(names)))
    small = {(stands, names) for stands, names in expected if len(names) <= 25}
    assert small
    assert small <= listed(shown)
    assert f"Mean silhouette {mine['mean_silhouette'].iloc[0]:.2f}" in shown.text(".told")
    assert shown.page.locator(".frames i").count() == len(expected)
    assert shown.one(".groups button").is_disabled()


@in_a_browser
def test_the_slider_cuts_the_tree_by_keyboard(shown: Shown) -> None:
    slider = shown.one(".groups input")
    slider.focus()
    slider.press("End")
    assert shown.text(".told").startswith("31 groups of 32 heads, 30 of them a single head.")
    assert shown.page.locator(".groups li").count() == 1
    pair = scanned().pairs.nsmallest(1, "js").iloc[0]
    assert shown.text(".groups li") == (
        f"L{pair['layer_a']:.0f} H{pair['head_a']:.0f} stands for L{pair['layer_b']:.0f} H{pair['head_b']:.0f}"
    )
    slider.press("ArrowLeft")
    assert shown.text(".told").startswith("30 groups of 32 heads")
    shown.one(".groups button").click()
    assert shown.one(".groups button").is_disabled()
    assert shown.focused == ""
    shown.page.locator(".groups li a").first.click()
    assert shown.one("#card").is_visible()


@in_a_browser
def test_a_click_on_the_curve_is_a_number_of_groups(shown: Shown) -> None:
    box = shown.one(".groups svg").bounding_box()
    assert box is not None
    shown.one(".groups svg").click(position={"x": box["width"] * 10 / 29, "y": 30})
    assert shown.text(".told").startswith("12 groups")


@in_a_browser
def test_a_card_says_what_the_head_is_for_and_whom_it_is_like(browser: Browser, folder: Path) -> None:
    shown = show(browser, folder, "tiny-llama", hash="#layer-2-head-1")
    card = shown.text("#card")
    assert "one of 2 heads of layer 2 that attend alike, which layer 2 head 0 stands for" in card
    assert "What it does, beyond chance" in card
    types = scanned().types
    mine = types[(types["layer"] == 2) & (types["head"] == 1)]
    scores = mine[[one.score for one in TYPES if one.score in mine]].iloc[0].astype("float64")
    assert f"{str(scores.idxmax()).replace('_', ' ')}\n{scores.max():.2f}" in card.replace("\n\n", "\n")
    shown.page.context.close()


def test_stability_is_said_in_words() -> None:
    found = scanned()
    text = str(group_blocks(found, None)[-1])
    several = found.groups[found.groups["size"] > 1].drop_duplicates(["block", "group"])
    firm = (several["stability"] >= 0.85).sum()
    assert f"{firm} of {len(several)} groups would be found on other texts like these" in text
    unknown = replace(found, groups=found.groups.assign(stability=math.nan))
    assert "was not measured" in str(group_blocks(unknown, None)[-1])
    some = replace(found, groups=found.groups.assign(stability=0.3))
    assert f"0 of {len(several)} groups" in str(group_blocks(some, None)[-1])
    assert f"{len(several)} of them would not" in str(group_blocks(some, None)[-1])


def test_a_head_like_the_one_that_stands_for_it_does_not_stand_for_itself() -> None:
    found = made(1, 4)
    found = replace(found, pairs=found.pairs.assign(js=[0.0, 0.3, 0.3, 0.3, 0.3, 0.1]))
    found = replace(found, groups=group_table(found))
    marks = group_marks(found, places(found))
    copies = "one of 2 near copies in layer 0 (JS below 0.02)"
    assert marks[0] == (copies, "one of 2 heads of layer 0 that attend alike, which it stands for")
    assert marks[1] == (copies, "one of 2 heads of layer 0 that attend alike, which layer 0 head 0 stands for")


@pytest.mark.parametrize(("rest", "words"), [(0.3, 0), (0.03, 5)])
def test_what_an_odd_head_leaves_is_a_group_where_it_is_clear(rest: float, words: int) -> None:
    found = made(1, 6)
    odd = (found.pairs["head_a"] == 2) | (found.pairs["head_b"] == 2)
    found = replace(found, pairs=found.pairs.assign(js=np.where(odd, 0.6, rest)))
    found = replace(found, groups=group_table(found))
    assert sorted(found.groups["size"]) == [1, 5, 5, 5, 5, 5]
    assert sum("attend alike" in str(mark) for mark in group_marks(found, places(found))) == words
