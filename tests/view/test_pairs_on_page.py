"""The most similar pairs of heads, whatever was measured of them."""

from dataclasses import replace

import pytest

from headprobe.view.html import page
from headprobe.view.saved import page_of
from tests.view.made import made
from tests.view.parsing import Page


@pytest.mark.parametrize("column", ["cos", "bc", "ocos"])
def test_pairs_are_listed_where_there_is_no_js(column: str) -> None:
    report = made(2, 4)
    names = [name for name in report.pairs if name not in ("cos", "js", "kl_ab", "kl_ba", "bc", "ocos")]
    found = Page(page([page_of(replace(report, pairs=report.pairs[[*names, column]]))]))
    best = report.pairs.sort_values(column, ascending=False).iloc[0]
    rows = [each.text for each in found.all("tr") if "L" in each.text]
    assert any(
        f"L{best['layer_a']} H{best['head_a']}" in row and f"L{best['layer_b']} H{best['head_b']}" in row
        for row in rows[:1]
    )
    assert [each.attributes["id"] for each in found.all("section")][1] == "pairs"


def test_no_pairs_no_list() -> None:
    report = made(2, 4)
    found = Page(page([page_of(replace(report, pairs=report.pairs.head(0)))]))
    assert "pairs" not in [each.attributes["id"] for each in found.all("section")]
