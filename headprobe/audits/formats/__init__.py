"""Audits as text that other programs read. A format says how, never what: the exit code is the command line's."""

from collections.abc import Mapping
from importlib import import_module

from headprobe.audits.finding import Audit
from headprobe.audits.rule import Rule
from headprobe.errors import UsageError, nearest

__all__ = ["FORMATS", "SUFFIXES", "render"]

FORMATS = ("json", "junit", "sarif", "github")
SUFFIXES = {".json": "json", ".md": "markdown", ".xml": "junit", ".sarif": "sarif"}  # markdown is the view's to write


def render(audit: Audit, format: str, rules: Mapping[str, Rule]) -> str:  # noqa: A002  # the option's name
    """`audit` in one of `FORMATS`; `rules` have the texts of its codes. Raises `UsageError` for another format.

    The text holds no lone surrogate, so that every UTF encoding can write it, and is the same for the same audit.
    """
    if format not in FORMATS:
        raise UsageError("E-FORMAT", f'no audit format "{format}"', nearest(format, FORMATS))
    module = import_module(f"headprobe.audits.formats.{format}")
    return str(module.render(audit, rules))
