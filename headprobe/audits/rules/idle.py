"""HP104 and HP105: heads that do nothing with the text."""

from collections.abc import Iterable
from typing import ClassVar

from headprobe.audits.finding import Finding, Severity
from headprobe.audits.places import Row, Seen, known, rows, told
from headprobe.audits.rule import Facts, Limits, NotAsked, Rule

PLACES = ("first_mass_excl_first", "special_mass", "sink_virtual")
MASSES = ("self_mass", "prev_mass", "next_mass", "first_mass", "special_mass", "confidence")


class DeadHead(Rule):
    """HP104: all mass on one key."""

    code = "HP104"
    name = "dead-head"
    about = (
        "Nearly all mass of every query is on the first position, on special tokens, on a learned sink, or on any one "
        "key (the largest weight and the likeness of the rows, `confidence` and `rcos`, both at the limit)."
    )
    rationale = (
        "Arithmetic: with 0.99 of the mass on one key a head's output is a constant but for a hundredth. Measured: the "
        "most is 0.70 in MiniLM and 0.80 in tiny-llama; sink heads of 0.9 are common in large models, hence 0.99."
    )
    advice = "Prune it, or look for a bias that grew: a head that is dead gets no gradient."
    passes = "A sink with first_mass 0.8."
    fails = "A head with first_mass 0.998."
    severity: ClassVar[Severity] = "warning"
    limits: ClassVar[dict[str, float]] = {"mass": 0.99}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"mass": (0.0, 1.0)}

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every head at the limit, or one a layer."""
        columns = [name for name in PLACES if name in facts.report.heads]
        if not columns and not {"confidence", "rcos"} <= set(facts.report.heads):
            raise NotAsked("the report has no masses: scan with the metric position")
        limit = limits.values["mass"]
        seen = []
        uniform = {int(row["site"]): row for row in rows(facts.report.baselines)}
        for row in rows(facts.report.heads):
            metric, value = _on_one_key(row, uniform.get(int(row["site"]), {}))
            if value >= limit:
                message = f"{metric} is {value:.4f}, limit {limit:g}"
                seen.append(Seen(row, metric, value, limit, message, value))
        return told(self.code, limits, seen, "{heads} look at one place only")


def _on_one_key(row: Row, uniform: Row) -> tuple[str, float]:
    """The metric that says most of the mass is in one place, and how much.

    A place that uniform attention would give half of its mass says nothing: there is hardly another one.
    """
    masses = {name: float(row[name]) for name in PLACES if known(row.get(name))}
    if known(row.get("confidence")) and known(row.get("rcos")):
        masses["confidence"] = min(float(row["confidence"]), float(row["rcos"]))
    free = {name: mass for name, mass in masses.items() if not (known(uniform.get(name)) and uniform[name] >= 0.5)}
    return max(free.items(), key=lambda item: item[1], default=("", 0.0))


class UniformHead(Rule):
    """HP105: attention that the mask alone would give."""

    code = "HP105"
    name = "uniform-head"
    about = (
        "A head attends to all visible keys alike: its normalised entropy is near 1, and rcos and all masses are "
        "within `distance` of what uniform attention under the same mask gives."
    )
    rationale = (
        "Arithmetic: KL from uniform is (1 - entropy_norm)·ln s, 0.015 nats at 0.997 and 128 keys, so less than a "
        "tenth of the mass lies elsewhere (Pinsker). Measured: MiniLM reaches 0.967, tiny-bart 0.995; "
        "tiny-vit's last layer is uniform, which is a warning and no failure."
    )
    advice = "Its weights carry nothing: prune it, or look whether they were loaded or trained at all."
    passes = "entropy_norm 0.967."
    fails = "entropy_norm 1.000: the query weights are zero."
    severity: ClassVar[Severity] = "warning"
    limits: ClassVar[dict[str, float]] = {"entropy_norm": 0.997, "distance": 0.05}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"entropy_norm": (0.0, 1.0), "distance": (0.0, 1.0)}
    needs = (("heads", "entropy_norm"),)

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every uniform head, or one a layer."""
        limit, distance = limits.values["entropy_norm"], limits.values["distance"]
        uniform = {int(row["site"]): row for row in rows(facts.report.baselines)}
        seen = []
        for row in rows(facts.report.heads):
            value = row["entropy_norm"]
            if known(value) and value >= limit and _apart(row, uniform.get(int(row["site"]), {})) <= distance:
                message = f"entropy_norm is {value:.4f}, limit {limit:g}: uniform attention"
                seen.append(Seen(row, "entropy_norm", float(value), limit, message, float(value)))
        return told(self.code, limits, seen, "{heads} attend to everything alike")


def _apart(row: Row, uniform: Row) -> float:
    """The largest distance of a head's masses and rcos from those of uniform attention; 0 where none is known."""
    names = [name for name in (*MASSES, "rcos") if known(row.get(name)) and known(uniform.get(name))]
    return max((abs(float(row[name]) - float(uniform[name])) for name in names), default=0.0)
