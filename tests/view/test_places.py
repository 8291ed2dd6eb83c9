"""What layers and heads are called."""

from dataclasses import replace

import pandas as pd

from headprobe.report import Report
from headprobe.view.html import page
from headprobe.view.places import places, stack_names
from headprobe.view.saved import page_of
from tests.view.made import made
from tests.view.parsing import Page


def twice() -> Report:
    """A model with a layer 0 in a list and another one beside it, as SAM's mask decoder has."""
    report = made(3, 2, pairs="layer")
    tables = {
        name: getattr(report, name).assign(layer=getattr(report, name)["site"].replace({2: 0}))
        for name in ("heads", "layers", "baselines")
    }
    pairs = report.pairs.assign(**{f"layer_{side}": report.pairs[f"site_{side}"].replace({2: 0}) for side in "ab"})
    return replace(report, **tables, pairs=pairs)


def test_two_layers_of_one_number_are_told_apart() -> None:
    found = places(twice())
    assert len({place.name for place in found.values()}) == len({place.title for place in found.values()}) == 6
    assert found[0, 1].title == "encoder layer 0 head 1"
    assert found[2, 1].title == "encoder 2 layer 0 head 1"


def test_every_head_has_its_own_row_and_cell() -> None:
    found = Page(page([page_of(twice())]))
    names = [each.attributes["id"] for each in found.elements if "id" in each.attributes]
    assert len(names) == len(set(names))
    assert {"encoder-layer-0-head-1", "encoder-2-layer-0-head-1"} <= set(names)


def test_stacks_of_one_kind_are_named_by_their_towers() -> None:
    sites = pd.DataFrame({"site": [0, 1, 2], "kind": ["encoder", "encoder", "cross"], "layer": 0})
    names = stack_names(sites.assign(tower=["text", "vision", "text"]))
    assert names.tolist() == ["text encoder", "vision encoder", "cross"]
