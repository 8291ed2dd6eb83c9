"""What `headprobe inspect` shows."""

from typing import Any

from headprobe.view.document import Document, Heading, Paragraph, Table, TableColumn


def plan_document(plan: dict[str, Any]) -> Document:
    """A plan's sites as a table, its needs in a sentence."""
    sites = plan["sites"]
    heads = sum(site["heads"] for site in sites)
    title = (
        f"{plan['model']} ({plan['model_class']}) · {plan['parameters']:,} parameters"
        f" · {heads} heads in {len(sites)} attention layers"
    )
    columns: tuple[str, ...] = (
        "site",
        "kind",
        "layer",
        "heads",
        "kv heads",
        "queries × keys",
        "window",
        "rows a tile",
        "path",
    )
    rows: tuple[tuple[str, ...], ...] = tuple(
        (
            str(site["index"]), site["kind"], str(site["layer"]), str(site["heads"]), str(site["kv_heads"]),
            f"{site['queries']} × {site['keys']}", str(site["window"] or ""),
            str(site["rows"]) if site["rows"] < site["queries"] else "", site["path"],
        )
        for site in sites
    )  # fmt: skip
    optional = ("window", "rows a tile")
    shown = [i for i, name in enumerate(columns) if name not in optional or any(row[i] for row in rows)]
    columns, rows = tuple(columns[i] for i in shown), tuple(tuple(row[i] for i in shown) for row in rows)
    table = Table(
        "Attention sites, in order of execution",
        tuple(TableColumn(c, text=c in ("kind", "path")) for c in columns),
        rows,
    )
    notes = tuple(Paragraph(f"Note: {note}.") for note in plan["notes"])
    return Heading(title), table, *notes, Paragraph(_needs(plan))


def _needs(plan: dict[str, Any]) -> str:
    attention = plan["peak_bytes"] - plan["weight_bytes"] - plan["sums_bytes"]
    text = (
        f"A scan of {plan['sequences']} sequences of {plan['length']} positions, {plan['batch_size']} at a time,"
        f" needs about {_bytes(plan['peak_bytes'])} of memory: {_bytes(plan['weight_bytes'])} of weights, and at most"
        f" {_bytes(attention)} for attention ({_bytes(plan['attention_bytes'])} a layer)"
    )
    if plan["kept_bytes"]:
        text += f", of which {_bytes(plan['kept_bytes'])} to compare the heads of all layers"
    if plan["sums_bytes"]:
        text += f"; and {_bytes(plan['sums_bytes'])} for the sums of what heads give"
    text += f". On this machine's CPU it will take about {_seconds(plan['seconds'])} beyond loading (estimated)."
    most = max(site["computed"] for site in plan["sites"])
    if most > 1:
        text += (
            f" No layer is held whole: {_bytes(plan['budget_bytes'])} hold the rows a tile that the table shows, and"
            f" redundancy computes each row {most:g} times in all. More --max-memory makes that fewer."
        )
    return text


def _bytes(number: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"


def _seconds(seconds: float) -> str:
    if seconds > 7200:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.0f} minutes" if seconds > 120 else f"{max(seconds, 0.1):.1f} s"
