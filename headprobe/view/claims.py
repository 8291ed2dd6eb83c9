"""What `headprobe bench penalty-vs-kl` shows."""

from typing import Any

from headprobe.view.document import Document, Heading, Paragraph, Table, TableColumn

COSTS = ("queries × heads × keys", "written as", "passes", "penalty", "KL", "KL / penalty", "quartiles")


def claims_document(found: dict[str, Any]) -> Document:
    """Two tables, and what they do and don't say."""
    threads = found["threads"]
    setting = (
        f"{found['dtype']}, {threads} thread{'s' if threads > 1 else ''}, {found['machine']}, torch {found['torch']}"
    )
    return (
        Heading(f"Lin et al.'s penalty and Kullback-Leibler divergence · {setting}"),
        _costs(found),
        Paragraph(_dear(found["costs"])),
        _descents(found["descents"]),
        Paragraph(_unstable(found["descents"])),
    )


def _costs(found: dict[str, Any]) -> Table:
    rows = tuple(
        (
            f"{cost['queries']} × {cost['heads']} × {cost['keys']}", cost["style"], cost["passes"],
            f"{cost['penalty_ms']:.3g} ms", f"{cost['kl_ms']:.3g} ms", f"{cost['ratio']:.2f}",
            f"{cost['low']:.2f} to {cost['high']:.2f}",
        )
        for cost in found["costs"]
    )  # fmt: skip
    columns = tuple(TableColumn(name, text=name in ("written as", "passes")) for name in COSTS)
    return Table(f"What all pairs of heads cost, medians of {found['repetitions']}", columns, rows)


def _dear(costs: list[dict[str, Any]]) -> str:
    equal = [cost["ratio"] for cost in costs if cost["style"].startswith("both")]
    mixed = [cost["ratio"] for cost in costs if cost["style"] == "penalty a matrix, KL a loop"]
    sums = [cost["ratio"] for cost in costs if cost["style"] == "penalty a matrix, KL by sums"]
    return (
        "It is said that KL costs three times as much. Here, in code of one style it costs"
        f" {min(equal):.1f} to {max(equal):.1f} times as much; a loop over pairs against a matrix product,"
        f" {min(mixed):.0f} to {max(mixed):.0f} times; each in the cheapest exact form known to us,"
        f" {min(sums):.1f} to {max(sums):.1f} times. Both start from probabilities, KL takes its logarithms in this"
        " time; no model is part of it, and the ratios are of this machine and these shapes."
    )


def _descents(descents: list[dict[str, Any]]) -> Table:
    steps = descents[0]["steps"]
    names = (
        "objective",
        *(f"step {step}" for step in steps),
        "best possible",
        "|gradient|",
        "largest |logit|",
        "outcome",
    )
    rows = tuple(
        (
            each["objective"], *(_number(value) for value in each["values"]),
            "none" if each["bound"] is None else _number(each["bound"]),
            _number(each["gradient_norm"]), _number(each["largest_logit"]), each["behaviour"],
        )
        for each in descents
    )  # fmt: skip
    kept = {1, len(steps)}  # the first and the last step are shown on the narrowest page
    columns = tuple(
        TableColumn(
            name, rank=0 if i in kept or not name.startswith("step") else 1, text=name in ("objective", "outcome")
        )
        for i, name in enumerate(names)
    )
    return Table(f"Where gradient steps on logits lead, medians of {descents[0]['seeds']} seeds", columns, rows)


def _unstable(descents: list[dict[str, Any]]) -> str:
    by_kind: dict[str, list[str]] = {}
    for each in descents:
        by_kind.setdefault(each["behaviour"], []).append(each["objective"])
    told = ". ".join(f"{behaviour.capitalize()}: {'; '.join(names)}" for behaviour, names in by_kind.items())
    broken = next((each for each in descents if each["broken"]), None)
    text = f"Float32, 4 heads on 8 keys, one query. {told}."
    if broken is not None:
        text += (
            f" The gradient of {broken['objective'].removeprefix('maximise ')} is first not finite at steps"
            f" {broken['from_step']} to {broken['to_step']}, in {broken['broken']} of {broken['seeds']} seeds."
        )
    return text + (
        " KL has no largest value, so maximising it has no end: zeros, and the epsilon against them, are what that"
        " looks like. This is the objective alone: a task's loss beside it may hold heads back."
    )


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"
