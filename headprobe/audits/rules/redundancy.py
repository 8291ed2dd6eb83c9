"""HP101 to HP103: heads that repeat each other, and heads that repeat themselves."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

import pandas as pd

from headprobe.audits.finding import Finding, Severity
from headprobe.audits.places import SEVERAL, Row, Seen, clusters, known, listed, rows, sites, told
from headprobe.audits.rule import Facts, Limits, NotAsked, Rule


class NearIdentical(Rule):
    """HP101: heads that look at the same keys for the same queries."""

    code = "HP101"
    name = "near-identical"
    about = (
        "The mean Jensen-Shannon divergence of two heads is so small that one does what the other does. Three or more "
        "heads of a layer that hang together by such pairs are told as one group. Heads that share a key-value head "
        "(`same_kv_group`) are alike by construction and have a stricter limit of their own, `kv_js`."
    )
    rationale = (
        "Arithmetic: JS ≥ TV²/2, so at 0.005 nats at most a tenth of a row's mass lies elsewhere. `kv_js` 0.002 is "
        "just above what bfloat16 alone moves JS by (0.0012, measured on MiniLM). Measured: the closest pair is at "
        "0.055 in MiniLM, 0.063 in tiny-bert, 0.034 in tiny-llama (sharing keys), 0.009 in tiny-bart; tiny-vit, whose "
        "last layers hardly attend to anything, has pairs below the limit. Healthy models may have some: a warning."
    )
    advice = "Prune one of them, or train with a penalty on agreement; waive pairs that are known."
    passes = "The closest pair of a layer has JS 0.055."
    fails = "Heads 3 and 7 of layer 2 have JS 0.0000: the weights of one were copied from the other."
    severity: ClassVar[Severity] = "warning"
    limits: ClassVar[dict[str, float]] = {"js": 0.005, "kv_js": 0.002}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"js": (0.0, 0.6931), "kv_js": (0.0, 0.6931)}
    needs = (("pairs", "js"),)

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding a pair, or one a group of three or more heads."""
        where = sites(facts.report)
        by_sites: dict[tuple[int, int], list[Row]] = {}
        for pair in close_pairs(facts.report.pairs, limits.values):
            by_sites.setdefault((int(pair["site_a"]), int(pair["site_b"])), []).append(pair)
        for (a, b), pairs in by_sites.items():
            if a == b:
                yield from self._within(pairs, where[a], limits)
            else:
                yield from self._across(pairs, where[a], limits)

    def _within(self, pairs: list[Row], place: Row, limits: Limits) -> Iterator[Finding]:
        for group in clusters((int(pair["head_a"]), int(pair["head_b"])) for pair in pairs):
            members = [pair for pair in pairs if pair["head_a"] in group]
            if len(group) < SEVERAL:
                yield self._pair(members[0], place, limits)
                continue
            worst = max(float(pair["js"]) for pair in members)
            limit = max(limit_of(pair, limits.values) for pair in members)
            message = (
                f"{listed(group)} are nearly identical: JS of linked pairs up to {worst:.2g} nats, limit {limit:g}"
            )
            yield Finding(
                code=self.code, severity=limits.severity, message=message, heads=group, metric="js", value=worst,
                limit=limit, **place,
            )  # fmt: skip

    def _pair(self, pair: Row, place: Row, limits: Limits) -> Finding:
        limit = limit_of(pair, limits.values)
        shared = " (they share a key-value head)" if pair["same_kv_group"] else ""
        return Finding(
            code=self.code,
            severity=limits.severity,
            message=f"two heads are nearly identical{shared}: JS {pair['js']:.2g} nats, limit {limit:g}",
            head=int(pair["head_a"]),
            other_site=int(pair["site_b"]),
            other_layer=int(pair["layer_b"]),
            other_head=int(pair["head_b"]),
            heads=(int(pair["head_a"]), int(pair["head_b"])) if pair["site_a"] == pair["site_b"] else (),
            metric="js",
            value=float(pair["js"]),
            limit=limit,
            **place,
        )

    def _across(self, pairs: list[Row], place: Row, limits: Limits) -> Iterator[Finding]:
        """Pairs of two layers: by name, or from three on as one finding at the first of the layers."""
        if len(pairs) < SEVERAL:
            yield from (self._pair(pair, place, limits) for pair in pairs)
            return
        worst, limit = max(float(pair["js"]) for pair in pairs), limits.values["js"]
        heads = tuple(sorted({int(pair["head_a"]) for pair in pairs}))
        message = (
            f"{len(pairs)} pairs with heads of layer {pairs[0]['layer_b']} are nearly identical: JS up to {worst:.2g}"
        )
        yield Finding(
            code=self.code, severity=limits.severity, message=f"{message} nats, limit {limit:g}", heads=heads,
            other_site=int(pairs[0]["site_b"]), other_layer=int(pairs[0]["layer_b"]), metric="js", value=worst,
            limit=limit, **place,
        )  # fmt: skip


