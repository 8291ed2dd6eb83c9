"""Every rule by its code."""

from headprobe.audits.rule import Rule
from headprobe.audits.rules.against import Blind, FewSequences, LostMetric, OtherHeads
from headprobe.audits.rules.change import Drift, EntropyCollapse, FewerDifferentHeads, MoreRedundant
from headprobe.audits.rules.idle import DeadHead, UniformHead
from headprobe.audits.rules.redundancy import FewDifferentHeads, NearIdentical, SameRows
from headprobe.audits.rules.roles import NewSink, NewTwins, OtherRole
from headprobe.audits.rules.validity import ExpiredWaiver, LeakedMass, NotFinite, NothingJudged, RowSums

__all__ = ["RULES"]

_EVERY: tuple[Rule, ...] = (
    NothingJudged(), RowSums(), NotFinite(), LeakedMass(), OtherHeads(), LostMetric(), ExpiredWaiver(), Blind(),
    FewSequences(), NearIdentical(), FewDifferentHeads(), SameRows(), DeadHead(), UniformHead(), MoreRedundant(),
    FewerDifferentHeads(), EntropyCollapse(), Drift(), NewSink(), OtherRole(), NewTwins(),
)  # fmt: skip
RULES: dict[str, Rule] = {rule.code: rule for rule in _EVERY}
