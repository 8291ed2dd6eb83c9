"""Models whose heads do not correspond: each head with the one of the other model that attends most like it."""

from collections.abc import Sequence

import pandas as pd

from headprobe.comparison.comparison import Comparison, table
from headprobe.report import NAMES, Report

NOTE = (
    "heads were matched by assignment on JS over the same inputs, so that p-values would test what was chosen by the"
    " same numbers: there are none"
)
UNDEFINED = ("mean_change", "median_change", "effect", "dz", "ci_low", "ci_high", "p", "q")


def matched_reports(base: Report, tuned: Report, tables: Sequence[pd.DataFrame]) -> Comparison:
    """The comparison of matched heads, without statistics.

    `tables` hold JS [head of the base, head of the other], one for each kind of attention, labelled by site, layer and
    head. `heads` of the result also has `tuned_layer`, `tuned_head` and the pair's `js`; heads that are left over where
    one model has more are told in `notes`. Sites are the base's.
    """
    pairs = pd.DataFrame([row for matrix in tables for row in _assigned(matrix)])
    values = [str(name) for name in base.heads if name in tuned.heads and name not in _names(base)]
    values = [name for name in values if not name.startswith("nearest_") and name not in ("sequences", "queries")]
    mine, theirs = (report.heads.set_index(["site", "head"]) for report in (base, tuned))
    rows = []
    for pair in pairs.to_dict("records"):
        one, other = mine.loc[(pair["site"], pair["head"])], theirs.loc[(pair["tuned_site"], pair["tuned_head"])]
        named = {name: one[name] for name in ("path", "tower", "kind", "layer")}
        place = {"site": pair["site"], **named, "head": pair["head"]}
        partner = {name: pair[name] for name in ("tuned_layer", "tuned_head", "js")}
        for name in values:
            change = {"base": one[name], "tuned": other[name], "change": other[name] - one[name]}
            rows.append({**place, "metric": name, **change, **dict.fromkeys(UNDEFINED, float("nan")), **partner})
    left = [len(report.heads) - len(pairs) for report in (base, tuned)]
    notes = [NOTE] + [
        f"{count} heads of the {name} have no partner"
        for count, name in zip(left, ("base", "other model"), strict=True)
        if count
    ]
    return Comparison(
        base=base.provenance,
        tuned=tuned.provenance,
        heads=table("heads", rows),
        layers=table("layers", []),
        drift=table("drift", []),
        notes=tuple(notes),
    )


def _names(report: Report) -> set[str]:
    return {*NAMES["heads"], "tower"} & set(report.heads)


def _assigned(matrix: pd.DataFrame) -> list[dict[str, float]]:
    """The assignment of heads with the least sum of JS."""
    from scipy.optimize import linear_sum_assignment

    js = matrix.to_numpy()
    rows, columns = linear_sum_assignment(js)
    found = []
    for i, j in zip(rows, columns, strict=True):
        (site, _, head), (tuned_site, tuned_layer, tuned_head) = matrix.index[i], matrix.columns[j]
        found.append(
            {
                "site": site,
                "head": head,
                "tuned_site": tuned_site,
                "tuned_layer": tuned_layer,
                "tuned_head": tuned_head,
                "js": float(js[i, j]),
            }
        )
    return found