def limit_of(pair: Row, values: dict[str, float]) -> float:
    """The limit in nats that a pair is judged by."""
    return values["kv_js"] if pair["same_kv_group"] else values["js"]


def close_pairs(pairs: pd.DataFrame, values: dict[str, float]) -> list[Row]:
    """The pairs at or below their limit."""
    near = pairs[pairs["js"] <= max(values["js"], values["kv_js"])]
    return [pair for pair in rows(near) if known(pair["js"]) and pair["js"] <= limit_of(pair, values)]


class FewDifferentHeads(Rule):
    """HP102: a layer whose heads act like one."""

    code = "HP102"
    name = "few-different-heads"
    about = (
        "The effective number of heads of a layer (Vendi score of 1 - JS/ln 2) is below both `heads` and `share` of "
        "its heads: they all do the same."
    )
    rationale = (
        "Measured: healthy layers have 2.0 to 4.7 effective heads of 8 or 12 (MiniLM, tiny-bert, tiny-llama, "
        "tiny-bart; the fine-tuned tiny-bert 1.8), the collapsed layers of tiny-bert-collapsed 1.02 and 1.04. "
        "Arithmetic: 1.25 is reached when the mean JS of 8 to 32 heads is about 0.03 to 0.02 nats. A layer of up to "
        "six heads can't fall below a share of 0.15: so few heads alike are no collapse, and HP101 names their group."
    )
    advice = (
        "Compare with the checkpoint that it was trained from; look at the loss, the learning rate and distillation."
    )
    passes = "A layer of 12 heads has 2.7 effective ones."
    fails = "A layer of 8 heads has 1.02 effective ones."
    severity: ClassVar[Severity] = "error"
    limits: ClassVar[dict[str, float]] = {"heads": 1.25, "share": 0.15}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"heads": (1.0, 1e6), "share": (0.0, 1.0)}
    needs = (("layers", "effective_heads"),)

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every layer below its limit."""
        where = sites(facts.report)
        for row in rows(facts.report.layers):
            count, value = int(row["heads"]), row["effective_heads"]
            limit = min(limits.values["heads"], limits.values["share"] * count)
            if known(value) and value < limit:
                heads = tuple(int(head) for head in _heads(facts, int(row["site"])))
                message = f"all {count} heads act like {value:.2f} different ones, limit {limit:.3g}"
                yield Finding(
                    code=self.code, severity=limits.severity, message=message, heads=heads, metric="effective_heads",
                    value=float(value), limit=limit, **where[int(row["site"])],
                )  # fmt: skip


def _heads(facts: Facts, site: int) -> list[int]:
    heads = facts.report.heads
    return sorted(int(head) for head in heads[heads["site"] == site]["head"])


class SameRows(Rule):
    """HP103: heads whose rows repeat each other far more than the mask makes them."""

    code = "HP103"
    name = "same-rows"
    about = (
        "`rcos` says how alike the rows of one head are. Under a causal mask uniform attention gives 0.5; a head that "
        "comes within `share` of the way from there to 1 reads the same thing for every query. Where uniform "
        "attention gives 1 itself, as under a full mask, the rule can't be asked."
    )
    rationale = (
        "Arithmetic: rows with mass m on one key, each with the rest on a key of its own, have rcos (m²/(m² + (1 - "
        "m)²))², which is 0.98 of the way from m = 0.93 on. Measured: tiny-llama reaches 0.56 of it. Sinks are "
        "common in large decoders, so this is a note."
    )
    advice = "Usually a sink: see first_mass. Prune it if its values carry nothing."
    passes = "A causal head with rcos 0.36."
    fails = "A causal head with rcos 0.995 where uniform attention has 0.5."
    severity: ClassVar[Severity] = "note"
    limits: ClassVar[dict[str, float]] = {"share": 0.98}
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"share": (0.0, 1.0)}
    needs = (("heads", "rcos"), ("heads", "rcos_excess"))

    def check(self, facts: Facts, limits: Limits) -> Iterable[Finding]:
        """A finding for every head above the limit, or one a layer."""
        limit = limits.values["share"]
        seen, asked = [], False
        for row in rows(facts.report.heads):
            if not (known(row["rcos"]) and known(row["rcos_excess"])):
                continue
            room = 1 - (row["rcos"] - row["rcos_excess"])
            asked |= room > 0.01
            if room > 0.01 and row["rcos_excess"] / room > limit:
                excess = float(row["rcos_excess"])
                message = f"rcos is {excess:.3f} above that of uniform attention, limit {limit * room:.3f}"
                seen.append(Seen(row, "rcos_excess", excess, limit * room, message, excess))
        if not asked:
            raise NotAsked("uniform attention repeats itself under these masks")
        yield from told(self.code, limits, seen, "{heads} give every query the same row")
