"""HP201 to HP203: heads that grew alike or narrow since the baseline."""

from collections.abc import Iterable
from typing import ClassVar

from headprobe.audits.finding import Finding, Severity
from headprobe.audits.places import Row, Seen, known, place, rows, told
from headprobe.audits.rule import Facts, Limits, NotAsked, Rule
from headprobe.audits.rules.changed import SIGNIFICANCE, arrow, changes, comparison_of, places


class MoreRedundant(Rule):
    """HP201: redundancy grew, significantly and a lot."""

    code = "HP201"
    name = "more-redundant"
    about = (
        "The rows of a head grew alike (`rcos` rose by more than `rcos`), or the head grew like the others of its "
        f"layer (less than `js_share` of its mean JS to them is left). {SIGNIFICANCE}"
    )
    rationale = (
        "Measured on six sets of texts, short ones and random tokens among them: from tiny-bert to its healthy child "
        "rcos rises by 0.21 at most (0.07 on the built-in texts) and 0.57 or more of a head's mean JS is left; to "
        "tiny-bert-collapsed rcos rises by 0.31 to 0.72 in the collapsed layers and at most 0.14 of the JS is left."
    )
    advice = "Train less hard, or penalise agreement of heads; look at the layers that HP102 and HP202 name."
    passes = "rcos 0.29 -> 0.36."
    fails = "rcos 0.31 -> 0.97, js_mean 0.14 -> 0.002."
    severity: ClassVar[Severity] = "error"
    limits: ClassVar[dict[str, float]] = {"rcos": 0.35, "js_share": 0.25}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"rcos": (0.0, 1.0), "js_share": (0.0, 1.0)}
    needs_baseline = True

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every head, or one a layer; each head once, for what changed the most."""
        worst: dict[tuple[int, int], Seen] = {}
        for at, row in changes(facts, "rcos", "js_mean"):
            limit = _limit(row, limits.values)
            badness = row["median_change"] / limit
            if badness > 1:
                seen = Seen(at, row["metric"], row["tuned"], row["base"] + limit, arrow(row), badness, row["base"])
                key = (int(at["site"]), int(at["head"]))
                worst[key] = max(worst.get(key, seen), seen, key=lambda one: one.badness)
        return told(self.code, limits, worst.values(), "{heads} grew redundant")


def _limit(row: Row, values: dict[str, float]) -> float:
    """The change beyond which it counts: upwards for rcos, downwards for JS."""
    return values["rcos"] or 1e-9 if row["metric"] == "rcos" else -(1 - values["js_share"]) * row["base"] or -1e-9


class FewerDifferentHeads(Rule):
    """HP202: a layer lost effective heads."""

    code = "HP202"
    name = "fewer-different-heads"
    about = (
        "A layer lost more than `loss` of its effective heads beyond the first, and most of its heads grew like the "
        "others (js_mean fell with q < 0.05): the effective number itself has no value by sequence to test."
    )
    rationale = (
        "Measured on six sets of texts: the healthy child of tiny-bert loses 0.40 at most, tiny-bert-collapsed 0.97 "
        "or more in its collapsed layers. 0.75 is lost when the JS of all heads falls to a quarter, as in HP201."
    )
    advice = "See HP102: the layer may be on its way to collapse."
    passes = "2.02 -> 1.81 effective heads of 8."
    fails = "2.23 -> 1.02 effective heads of 8."
    severity: ClassVar[Severity] = "error"
    limits: ClassVar[dict[str, float]] = {"loss": 0.75}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"loss": (0.0, 1.0)}
    needs_baseline = True
    needs = (("layers", "effective_heads"),)

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every layer that lost more than the limit."""
        fell: dict[int, int] = {}
        for _, row in changes(facts, "js_mean"):
            fell[int(row["site"])] = fell.get(int(row["site"]), 0) + (row["median_change"] < 0)
        where = {site: row for (site, _), row in places(facts).items()}
        for row in rows(comparison_of(facts).layers):
            base, tuned = row["effective_heads_base"], row["effective_heads_tuned"]
            if not (known(base) and known(tuned)) or base <= 1 or int(row["site"]) not in where:
                continue
            least = 1 + (1 - limits.values["loss"]) * (base - 1)
            if tuned < least and 2 * fell.get(int(row["site"]), 0) > row["heads"]:
                yield Finding(
                    code=self.code,
                    severity=limits.severity,
                    message=f"effective heads {base:.2f} -> {tuned:.2f} of {row['heads']}, limit {least:.2f}",
                    heads=tuple(range(int(row["heads"]))),
                    metric="effective_heads",
                    value=float(tuned),
                    limit=float(least),
                    baseline=float(base),
                    **place(where[int(row["site"])]),
                )


