"""The built-in metrics and the types of heads in Markdown: docs/metrics.md."""

from headprobe.headtypes import TYPES
from headprobe.metrics import METRICS, Metric
from headprobe.view.catalogue import TITLES, about, described_row

INTRODUCTION = """# Metrics

Written by `headprobe.view.metrics_page.page()` from the metrics themselves (`make docs`); a test holds this file to it.

Every number is a mean over what the model did on your texts, taken from the exact attention probabilities. A row of
attention is how one query shares its attention, 1 in all, among the keys that it may see; s is how many those are.
Padding is never counted. What is undefined is empty, never 0.

* **table**: `heads` has a row a head, `layers` a row a layer of attention, `pairs` a row two heads.
* **range**: what the number can be at all. Judge it against **uniform attention** under the same mask, which looks
  nowhere in particular: that is its baseline, and the report's table `baselines` has it for each layer.
* **unit**: divergences and entropies are in nats (1 nat is 1.44 bits), distances in tokens; a mass is a share of a row.
* Columns marked * are kept by sequence too, so that `headprobe compare` can test whether they changed.

`headprobe metrics NAME` shows the same on a terminal, with the metrics of installed plug-ins. `--metrics rcos,js`
measures some of them alone.
"""
NULLS = """## Baselines: what would be there without training

Uniform attention is the first thing to compare with, and it is in every report. `--null` measures three more, beside
the model and on the same inputs:

| `--null` | is | tells |
|---|---|---|
| `random-init` | the same architecture with fresh weights | what the architecture alone has |
| `random-tokens` | the model on random tokens | what does not depend on language |
| `shuffled` | the model on its texts in random order | what does not depend on the order of words |

The table of the report has the excess over the null model, and z, the excess in standard deviations of its draws
(`--null-runs`).
"""
READ = {
    "validity": "Nothing about heads: numbers that are not 0 here are a fault of the model or of headprobe. Exact"
    " zeros inside the support are normal at low precision and in models with hard attention.",
    "redundancy": "Do a head's queries read different things? rcos near that of uniform attention: they all read the"
    " same mixture, so the head adds about the same vector everywhere (a sink, or broad attention). Well below it:"
    " what is read depends on the token. rcos_excess above 0 means more alike than the mask alone makes them.",
    "penalty": "Do heads of one layer read different things for the same query? It is the loss of Lin et al.; low"
    " for heads that are sharp and apart. It mixes sharpness with likeness, so compare layers by js_mean or"
    " effective_heads.",
    "entropy": "How many keys a query looks at. entropy_norm near 1 is uniform attention over whatever is visible,"
    " near 0 one key. eff_keys says the same as a number of keys, which grows with the length of the texts.",
    "position": "Where a head looks, by place alone. 0.5 or more on one place is a clear habit. Much on the first or"
    " on special tokens mostly means that the head rests (a sink): it need not be reading them.",
    "regions": "Where a head looks, by kind of key. Texts that are shorter than 32 tokens have no far mass.",
    "alignment": "Does a cross-attention head follow the source, word for word (translation) or in time (speech)?"
    " one_to_one alone is high for any head that spreads its queries over different keys; the order makes it an"
    " alignment.",
    "induction": "Can a head find what came before in the same text and look at what followed? It shows on repeated"
    " random tokens (--probe); on ordinary texts such heads mostly rest on the first token.",
    "kl": "How badly one head's attention stands for another's; not symmetric. A head that is sharp where the other"
    " is broad has a large KL one way and a small one the other.",
    "js": "The project's measure of likeness: below 0.02 two heads are near copies, 0.69 is nothing in common."
    " Groups, trees and nearest heads come from it.",
    "cosine": "Likeness that looks at the large weights most: two heads that share a sink are alike by it, whatever"
    " else they do.",
    "bhattacharyya": "Likeness that looks at small weights too. Between cosine and JS; 1 - bc is a squared distance.",
    "cka": "Do two heads hold the same features, whatever they look at? Near 1: one is the other, rotated and scaled,"
    " which the output projection can undo. Low JS with low cka: same places, other content.",
    "ocos": "Do two heads write the same to the residual stream? Near 1: one could stand in for the other, scaled."
    " Below 0: they work against each other.",
    "norms": "Where does what a head moves come from? Mass that is large in position and small here was on keys of"
    " which the head takes next to nothing: a rest, not a reading.",
    "effective": "How many different heads a layer amounts to. Fresh weights have hardly more than 1: a low number"
    " is only then a loss when the same layer had more before.",
}


def page() -> str:
    """All of them, in the order of the registry."""
    return "\n".join([INTRODUCTION, _contents(), *map(_section, METRICS.values()), _types(), NULLS])


def _contents() -> str:
    rows = [f"| [{name}](#{name}) | {about(metric).split('. ')[0].rstrip('.')} |" for name, metric in METRICS.items()]
    return "\n".join(["| metric | in short |", "|---|---|", *rows, "| [types](#types) | What a head is for |", ""])


def _section(metric: Metric) -> str:
    rows = [[*described_row(column)] for column in metric.columns]
    for row, column in zip(rows, metric.columns, strict=True):
        row[0] = f"`{row[0]}`" + (" *" if column.paired else "")
    table = ["| " + " | ".join(map(_cell, row)) + " |" for row in (TITLES, ["---"] * len(TITLES), *rows)]
    return "\n".join(
        [
            f"## {metric.name}\n",
            f"{about(metric)}\n",
            *table,
            "",
            *([f"**What it tells.** {READ[metric.name]}\n"] if metric.name in READ else []),
            f"**Formula.** {metric.formula}\n",
            f"**Baseline (uniform attention).** {metric.baseline}.\n",
            f"**Source.** {metric.source}\n",
        ]
    )


def _types() -> str:
    rows = [
        f"| {one.label} | `{one.score}` | `{one.column}` | {one.limit:g}{' (of the value)' if one.of_value else ''}"
        f" | {one.why} |"
        for one in TYPES
    ]
    return "\n".join(
        [
            "## types\n",
            "What a head is for, in the table `types`: a score for each type, which is the quantity minus what uniform"
            " attention has (chance), and a label where the head goes far enough from chance to 1. Of several types"
            " whose limit is reached the label is the first of this list; many heads have none.\n",
            "| type | score | from | limit | why that limit |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
