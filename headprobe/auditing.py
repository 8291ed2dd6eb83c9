"""audit(): a model's report, and with a baseline what became of it, held to a policy."""

from pathlib import Path
from typing import Any

from torch import nn

from headprobe.audits.audit import audit_report
from headprobe.audits.finding import Audit
from headprobe.audits.policy import Policy, load_policy
from headprobe.audits.rule import Facts
from headprobe.comparing import Model, measured, of_base, saved_report
from headprobe.comparison import Comparison, compare_reports
from headprobe.comparison.conditions import differences
from headprobe.drift import Drift
from headprobe.errors import HeadprobeError, UsageError
from headprobe.pipeline import Watch, scan
from headprobe.report import Report

TOLD_BY_RULES = ("E-SHAPES", "E-METRIC")  # what a baseline has and the model lacks is a finding, and no refusal


def audit(
    model: Model,
    policy: Policy | str | Path | None = None,
    *,
    baseline: Model | None = None,
    baseline_revision: str | None = None,
    watch: Watch | None = None,
    **options: Any,
) -> Audit:
    """What is wrong with a model's attention, and with a `baseline` what became of it.

    Both are a hub name, a folder, a transformers model, a `Report` or the path of a saved one. `policy` is one, or a
    file of one; without it the nearest configuration file and the environment are asked. Other `options` are those of
    `scan`.

    Raises `HeadprobeError` (see its subclasses), also where the baseline was made under other conditions.
    """
    chosen = policy if isinstance(policy, Policy) else load_policy(policy=policy)
    return audit_report(facts(model, baseline, baseline_revision, watch, options), chosen)


def facts(
    model: Model, baseline: Model | None, baseline_revision: str | None, watch: Watch | None, options: dict[str, Any]
) -> Facts:
    """What the rules are asked about."""
    if baseline is None:
        return Facts(report_of(model, watch, options))
    between: Drift | None = None
    try:
        both = measured(baseline, model, base_revision=baseline_revision, watch=watch, **options)
        base, report = both.base, both.tuned
        between = both.between if isinstance(both.between, Drift) else None
    except HeadprobeError as fault:
        if fault.code not in TOLD_BY_RULES:
            raise
        base = report_of(baseline, watch, of_base(options, baseline_revision))
        report = report_of(model, watch, options)
    return Facts(report, base, _comparison(base, report, between))


def report_of(model: Model, watch: Watch | None, options: dict[str, Any]) -> Report:
    """The report that is given, was saved, or comes of a scan."""
    saved = saved_report(model)
    if saved is not None:
        return saved
    assert isinstance(model, str | Path | nn.Module)
    return scan(model, watch=watch, **options)


def _comparison(base: Report, report: Report, between: Drift | None) -> Comparison | None:
    """The comparison, None where rules tell why there can't be one; other conditions are refused."""
    found = list(differences(base, report))
    refused = [difference for difference in found if difference.code not in TOLD_BY_RULES]
    if refused:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise UsageError(
            "E-BASELINE", f"the baseline was made under other conditions: {refused[0].words}{more}", refused[0].hint
        )
    if found or base.sequences.empty or report.sequences.empty:
        return None
    return compare_reports(base, report, None if between is None else between.table())