class EntropyCollapse(Rule):
    """HP203: attention narrowed to almost one key."""

    code = "HP203"
    name = "entropy-collapse"
    about = "The normalised entropy of a head fell by more than `fall` and is below `entropy_norm` now. " + SIGNIFICANCE
    rationale = (
        "Zhai et al. 2023 found that collapse of entropy goes with unstable training. Arithmetic: 0.3 of ln 128 is "
        "1.5 nats, a quarter of the keys; below 0.3 fewer than 5 of 128 keys count. Measured: the healthy child of "
        "tiny-bert falls by 0.21 at most. Heads that were narrow before can't collapse."
    )
    advice = "Look for weights that grew in the queries or keys of this head, a learning rate that is too high."
    passes = "entropy_norm 0.84 -> 0.75."
    fails = "entropy_norm 0.70 -> 0.12: the query weights grew eightfold."
    severity: ClassVar[Severity] = "error"
    limits: ClassVar[dict[str, float]] = {"fall": 0.3, "entropy_norm": 0.3}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"fall": (0.0, 1.0), "entropy_norm": (0.0, 1.0)}
    needs_baseline = True

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every head that collapsed, or one a layer."""
        fall, floor = limits.values["fall"], limits.values["entropy_norm"]
        seen = [
            Seen(at, "entropy_norm", row["tuned"], floor, arrow(row), -row["median_change"], row["base"])
            for at, row in changes(facts, "entropy_norm")
            if row["median_change"] < -fall and row["tuned"] < floor
        ]
        return told(self.code, limits, seen, "the attention of {heads} collapsed to a few keys")


class Drift(Rule):
    """HP204: a head attends elsewhere than in the baseline."""

    code = "HP204"
    name = "drift"
    about = (
        "The mean Jensen-Shannon divergence between the same head of baseline and model, on the same queries, is "
        "above the limit. It needs both models to be run side by side: reports of their own don't hold it."
    )
    rationale = (
        "Arithmetic: JS ≤ ln 2·TV, so above 0.2 nats more than 0.29 of the mass moved. Drift is what fine-tuning "
        "does and no fault by itself: a note."
    )
    advice = "See whether the heads that drifted are those that the task needs."
    passes = "JS 0.03 to the baseline."
    fails = "JS 0.45 to the baseline: the head was replaced."
    severity: ClassVar[Severity] = "note"
    limits: ClassVar[dict[str, float]] = {"js": 0.2}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"js": (0.0, 0.6931)}
    needs_baseline = True

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every head that drifted further than the limit, or one a layer."""
        drift, limit = comparison_of(facts).drift, limits.values["js"]
        if drift.empty:
            raise NotAsked("drift was not measured: baseline and model must be run side by side")
        where = places(facts)
        seen = []
        for row in rows(drift):
            at = where.get((int(row["site"]), int(row["head"])))
            if at is not None and known(row["js"]) and row["js"] > limit:
                message = f"JS to the baseline's head is {row['js']:.3f} nats, limit {limit:g}"
                seen.append(Seen(at, "js", float(row["js"]), limit, message, float(row["js"])))
        return told(self.code, limits, seen, "{heads} attend elsewhere than in the baseline")
