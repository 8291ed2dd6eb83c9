"""A scan in words: three sentences for somebody who reads nothing else, numbers to remember, and what to do next."""

import math
import shlex
from pathlib import PurePosixPath, PureWindowsPath

from headprobe.report import Report
from headprobe.view.document import Step, Summary
from headprobe.view.likeness import least_diverse, near_copies
from headprobe.view.wording import counted

FEW = 32  # sequences: with fewer the twenty most similar pairs change by a tenth when the texts do
LOOKS = {
    "first_mass": "the first token", "prev_mass": "the token before", "self_mass": "the token itself",
    "next_mass": "the token after",
}  # fmt: skip
HALF = 0.5
LITTLE = 0.02  # of a head's attention
MOST_TYPES = 4


def shown_name(name: str) -> str:
    """A model's or file's name without the folders of the machine that it lies on."""
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(name)
        if path.is_absolute():
            return path.name or name
    return name


def scan_summary(report: Report) -> Summary:
    """What a scan found."""
    said = [_watched(report), _repeats(report), _looks(report)]
    return Summary(tuple(filter(None, said)), tuple(_figures(report)), tuple(_steps(report)))


def compared_across(report: Report) -> bool:
    """True if pairs of heads in different layers were measured."""
    pairs = report.pairs
    return bool(len(pairs)) and bool((pairs["site_a"] != pairs["site_b"]).any())


def _watched(report: Report) -> str:
    corpus = report.provenance.corpus
    heads, layers = len(report.heads), len(report.layers)
    sentence = (
        f"{shown_name(report.provenance.model)} ({report.provenance.model_class}) has"
        f" {counted(heads, 'attention head')} in {counted(layers, 'layer')}"
    )
    if not corpus.get("sequences"):
        return f"{sentence}."
    tokens = f" ({corpus['tokens']:,} tokens)" if corpus.get("tokens") else ""
    return f"{sentence}, watched on {counted(corpus['sequences'], 'sequence')}{tokens}."


def _repeats(report: Report) -> str:
    near, least = near_copies(report), least_diverse(report)
    where = "in the whole model" if compared_across(report) else "in their layer"
    parts = []
    if near is not None:
        none = "No head nearly repeats another one" if near == 0 else ""
        some = f"{near} of {len(report.heads)} heads nearly {'repeats' if near == 1 else 'repeat'} another one"
        parts.append(f"{none or some} {where}")
    if least is not None:
        parts.append(f"{'the' if parts else 'The'} {least.words}")
    return f"{'; '.join(parts)}." if parts else ""


def _looks(report: Report) -> str:
    heads = report.heads
    means = {name: float(heads[name].mean()) for name in LOOKS if name in heads and heads[name].notna().any()}
    if not means:
        return ""
    beyond = {name: mean - _chance(report, name) for name, mean in means.items()}
    name = max(beyond, key=lambda each: beyond[each])
    share = (
        f"On average {100 * means[name]:.0f} % of a head's attention goes to {LOOKS[name]}"
        if beyond[name] >= LITTLE
        else "On average no fixed place gets much more of a head's attention than uniform attention would give it"
    )
    strong = {each: int((heads[each] > HALF).sum()) for each in means}
    told = [f"{count} to {LOOKS[each]}" for each, count in strong.items() if count]
    clear = _types(report)
    if clear:
        return f"{share}; {clear}."
    if not told:
        return f"{share}, and no head gives more than half of its attention to one fixed place."
    return f"{share}; heads that give more than half of it to one fixed place: {', '.join(told)}."


def _chance(report: Report, name: str) -> float:
    """What uniform attention has on average; 0 where that was not measured."""
    mean = float(report.baselines[name].mean()) if name in report.baselines else math.nan
    return 0.0 if math.isnan(mean) else mean


def _types(report: Report) -> str:
    """What heads are for, where a report says so: the most frequent types."""
    types = report.types
    if "type" not in types or (types["type"] == "").all():
        return ""
    known = types["type"][types["type"] != ""]
    counts = known.value_counts()
    named = [f"{count} {name}" for name, count in counts.head(MOST_TYPES).items()]
    rest = int(counts[MOST_TYPES:].sum())
    more = [f"{rest} of other types"] if rest else []
    return f"what a head is for is clear for {len(known)} of {len(report.heads)}: {', '.join([*named, *more])}"


def _figures(report: Report) -> list[tuple[str, str]]:
    near, layers = near_copies(report), report.layers
    figures = [
        (f"{len(report.heads):,}", "head" if len(report.heads) == 1 else "heads"),
        (f"{len(layers):,}", f"layer{'' if len(layers) == 1 else 's'} of attention"),
    ]
    if near is not None:
        figures.append((f"{near:,}", "nearly repeat another head"))
    if least_diverse(report) is not None:
        figures.append(
            (f"{layers['effective_heads'].mean():.1f}", f"different heads a layer, of {layers['heads'].mean():.3g}")
        )
    return figures


def _steps(report: Report) -> list[Step]:
    model = shlex.quote(shown_name(report.provenance.model))
    steps = []
    if report.provenance.corpus.get("sequences", FEW) < FEW:
        steps.append(Step(f"Scan more texts: with fewer than {FEW} the order of heads still changes."))
    if near_copies(report):
        steps.append(
            Step(
                "Start with the most similar pairs below, and test what the model loses without one of each before"
                " you remove any: similar attention is not the same as no use."
            )
        )
    if not compared_across(report) and len(report.layers) > 1 and not report.pairs.empty:
        steps.append(Step("Compare heads across layers too.", f"headprobe scan {model} --pairs model -o report.html"))
    if report.null_layers.empty:
        steps.append(
            Step(
                "Ask how much of this a model with random weights would have too.",
                f"headprobe scan {model} --null random-init -o report.html",
            )
        )
    steps.append(
        Step(
            "Keep this scan as the baseline of an audit, so that a later version that changed is noticed.",
            f"headprobe audit NEW_VERSION --baseline {model}",
        )
    )
    return steps
