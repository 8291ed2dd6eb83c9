"""Faults planted in a real model's weights: each is found where it is, by the rules that it is for and no others."""

from collections.abc import Callable

import pytest

from headprobe import Report
from headprobe.audits.finding import Audit
from tests.audits.conftest import PREVIOUS, codes, judged

Planted = Callable[[str], Report]
Sample = Callable[[str], Report]

# What is found without a baseline, what with one, and where: layer and heads.
EXPECTED: dict[str, tuple[set[str], set[str], int, set[int]]] = {
    "twin": ({"HP101"}, {"HP101", "HP207"}, 2, {3, 8}),
    "triplet": ({"HP101"}, {"HP101", "HP207"}, 2, {3, 8, 10}),
    "uniform": ({"HP105"}, {"HP105", "HP201"}, 1, {5}),
    "dead": ({"HP104"}, {"HP104", "HP201", "HP203", "HP205"}, 0, {4}),
    "permuted": (set(), {"HP201", "HP203", "HP206"}, 0, set(range(12))),
    "noise": (set(), {"HP206"}, 0, {PREVIOUS}),
    "alike": ({"HP102"}, {"HP102", "HP201", "HP202"}, 3, set(range(12))),
    "sharpened": (set(), {"HP203"}, 4, {6}),
}
BY_ITSELF = ("tiny-bert", "tiny-bert-finetuned", "tiny-llama", "tiny-bart", "tiny-vit")


def _places(audit: Audit) -> tuple[set[int | None], set[int]]:
    layers = {finding.layer for finding in audit.findings}
    return layers, {head for finding in audit.findings for head in finding.heads}


@pytest.mark.parametrize("name", EXPECTED)
def test_planted_fault_is_found_alone(name: str, planted: Planted) -> None:
    alone, _, layer, heads = EXPECTED[name]
    audit = judged(planted(name))
    assert codes(audit) == alone
    if alone:
        assert len(audit.findings) == 1
        assert _places(audit) == ({layer}, heads)


@pytest.mark.parametrize("name", EXPECTED)
def test_planted_fault_is_found_against_the_baseline(name: str, planted: Planted, baseline: Report) -> None:
    _, changed, layer, heads = EXPECTED[name]
    audit = judged(planted(name), baseline)
    assert codes(audit) == changed
    assert bool(audit.failing) is (name != "noise")  # which warns: fine-tuning gives heads other roles
    layers, found = _places(audit)
    assert layers == {layer}
    assert found <= heads
    assert found == heads or name == "permuted"


def test_twins_are_named(planted: Planted, baseline: Report) -> None:
    first, second = judged(planted("twin"), baseline).findings
    assert (first.code, second.code) == ("HP207", "HP101")
    assert first.where == second.where == "encoder layer 2 heads 3 and 8"
    assert first.value is not None
    assert first.value < 1e-6
    assert first.baseline is not None
    assert first.baseline > 0.025


def test_permuted_heads_have_other_roles(planted: Planted, baseline: Report) -> None:
    (role,) = [f for f in judged(planted("permuted"), baseline).findings if f.code == "HP206"]
    assert (role.metric, role.head) == ("prev_mass", PREVIOUS)


def test_a_new_sink_is_told_of_its_head(planted: Planted, baseline: Report) -> None:
    (sink,) = [f for f in judged(planted("dead"), baseline).findings if f.code == "HP205"]
    assert sink.where == "encoder layer 0 head 4"
    assert sink.metric == "first_mass"


def test_a_model_against_itself_has_no_finding(baseline: Report, planted: Planted, sample: Sample) -> None:
    reports = [baseline, planted("alike"), planted("twin"), sample("tiny-vit"), sample("tiny-bert-collapsed")]
    for report in reports:
        assert not judged(report, report).findings


def test_what_the_baseline_has_too_is_a_note(planted: Planted) -> None:
    assert judged(planted("triplet"), planted("triplet")).notes == (
        "found in the baseline as well: HP101 encoder layer 2",
    )
    (finding,) = [f for f in judged(planted("triplet"), planted("twin")).findings if f.code == "HP101"]
    assert finding.heads == (3, 8, 10)  # more heads than before
    assert "HP101" not in codes(judged(planted("twin"), planted("triplet")))


@pytest.mark.parametrize("name", BY_ITSELF)
def test_healthy_models_pass(name: str, sample: Sample) -> None:
    assert not judged(sample(name)).failing


def test_minilm_has_no_finding(baseline: Report) -> None:
    assert not judged(baseline).findings


def test_a_healthy_child_passes(sample: Sample) -> None:
    audit = judged(sample("tiny-bert-finetuned"), sample("tiny-bert"))
    assert not audit.failing
    assert len(audit.findings) <= 1


def test_a_collapsed_child_fails_in_its_collapsed_layers(sample: Sample) -> None:
    audit = judged(sample("tiny-bert-collapsed"), sample("tiny-bert"))
    for code in ("HP102", "HP202"):
        assert [f.layer for f in audit.findings if f.code == code] == [1, 2]
    assert {f.layer for f in audit.findings} <= {1, 2, 3}
    assert {f.layer for f in judged(sample("tiny-bert-collapsed")).failing} == {1, 2}
