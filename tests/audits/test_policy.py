"""Where the settings of an audit come from, what is refused, and what waivers do."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from headprobe import Report
from headprobe.audits.audit import audit_report
from headprobe.audits.finding import Audit
from headprobe.audits.policy import VARIABLES, Policy, default_policy, load_policy
from headprobe.audits.rule import Facts
from headprobe.audits.rules import RULES
from headprobe.errors import HeadprobeError, InputError, UsageError
from headprobe.settings import discover
from tests.audits.conftest import codes

Sample = Callable[[str], Report]
TODAY = date(2030, 6, 15)
WAIVER = """
[[audit.waivers]]
code = "HP102"
layer = 1
reason = "collapsed on purpose"
expires = {}
"""


def written(folder: Path, text: str, name: str = "headprobe.toml") -> Policy:
    (folder / name).write_text(text)
    return load_policy(start=folder, environ={})


def judged_by(policy: Policy, report: Report, today: date = TODAY) -> Audit:
    return audit_report(Facts(report), policy, today)


def test_defaults_are_the_rules_own() -> None:
    policy = default_policy()
    assert policy.fail_on == "error"
    assert [rule.code for rule in policy.rules()] == list(RULES)
    for code, rule in RULES.items():
        limits = policy.limits(code)
        assert (limits.values, limits.severity, limits.layers) == (rule.limits, rule.severity, None)
    assert {source for _, _, source in policy.rows()} == {"default"}
    assert len(policy.rows()) == 3 + sum(2 + len(rule.limits) for rule in RULES.values())


def test_later_sources_win_and_every_value_knows_its_source(tmp_path: Path) -> None:
    (tmp_path / "headprobe.toml").write_text(
        'limit = 8\n[audit]\nfail-on = "note"\nselect = "HP1"\nignore = ["HP103"]\n'
        '[audit.rules.HP101]\njs = 0.001\nkv_js = 0\nseverity = "error"\nlayers = "0-2,5"\n'
    )
    environ = {"HEADPROBE_AUDIT_FAIL_ON": "warning", "HEADPROBE_AUDIT_SET": "HP101.js=0.002 HP104.mass=0.9"}
    policy = load_policy(limits=["HP101.js=0.03"], ignore=["HP105"], environ=environ, start=tmp_path)
    told = {key: (value, source) for key, value, source in policy.rows()}
    file = str(tmp_path / "headprobe.toml")
    assert told["fail-on"] == ("warning", "HEADPROBE_AUDIT_FAIL_ON")
    assert told["select"] == ("HP1", file)
    assert told["ignore"] == ("HP105", "--ignore")
    assert told["HP101.js"] == ("0.03", "--set")
    assert told["HP101.kv_js"] == ("0", file)
    assert told["HP101.severity"] == ("error", file)
    assert told["HP101.layers"] == ("0,1,2,5", file)
    assert told["HP104.mass"] == ("0.9", "HEADPROBE_AUDIT_SET")
    assert told["HP102.heads"] == ("1.25", "default")
    assert [rule.code for rule in policy.rules()] == ["HP000", "HP101", "HP102", "HP103", "HP104"]


def test_environment_selects(tmp_path: Path) -> None:
    environ = {VARIABLES["select"]: "HP101, hp2", VARIABLES["ignore"]: "HP204"}
    policy = load_policy(environ=environ, start=tmp_path)
    assert [rule.code for rule in policy.rules()][:3] == ["HP000", "HP101", "HP201"]
    assert "HP204" not in [rule.code for rule in policy.rules()]


def test_variables_handed_on_as_flags_stay_the_environments(tmp_path: Path) -> None:
    environ = {VARIABLES["fail-on"]: "note", VARIABLES["select"]: "HP1,HP2", VARIABLES["set"]: "HP101.layers=0-3"}
    policy = load_policy(
        fail_on="note", select=["HP1,HP2"], limits=["HP101.layers=0-3"], environ=environ, start=tmp_path
    )
    assert policy.sources["fail-on"] == VARIABLES["fail-on"]
    assert policy.sources["select"] == VARIABLES["select"]
    assert (policy.values["HP101.layers"], policy.sources["HP101.layers"]) == (frozenset(range(4)), VARIABLES["set"])


def test_flags_set_severity_and_several_at_once(tmp_path: Path) -> None:
    policy = load_policy(limits=["HP101.severity=off,HP102.heads=2", "HP104.mass=0.9"], environ={}, start=tmp_path)
    assert "HP101" not in [rule.code for rule in policy.rules()]
    assert policy.limits("HP102").values["heads"] == 2
    assert policy.sources["HP104.mass"] == "--set"


def test_pyproject_and_named_files(tmp_path: Path) -> None:
    policy = written(tmp_path, '[tool.headprobe.audit]\nfail-on = "note"\n', "pyproject.toml")
    assert policy.fail_on == "note"
    (tmp_path / "strict.toml").write_text('[audit]\nfail_on = "warning"\n')
    named = load_policy(policy=tmp_path / "strict.toml", start=tmp_path, environ={})
    assert (named.fail_on, named.sources["fail-on"]) == ("warning", str(tmp_path / "strict.toml"))
    by_variable = load_policy(start=tmp_path, environ={VARIABLES["policy"]: str(tmp_path / "strict.toml")})
    assert by_variable.fail_on == "warning"


def test_a_policy_in_a_configuration_file_does_not_disturb_other_commands(tmp_path: Path) -> None:
    (tmp_path / "headprobe.toml").write_text('limit = 8\n[audit]\nfail-on = "note"\n')
    assert discover(tmp_path, {"limit"})[0] == {"limit": 8}


def test_no_policy_is_looked_for_beside_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "headprobe.toml").write_text('[audit]\nselect = ["HP103"]\n')
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert load_policy(environ={}).values == default_policy().values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[audit]\nfail-at = "note"', "fail-on"),
        ('[audit]\nfail-on = "fatal"', "Valid: error, note, warning"),
        ("[audit]\nfail-on = 3", "fail-on is 3"),
        ('[audit]\nselect = ["HP9"]', "no rule"),
        ('[audit]\nselect = [""]', "no rule"),
        ("[audit]\nselect = 3", "select is 3"),
        ("[audit]\nignore = [3]", "ignore is"),
        ("audit = 3", "no table"),
        ("[audit]\nrules = 3", "no table"),
        ("[audit.rules]\nHP101 = 3", "no table"),
        ("[audit.rules.HP110]\njs = 1", "HP10"),
        ("[audit.rules.HP101]\njx = 0.1", "js"),
        ('[audit.rules.HP101]\njs = "0.1"', "no number"),
        ("[audit.rules.HP101]\njs = true", "no number"),
        ("[audit.rules.HP101]\njs = -0.1", "Give 0 to 0.6931"),
        ("[audit.rules.HP101]\njs = 7", "Give 0 to 0.6931"),
        ("[audit.rules.HP101]\njs = nan", "Give 0 to"),
        ("[audit.rules.HP101]\njs = inf", "Give 0 to"),
        ('[audit.rules.HP101]\nseverity = "fatal"', "severity"),
        ('[audit.rules.HP101]\nlayers = "x"', "layers"),
        ("[audit.rules.HP101]\nlayers = true", "layers"),
        ("[audit.rules.HP101]\nlayers = -1", "layers"),
        ('[audit.rules.HP000]\nseverity = "off"', "can't be changed"),
        ("[audit]\nwaivers = 3", "no list"),
        ("[audit]\nwaivers = [3]", "no list"),
        ('[[audit.waivers]]\ncode = "HP101"\nexpires = 2031-01-01', "needs reason"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = " "\nexpires = 2031-01-01', "reason"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = 3\nexpires = 2031-01-01', "reason"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = "x"', "needs expires"),
        ('[[audit.waivers]]\nreason = "x"\nexpires = 2031-01-01', "needs code"),
        ('[[audit.waivers]]\ncode = "HP999"\nreason = "x"\nexpires = 2031-01-01', "no rule"),
        ('[[audit.waivers]]\ncode = ["HP101"]\nreason = "x"\nexpires = 2031-01-01', "no rule"),
        ('[[audit.waivers]]\ncode = "HP000"\nreason = "x"\nexpires = 2031-01-01', "can't be waived"),
        ('[[audit.waivers]]\ncode = "HP006"\nreason = "x"\nexpires = 2031-01-01', "can't be waived"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = "x"\nexpires = "soon"', "no day"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = "x"\nexpires = "2031-02-30"', "no day"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = "x"\nexpires = 2031-01-01T00:00:00', "no day"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = "x"\nexpires = 7', "no day"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = "x"\nexpires = 2031-01-01\nhead = 1', "needs its layer"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = "x"\nexpires = 2031-01-01\nlayer = -1', "layer is -1"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = "x"\nexpires = 2031-01-01\nlayer = "1"', "layer is '1'"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = "x"\nexpires = 2031-01-01\nkind = "all"', "kind"),
        ('[[audit.waivers]]\ncode = "HP101"\nreason = "x"\nexpires = 2031-01-01\nlayr = 1', "layer"),
        ("[audit", "TOML"),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        written(tmp_path, text)
    line = str(refusal.value)
    assert words in line
    assert "headprobe.toml" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "text",
    ["HP101", "HP101.js", "HP101.js=", "HP101.js=x", "HP101.js=nan", "HP101=1", "=1", "a.b=1", "HP101.severity=x"],
)
def test_wrong_limits_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--set"):
        load_policy(limits=[text], environ={}, start=tmp_path)


def test_wrong_flags_and_variables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--fail-on"):
        load_policy(fail_on="fatal", environ={}, start=tmp_path)
    with pytest.raises(UsageError, match="HEADPROBE_AUDIT_SELECT"):
        load_policy(environ={VARIABLES["select"]: "HP9"}, start=tmp_path)
    with pytest.raises(InputError, match="can't read"):
        load_policy(policy=tmp_path / "none.toml", environ={}, start=tmp_path)
    (tmp_path / "other.toml").write_text("limit = 3\n")
    with pytest.raises(HeadprobeError, match="no table"):
        load_policy(policy=tmp_path / "other.toml", environ={}, start=tmp_path)


def test_a_waiver_holds_to_its_day(tmp_path: Path, sample: Sample) -> None:
    policy = written(tmp_path, WAIVER.format("2030-06-15"))
    audit = judged_by(policy, sample("tiny-bert-collapsed"))
    waived = [finding for finding in audit.findings if finding.waived]
    assert [(f.code, f.layer, f.waived) for f in waived] == [("HP102", 1, "collapsed on purpose (until 2030-06-15)")]
    assert audit.findings[-1] is waived[0]
    assert [(f.code, f.layer) for f in audit.failing] == [("HP102", 2)]
    later = judged_by(policy, sample("tiny-bert-collapsed"), date(2030, 6, 16))
    assert not any(finding.waived for finding in later.findings)
    assert [f.code for f in later.failing] == ["HP006", "HP102", "HP102"]
    assert "2030-06-15" in later.failing[0].message


def test_an_expired_waiver_is_a_finding_even_where_it_would_cover_nothing(tmp_path: Path, sample: Sample) -> None:
    audit = judged_by(written(tmp_path, WAIVER.format('"2001-01-01"')), sample("tiny-bert"))
    assert codes(audit) == {"HP006"}
    assert audit.failing


def test_a_waiver_of_nothing_is_noted(tmp_path: Path, sample: Sample) -> None:
    audit = judged_by(written(tmp_path, WAIVER.format("2031-01-01")), sample("tiny-bert"))
    assert audit.notes == ("the waiver of HP102 layer 1 covers no finding",)


def test_a_waiver_of_a_head_covers_pairs_with_it(tmp_path: Path, planted: Callable[[str], Report]) -> None:
    text = '[[audit.waivers]]\ncode = "HP101"\nreason = "x"\nexpires = 2031-01-01\nlayer = 2\nhead = {}\nkind = "{}"\n'
    for head, kind, covered in ((3, "encoder", True), (8, "encoder", True), (4, "encoder", False), (3, "cross", False)):
        audit = judged_by(written(tmp_path, text.format(head, kind)), planted("twin"))
        assert [bool(finding.waived) for finding in audit.findings] == [covered]


def test_severity_layers_and_selection_shape_the_audit(tmp_path: Path, sample: Sample) -> None:
    collapsed = sample("tiny-bert-collapsed")
    softer = written(
        tmp_path,
        '[audit]\nignore = "HP101"\n[audit.rules.HP102]\nseverity = "note"\nlayers = 1\n'
        '[audit.rules.HP105]\nseverity="off"\n',
    )
    audit = judged_by(softer, collapsed)
    assert [(f.code, f.layer, f.severity) for f in audit.findings] == [("HP102", 1, "note")]
    assert not audit.failing
    assert [a.reason for a in audit.rules if a.code == "HP102"] == ["1 below error"]
    strict = load_policy(fail_on="note", limits=["HP102.heads=4"], select=["HP102"], environ={}, start=tmp_path)
    assert judged_by(strict, collapsed).failing
    ignored = load_policy(ignore=["HP1"], environ={}, start=tmp_path)
    assert not judged_by(ignored, collapsed).findings
