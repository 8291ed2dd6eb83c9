"""What changed between two models, in sentences."""

from dataclasses import dataclass
from typing import Self

import pandas as pd

from headprobe.comparison import Comparison
from headprobe.view.document import Place, TableColumn
from headprobe.view.places import stack_names

SIGNIFICANT = 0.05  # of q: so many of a quantity's discoveries are false on average
STILL = 1e-6  # nats of JS: rounding
# Quantities that say again what another one says.
SAID_BY = {"rcos_excess": "rcos", "entropy": "entropy_norm", "kl_mean": "js_mean"}


@dataclass(frozen=True)
class Places:
    """What sites are called: by site its stack (the kind of attention, with the tower where several have that kind)."""

    stacks: dict[int, str]
    layers: dict[int, int]

    @classmethod
    def of(cls, comparison: Comparison) -> Self:
        """The sites of a comparison."""
        sites = comparison.heads.drop_duplicates("site")
        names = zip(sites["site"], stack_names(sites), strict=True)
        return cls(dict(names), dict(zip(sites["site"], sites["layer"], strict=True)))

    @property
    def several(self) -> bool:
        """True if a layer's number alone does not name it."""
        return len(set(self.stacks.values())) > 1

    @property
    def columns(self) -> list[TableColumn]:
        """What names a site in a table."""
        return [*[TableColumn("kind", text=True)] * self.several, TableColumn("layer")]

    def cells(self, site: int) -> list[str]:
        """A site's name in a table."""
        return [*[self.stacks[site]] * self.several, str(self.layers[site])]

    def place(self, site: int, head: int) -> Place:
        """A head's place."""
        return Place(site, self.layers[site], head, self.stacks[site] if self.several else "")

    def words(self, site: int) -> str:
        """A site's name in a sentence: "layer 3"."""
        return f"{self.stacks[site]} layer {self.layers[site]}" if self.several else f"layer {self.layers[site]}"


def matched(comparison: Comparison) -> bool:
    """True if heads stand beside the heads most like them and not beside those in the same place."""
    return "tuned_head" in comparison.heads


def summary(comparison: Comparison, places: Places) -> str:
    """How many heads changed and where most, and how far their attention drifted."""
    return " ".join(sentences(comparison, places))


def sentences(comparison: Comparison, places: Places) -> list[str]:
    """The summary, a sentence each."""
    if matched(comparison):
        js = comparison.heads.drop_duplicates(["site", "head"])["js"]
        return [
            f"{len(js)} heads were matched with the heads of {comparison.tuned.model} that attend most like them:"
            f" JS of a pair is {js.mean():.3g} nats on average, {js.min():.3g} to {js.max():.3g}."
        ]
    return [sentence for sentence in (*_changed(comparison, places), _moved(comparison, places)) if sentence]


def _changed(comparison: Comparison, places: Places) -> list[str]:
    heads = comparison.heads[comparison.heads["p"].notna()]
    if heads.empty:
        return []
    found = heads[heads["q"] < SIGNIFICANT]
    number, tested = heads["metric"].nunique(), len(heads.drop_duplicates(["site", "head"]))
    quantities = f"{number} {'quantity' if number == 1 else 'quantities'}"
    if not any_change(heads):
        return ["Nothing changed: every head has the same numbers in both models."]
    if found.empty:
        return [
            f"No head changed significantly (q < {SIGNIFICANT}) in any of {quantities} over"
            f" {heads['sequences'].max()} sequences."
        ]
    changed = found.drop_duplicates(["site", "head"])
    most = said_once(found).groupby("metric", sort=False).size().idxmax()
    of_most = found[found["metric"] == most]
    rising = int((of_most["mean_change"] > 0).sum())
    sentence = (
        f"{len(changed)} of {tested} heads changed in at least one of {quantities}"
        f" (q < {SIGNIFICANT} among all heads of a quantity){_most_of_all(comparison, places, changed)}."
    )
    return [
        sentence,
        f"Most changed in {most}: {rising} heads rose and {len(of_most) - rising} fell, by"
        f" {of_most['change'].abs().median():.3g} in the median.",
    ]


def any_change(heads: pd.DataFrame) -> bool:
    """True if anything changed at all."""
    return bool((heads[["change", "mean_change"]].fillna(0) != 0).to_numpy().any())


def said_once(heads: pd.DataFrame) -> pd.DataFrame:
    """The rows but those of quantities that say again what another one says."""
    names = set(heads["metric"])
    return heads[[SAID_BY.get(name) not in names for name in heads["metric"]]]


def _most_of_all(comparison: Comparison, places: Places, changed: pd.DataFrame) -> str:
    counts = changed.groupby("site").size()
    total = comparison.heads.groupby("site")["head"].nunique()
    shares = counts.reindex(total.index, fill_value=0) / total
    if shares.nunique() == 1:
        return ""
    site = int(shares.index[int(shares.to_numpy().argmax())])
    return f", most in {places.words(site)} ({counts.loc[site]} of {total.loc[site]})"


def _moved(comparison: Comparison, places: Places) -> str:
    drift = comparison.drift
    if drift.empty or drift["js"].isna().all():
        return ""
    if drift["js"].max() < STILL:
        return "The attention itself did not move."
    furthest = drift[drift["js"] == drift["js"].max()].iloc[0]
    mass = "" if drift["tv"].isna().all() else f" ({100 * drift['tv'].mean():.1f} % of the attention goes elsewhere)"
    return (
        f"The attention itself drifted by {drift['js'].mean():.3g} nats of JS on average{mass}, furthest in"
        f" {places.words(furthest['site'])} head {furthest['head']} ({furthest['js']:.3g})."
    )
