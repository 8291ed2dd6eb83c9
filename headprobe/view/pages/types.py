"""What heads are for, as far as their attention tells: each type, the head that shows it best, and all that have it."""

from headprobe.report import Report
from headprobe.view.document import Block, Section, Table, TableColumn
from headprobe.view.places import Places

SEEN = {
    "previous token": "each token looks at the one before it",
    "next token": "each token looks at the one after it",
    "own token": "each token looks at itself",
    "first token": "all tokens look at the first one",
    "alignment": "each token looks at one or a few of the source",
    "special tokens": "tokens look at special tokens, which stand for no word",
    "punctuation": "tokens look at punctuation",
    "local": "tokens look at their neighbours",
    "own segment": "tokens look within their own segment",
    "long-range": "tokens look far away",
    "broad": "tokens look at everything about alike",
    "induction": "each token looks at what came after the same token before",
    "duplicate token": "each token looks at the same token before it",
}
SHOWN = 12  # heads of a type by name
ABOUT = (
    "A head has a type where it goes far enough from chance to all that it could do, for most types half of the way."
    " Most heads do several things, and have none: their scores are on the map and on their cards."
)


def type_blocks(report: Report, known: Places) -> list[Block]:
    """A row a type, the most frequent first; nothing where types were not measured."""
    types = report.types
    if types.empty:
        return []
    rows, links = [], []
    clear = types[types["type"] != ""].sort_values(["value", "site", "head"], ascending=[False, True, True])
    for label, count in clear["type"].value_counts().items():
        mine = clear[clear["type"] == label]
        found = [known[key] for key in zip(mine["site"], mine["head"], strict=True)]
        more = f" +{count - SHOWN}" if count > SHOWN else ""
        heads = ", ".join(place.short for place in found[:SHOWN]) + more
        strongest = f"{found[0].short} ({mine['value'].iloc[0]:.2f})"
        rows.append((str(label), SEEN.get(str(label), ""), str(count), strongest, heads))
        links.append(found[0].name)
    none = len(types) - len(clear)
    if none:
        rows.append(("no clear type", "several things, or what depends on the text", str(none), "", ""))
        links.append("")
    columns = (
        TableColumn("type", text=True), TableColumn("what is to be seen", text=True), TableColumn("heads"),
        TableColumn("clearest", text=True), TableColumn("all of them, the clearest first", text=True),
    )  # fmt: skip
    table = Table("Types of heads", columns, tuple(rows), links={3: tuple(links)})
    return [Section("What heads are for", "types", ABOUT, "Types"), table]
