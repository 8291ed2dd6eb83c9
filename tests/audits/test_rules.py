"""Each rule on reports with something done to their tables, and what an audit makes of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest

from headprobe import Report
from headprobe.audits.audit import audit_report
from headprobe.audits.finding import Audit
from headprobe.audits.places import clusters, listed
from headprobe.audits.policy import default_policy, load_policy
from headprobe.audits.rule import Facts
from headprobe.audits.rules import RULES
from headprobe.comparison import compare_reports
from headprobe.errors import HeadprobeError
from tests.audits.conftest import codes, judged

Sample = Callable[[str], Report]


def with_cells(report: Report, table: str, where: dict[str, int], **values: Any) -> Report:
    """The report with cells of the rows at which all of `where` holds set to other values."""
    changed = getattr(report, table).copy()
    rows = np.logical_and.reduce([changed[name] == value for name, value in where.items()])
    for name, value in values.items():
        changed.loc[rows, name] = value
    return replace(report, **{table: changed})


def without(report: Report, column: str) -> Report:
    tables = ("heads", "layers", "pairs", "sequences")
    return replace(report, **{name: getattr(report, name).drop(columns=column, errors="ignore") for name in tables})


def only_sites(report: Report, *sites: int) -> Report:
    kept = {name: getattr(report, name) for name in ("heads", "layers", "sequences", "baselines")}
    pairs = report.pairs[report.pairs["site_a"].isin(sites)]
    return replace(report, pairs=pairs, **{name: table[table["site"].isin(sites)] for name, table in kept.items()})


def few(report: Report, count: int) -> Report:
    kept = {name: getattr(report, name) for name in ("sequences", "inputs")}
    return replace(report, **{name: table[table["sequence"] < count] for name, table in kept.items()})


def status(audit: Audit, code: str) -> tuple[str, str]:
    (asked,) = [asked for asked in audit.rules if asked.code == code]
    return asked.status, asked.reason


@pytest.fixture
def tiny(sample: Sample) -> Report:
    return sample("tiny-bert")


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("row_error", 1e-4, "HP001"),
        ("leak", 1e-3, "HP003"),
        ("entropy", float("nan"), "HP002"),
        ("rcos", float("inf"), "HP002"),
        ("js_mean", float("nan"), "HP002"),
        ("first_mass_excl_first", 0.995, "HP104"),
        ("special_mass", 0.995, "HP104"),
    ],
)
def test_one_bad_number_at_one_head(tiny: Report, column: str, value: float, code: str) -> None:
    audit = judged(with_cells(tiny, "heads", {"layer": 2, "head": 5}, **{column: value}))
    (finding,) = audit.findings
    assert (finding.code, finding.layer, finding.head) == (code, 2, 5)
    assert bool(audit.failing) is (code < "HP1")
    assert status(audit, code)[0] == ("failed" if code < "HP1" else "passed")


def test_row_sums_are_judged_by_dtype(tiny: Report) -> None:
    off = with_cells(tiny, "heads", {"layer": 0}, row_error=2e-3)
    for dtype, expected in (("float64", {"HP001"}), ("float16", {"HP001"}), ("bfloat16", set()), ("int8", set())):
        assert codes(judged(replace(off, provenance=replace(off.provenance, dtype=dtype)))) == expected


def test_a_layer_without_entropy_is_broken_and_one_without_next_mass_is_not(tiny: Report) -> None:
    assert codes(judged(with_cells(tiny, "heads", {"layer": 1}, entropy=float("nan")))) == {"HP002"}
    assert not judged(with_cells(tiny, "heads", {"layer": 1}, next_mass=float("nan"))).findings


def test_an_undefined_pair_is_found(tiny: Report) -> None:
    audit = judged(with_cells(tiny, "pairs", {"site_a": 1, "head_a": 2, "head_b": 6}, js=float("nan")))
    (finding,) = audit.findings
    assert (finding.code, finding.layer, finding.heads, finding.metric) == ("HP002", 1, (2, 6), "js")


def test_what_is_broken_in_the_baseline_as_well_is_broken(tiny: Report) -> None:
    broken = with_cells(tiny, "heads", {"layer": 0, "head": 0}, leak=0.1)
    assert codes(judged(broken, broken)) == {"HP003"}


def test_lost_and_new_layers(tiny: Report) -> None:
    less = only_sites(tiny, 0, 1, 2)
    for model, base, words in ((less, tiny, "the model has not"), (tiny, less, "the baseline has not")):
        audit = judged(model, base)
        (finding,) = audit.findings
        assert (finding.code, finding.layer, finding.heads) == ("HP004", 3, tuple(range(8)))
        assert words in finding.message
        assert status(audit, "HP201")[0] == "skipped"
        assert "layer 3" in status(audit, "HP201")[1]


def test_a_lost_metric_is_a_failure_and_no_skip(tiny: Report) -> None:
    audit = judged(without(tiny, "js"), tiny)
    assert [(f.code, f.metric) for f in audit.failing] == [("HP005", "js of pairs")]
    assert status(audit, "HP101") == ("skipped", "the report has no js of pairs")
    policy = load_policy(select=["HP101"], environ={})
    (finding,) = audit_report(Facts(without(tiny, "js"), tiny), policy).failing
    assert (finding.code, finding.metric) == ("HP101", "js of pairs")


def test_a_metric_lost_by_sequence_is_found(tiny: Report) -> None:
    audit = judged(replace(tiny, sequences=tiny.sequences.drop(columns="rcos")), tiny)
    assert [(f.code, f.metric) for f in audit.failing] == [("HP005", "rcos of sequences")]
    assert status(audit, "HP201")[0] == "skipped"


def test_a_number_lost_at_one_head_is_found(tiny: Report) -> None:
    at = {"layer": 2, "head": 5}
    audit = judged(with_cells(tiny, "heads", at, rcos=float("nan")), tiny)
    assert codes(audit) == {"HP002", "HP005"}
    assert {(f.layer, f.heads) for f in audit.findings} == {(2, (5,))}


def test_other_texts_are_refused_and_not_skipped(tiny: Report) -> None:
    inputs = tiny.inputs.assign(sha256="another")
    with pytest.raises(HeadprobeError, match="E-INPUTS"):
        judged(replace(tiny, inputs=inputs), tiny)


def test_nothing_measured_is_no_pass(tiny: Report) -> None:
    empty = replace(only_sites(tiny), inputs=tiny.inputs.head(0))
    audit = judged(empty)
    assert codes(audit) == {"HP000"}
    assert audit.failing
    assert "HP000" in {finding.code for finding in judged(empty, tiny).failing}
    unseen = with_cells(tiny, "heads", {"kv_group": 0}, queries=0).heads.assign(queries=0)
    assert "HP000" in codes(judged(replace(tiny, heads=unseen)))


def test_rules_that_could_not_be_asked_at_all_are_no_pass(tiny: Report) -> None:
    audit = audit_report(Facts(tiny), load_policy(select=["HP2"], environ={}))
    (finding,) = audit.failing
    assert finding.code == "HP000"
    assert "no baseline" in finding.message
    assert status(audit, "HP201") == ("skipped", "no baseline was given")


@pytest.mark.parametrize(("count", "expected"), [(5, {"HP007"}), (6, {"HP008"}), (10, {"HP008"}), (11, set())])
def test_few_sequences_do_not_pass_in_silence(tiny: Report, count: int, expected: set[str]) -> None:
    report = few(tiny, count)
    audit = judged(report, report)
    assert codes(audit) == expected
    assert bool(audit.failing) is (count < 6)
    assert status(audit, "HP201")[0] == ("skipped" if count < 6 else "passed")


def test_a_large_change_without_significance_is_none(tiny: Report, sample: Sample) -> None:
    collapsed = sample("tiny-bert-collapsed")
    comparison = compare_reports(tiny, collapsed)
    unsure = replace(comparison, heads=comparison.heads.assign(q=0.2))
    audit = audit_report(Facts(collapsed, tiny, unsure), default_policy())
    assert not codes(audit) & {"HP201", "HP202", "HP203", "HP205", "HP206"}


def test_drift_is_a_note_where_it_was_measured(tiny: Report) -> None:
    comparison = compare_reports(tiny, tiny)
    assert status(judged(tiny, tiny), "HP204")[0] == "skipped"
    drift = tiny.heads[["site", "path", "tower", "kind", "layer", "head"]].assign(js=0.01, tv=0.1)
    drift.loc[9, "js"] = 0.4
    audit = audit_report(Facts(tiny, tiny, replace(comparison, drift=drift)), default_policy())
    (finding,) = audit.findings
    assert (finding.code, finding.severity, finding.layer, finding.head) == ("HP204", "note", 1, 1)
    assert not audit.failing


def test_pairs_that_share_keys_have_their_own_limit(sample: Sample) -> None:
    llama = sample("tiny-llama")
    shared = {"site_a": 2, "head_a": 0, "head_b": 1}
    assert not judged(with_cells(llama, "pairs", shared, js=0.004)).findings
    assert codes(judged(with_cells(llama, "pairs", shared, js=0.001))) == {"HP101"}
    assert codes(judged(with_cells(llama, "pairs", {**shared, "head_b": 2}, js=0.004))) == {"HP101"}


def test_pairs_of_two_layers_are_told_by_name_or_together(tiny: Report) -> None:
    def across(*heads: int) -> Report:
        ends = {"site_a": 1, "layer_a": 1, "site_b": 2, "layer_b": 2, "same_kv_group": False, "js": 0.001}
        rows = pd.DataFrame({"head_a": heads, "head_b": heads}).assign(**ends)
        return replace(tiny, pairs=pd.concat([tiny.pairs, rows]))

    (finding,) = judged(across(4)).findings
    assert finding.where == "encoder layer 1 head 4 and layer 2 head 4"
    (finding,) = judged(across(1, 4, 6)).findings
    assert (finding.layer, finding.heads, finding.other_layer) == (1, (1, 4, 6), 2)
    assert not judged(across(1, 4, 6), across(1, 4, 6)).findings


def test_repeated_rows_of_a_causal_head_are_a_note(sample: Sample) -> None:
    llama = sample("tiny-llama")
    audit = judged(with_cells(llama, "heads", {"layer": 1, "head": 3}, rcos=0.999, rcos_excess=0.499))
    (finding,) = audit.findings
    assert (finding.code, finding.severity, finding.head) == ("HP103", "note", 3)
    assert status(judged(sample("tiny-bert")), "HP103")[0] == "skipped"


def test_few_heads_that_are_alike_are_no_collapse(sample: Sample) -> None:
    vit = sample("tiny-vit")
    assert vit.layers["effective_heads"].min() < 1.05
    assert {finding.severity for finding in judged(vit).findings} == {"warning"}


def test_findings_come_the_worst_first(tiny: Report, sample: Sample) -> None:
    findings = judged(sample("tiny-bert-collapsed"), tiny).findings
    grades = [("note", "warning", "error").index(finding.severity) for finding in findings]
    assert grades == sorted(grades, reverse=True)
    assert len({finding.fingerprint for finding in findings}) == len(findings)


def test_fingerprints_tell_findings_apart(tiny: Report) -> None:
    close = tiny
    for group in ((0, 1, 2), (4, 5, 6)):
        for a, b in pairwise(group):
            close = with_cells(close, "pairs", {"site_a": 1, "head_a": a, "head_b": b}, js=0.001)
    groups = judged(close).findings
    assert [finding.heads for finding in groups] == [(0, 1, 2), (4, 5, 6)]
    assert groups[0].fingerprint != groups[1].fingerprint
    lost = judged(without(tiny, "rcos"), tiny).findings
    assert len({finding.fingerprint for finding in lost}) == len(lost) == 2


def test_every_rule_is_asked_or_skipped_with_a_reason(tiny: Report) -> None:
    audit = judged(tiny, tiny)
    assert [asked.code for asked in audit.rules] == list(RULES)
    assert all(asked.reason for asked in audit.rules if asked.status == "skipped")


def test_saved_reports_are_judged_alike(sample: Sample, tmp_path: Any) -> None:
    report = sample("tiny-bert-collapsed")
    report.save(tmp_path / "r.json")
    assert judged(Report.load(tmp_path / "r.json")).findings == judged(report).findings


def test_today_is_asked_only_for_waivers(tiny: Report) -> None:
    assert audit_report(Facts(tiny), default_policy(), date(1999, 1, 1)).findings == judged(tiny).findings


def test_heads_in_words() -> None:
    assert listed([3]) == "head 3"
    assert listed([1, 2]) == "heads 1 and 2"
    assert listed([8, 1, 3, 7, 6]) == "heads 1, 3 and 6 to 8"
    assert listed(range(12)) == "heads 0 to 11"


def test_clusters_are_connected_pairs() -> None:
    assert clusters([(0, 1), (4, 5), (1, 2)]) == [(0, 1, 2), (4, 5)]
    assert clusters([(0, 1), (2, 3), (3, 0)]) == [(0, 1, 2, 3)]
    assert clusters([]) == []
