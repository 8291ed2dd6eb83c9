"""Every rule by its code."""

from headprobe.audit.rule import Rule
from headprobe.audit.rules.against import Blind, FewSequences, LostMetric, OtherHeads
from headprobe.audit.rules.change import Drift, EntropyCollapse, FewerDifferentHeads, MoreRedundant
from headprobe.audit.rules.idle import DeadHead, UniformHead
from headprobe.audit.rules.redundancy import FewDifferentHeads, NearIdentical, SameRows
from headprobe.audit.rules.roles import NewSink, NewTwins, OtherRole
from headprobe.audit.rules.validity import ExpiredWaiver, LeakedMass, NotFinite, NothingJudged, RowSums

__all__ = ["RULES"]

_EVERY: tuple[Rule, ...] = (
    NothingJudged(), RowSums(), NotFinite(), LeakedMass(), OtherHeads(), LostMetric(), ExpiredWaiver(), Blind(),
    FewSequences(), NearIdentical(), FewDifferentHeads(), SameRows(), DeadHead(), UniformHead(), MoreRedundant(),
    FewerDifferentHeads(), EntropyCollapse(), Drift(), NewSink(), OtherRole(), NewTwins(),
)  # fmt: skip
RULES: dict[str, Rule] = {rule.code: rule for rule in _EVERY}
