"""A base and its fine-tuned child on the same inputs: what changed by head, and whether it is more than chance."""

from headprobe.comparison.comparison import Comparison
from headprobe.comparison.conditions import conditions
from headprobe.comparison.paired import compare_reports

__all__ = ["Comparison", "compare_reports", "conditions"]
