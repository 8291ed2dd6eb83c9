"""What a page rests on: what was measured, on what, with what, and what it can't tell."""

from collections.abc import Mapping, Sequence
from typing import Any

from headprobe.report import Provenance
from headprobe.view.document import Block, Facts, Paragraph, Section
from headprobe.view.pages.words import shown_name

LIMITS = (
    "Similar attention is not the same as no use: heads that look at the same tokens can write different things. Test a"
    " head's removal before you remove it.\n"
    "What a head looks at is not why the model answers as it does.\n"
    "All numbers depend on the texts that the model read. Other texts, above all short or random ones, give other"
    " numbers."
)


def noted(notes: Sequence[str]) -> list[Block]:
    """What a reader must know besides, a sentence each."""
    return [Paragraph("\n".join(f"Note: {note.rstrip('.')}." for note in notes))] if notes else []


def rests_on(*known: Facts) -> list[Block]:
    """The end of every page: what it rests on, and what no page like this can tell."""
    return [
        Section("What this rests on", "evidence", short="Evidence"),
        *known,
        Section("What this can't tell", "limits", short="Limits"),
        Paragraph(LIMITS),
    ]


def facts(title: str, provenance: Provenance, **more: str) -> Facts:
    """Everything that is known of a model, its inputs and the options; paths without the machine's folders."""
    entries = [
        ("model", shown_name(provenance.model)),
        ("class", provenance.model_class),
        ("commit", provenance.commit or ""),
        ("computed in", " on ".join(filter(None, (provenance.dtype, provenance.device)))),
        ("read", _words(provenance.corpus)),
        ("options", _words(provenance.options)),
        ("versions", _words(provenance.versions)),
        *((name.replace("_", " "), value) for name, value in more.items()),
        *((f"SHA-256 of {shown_name(name)}", value) for name, value in provenance.files.items()),
    ]
    return Facts(title, tuple((name, value) for name, value in entries if value))


def _words(values: Mapping[str, Any]) -> str:
    """Names and values on one line, without those that say nothing."""
    told = {name: value for name, value in values.items() if value not in (None, "", [], False, ())}
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in told.items())


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_value(each) for each in value)
    if isinstance(value, bool):
        return "yes"  # what is not so is not told
    return shown_name(value) if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else str(value)
