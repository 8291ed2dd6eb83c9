"""What the rules say of themselves."""

import pytest

from headprobe.audits.explain import explanation, rule_of
from headprobe.audits.rules import RULES
from headprobe.errors import UsageError


@pytest.mark.parametrize("code", RULES)
def test_every_rule_is_told_in_full(code: str) -> None:
    rule = RULES[code]
    assert rule.code == code
    for words in (rule.about, rule.rationale, rule.advice, rule.passes, rule.fails):
        assert words in explanation(rule)
        assert words.strip() == words
        assert words.endswith(".")
    assert rule.limits.keys() == rule.ranges.keys()
    for name, limit in rule.limits.items():
        low, high = rule.ranges[name]
        assert low <= limit <= high


def test_names_are_distinct() -> None:
    assert len({rule.name for rule in RULES.values()}) == len(RULES)


def test_rule_by_code_or_name() -> None:
    assert rule_of("hp101") is rule_of("near-identical") is RULES["HP101"]
    with pytest.raises(UsageError, match="HP10"):
        rule_of("HP110")
