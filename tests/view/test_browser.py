"""Pages in a real browser: nothing fails or is fetched, and all of it works by mouse, keyboard and without script."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from headprobe.view.html import page as written
from headprobe.view.saved import page_of
from tests.view.browsing import CHROMIUM, SIZES, Shown, opened
from tests.view.made import HOSTILE, made
from tests.view.results import NAMES, show
from tests.view.test_page import full_of

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: apt-get install chromium"),
    pytest.mark.slow,
]
MANY_ROWS = {"exclude": ["#numbers tbody tr:nth-child(n+13)"]}  # they are like the first twelve, and take long
RULES = {  # a theme changes colours alone
    "light": {"resultTypes": ["violations"]},
    "dark": {"resultTypes": ["violations"], "runOnly": ["color-contrast"]},
}
CUT = """() => [...document.querySelectorAll('h1,h2,h3,p,li,label,button,dt,dd,summary,caption,th')]
  .filter(e => e.offsetParent && !e.closest('.v') && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
  .map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"""


TOLD = 0.0045  # half a step of a byte where numbers can be negative, and of three decimals


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_fails_is_fetched_or_is_hard_to_use(browser: Browser, folder: Path, name: str, theme: str) -> None:
    shown = show(browser, folder, name, color_scheme=theme)
    found = Axe().run(shown.page, MANY_ROWS, RULES[theme]).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")] == []
    assert shown.noise == []
    shown.page.context.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut(browser: Browser, folder: Path, name: str, size: str) -> None:
    shown = show(browser, folder, name, size=size)
    assert shown.page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]
    assert shown.page.evaluate(CUT) == []
    if shown.page.locator(".map td a").count():
        shown.one(".map td a").click()
        assert shown.one("#card").is_visible()
        assert shown.page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]
        assert shown.page.evaluate(CUT) == []
    assert shown.noise == []
    shown.page.context.close()


@pytest.fixture
def shown(browser: Browser, folder: Path) -> Iterator[Shown]:
    found = show(browser, folder, "made")
    yield found
    assert found.noise == []
    found.page.context.close()


def test_measures_are_chosen_by_list_and_by_picture(shown: Shown) -> None:
    heads = made(6, 12).heads
    number = next(i for i in range(99) if "first_mass:" in shown.page.locator(".measure option").nth(i).inner_text())
    shown.page.locator(".measure").select_option(index=number)
    assert shown.text(".map td a") == f"{heads['first_mass'][0]:.2f}"
    assert shown.one(".heads .thumbs [aria-pressed=true]").inner_text() == "first_mass"
    shown.page.locator(".heads .thumbs button", has_text="rcos_excess").click()
    assert shown.text(".map td a") == f"{heads['rcos_excess'][0]:.2f}"
    assert re.search(r"\bd\d+", str(shown.one(".map tbody td").get_attribute("class")))
    assert shown.text(".heads .legend .low").startswith("-")


def test_values_are_told_under_the_pointer(shown: Shown) -> None:
    shown.page.locator(".map td a").nth(13).hover()
    value = made(6, 12).heads["rcos"][13]
    assert shown.text(".heads .readout") == f"layer 1 head 1: rcos {value:.3f}; uniform attention has 1.000."


def test_the_map_by_keyboard(shown: Shown) -> None:
    shown.one(".map td a").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft", "Enter"):
        shown.page.keyboard.press(key)
    assert shown.focused == "Layer 1 head 1"
    assert shown.page.url.endswith("#layer-1-head-1")
    shown.page.keyboard.press("Escape")
    assert not shown.one("#card").is_visible()
    assert shown.page.evaluate("document.activeElement.hash") == "#layer-1-head-1"
    shown.page.keyboard.press("End")
    assert shown.page.evaluate("document.activeElement.hash") == "#layer-1-head-11"


def test_a_card_has_what_was_measured(shown: Shown) -> None:
    found = made(6, 12)
    shown.page.locator(".map td a").nth(31).click()
    card = shown.text("#card")
    assert "Layer 2 head 7" in card
    row = found.heads.iloc[31]
    assert f"layer {row['nearest_layer']} head {row['nearest_head']}" in card
    assert f"JS {row['nearest_js']:.3f}" in card
    assert f"{row['self_mass']:.2f}" in card
    mine = found.sequences[(found.sequences["site"] == 2) & (found.sequences["head"] == 7)]
    assert f"sequence {mine.sort_values('confidence')['sequence'].iloc[-1]}" in card
    shown.page.locator("#card ul a").first.click()
    assert f"Layer {row['nearest_layer']} head {row['nearest_head']}" in shown.text("#card")
    shown.page.locator("#card button").click()
    assert not shown.one("#card").is_visible()
    assert "#" not in shown.page.url


def test_a_link_to_a_head_shows_it(browser: Browser, folder: Path) -> None:
    shown = show(browser, folder, "tiny-bart", hash="#cross-layer-1-head-3")
    assert "Cross layer 1 head 3" in shown.text("#card")
    assert shown.page.locator(".map td.on").count() == 1
    assert shown.noise == []
    shown.page.context.close()


def test_tables_are_sorted(shown: Shown) -> None:
    table = shown.page.locator("#numbers table")
    title = table.locator("th", has_text="entropy").first
    cells = [table.locator(f"tbody td:nth-child({6})")][0]
    title.locator("button").click()
    values = [float(text) for text in cells.all_inner_texts()]
    assert title.get_attribute("aria-sort") == "descending"
    assert values == sorted(values, reverse=True)
    title.locator("button").focus()
    shown.page.keyboard.press("Enter")
    assert title.get_attribute("aria-sort") == "ascending"
    assert [float(text) for text in cells.all_inner_texts()] == sorted(values)


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        ("rcos > 0.5", lambda heads: (heads["rcos"].round(3) > 0.5).sum()),
        ("layer = 3 head <= 4", lambda heads: ((heads["layer"] == 3) & (heads["head"] <= 4)).sum()),
        ("JS mean < 0.3 layer=1", lambda heads: ((heads["js_mean"].round(3) < 0.3) & (heads["layer"] == 1)).sum()),
        ("nothing of this", lambda heads: 0),
        ("nosuch > 1", lambda heads: 0),
        ("", lambda heads: len(heads)),
    ],
)
def test_tables_are_filtered(shown: Shown, wanted: str, rows: object) -> None:
    assert callable(rows)
    left = rows(made(6, 12).heads)
    shown.page.locator("#numbers input").fill(wanted)
    assert shown.page.locator("#numbers tbody tr:visible").count() == left
    assert shown.text("#numbers output").startswith(f"{left} ")


def told(shown: Shown) -> tuple[tuple[int, ...], float]:
    """The four numbers of two heads, and the value, that the matrix tells."""
    text = shown.text(".similarity .readout")
    found = re.fullmatch(r"layer (\d+) head (\d+) and layer (\d+) head (\d+): \w+ (-?[\d.]+)\.", text)
    assert found, text
    return tuple(map(int, found.groups()[:4])), float(found[5])


@pytest.mark.parametrize("quantity", ["js", "cos", "ocos"])
@pytest.mark.parametrize("scope", ["The whole model", "Layer 4"])
def test_the_matrix_tells_the_report_s_numbers(shown: Shown, scope: str, quantity: str) -> None:
    exact = made(6, 12).matrix(quantity).to_numpy()
    shown.page.locator(".scope").select_option(label=scope)
    shown.page.locator(".quantity").select_option(label=quantity)
    canvas = shown.one(".square canvas:not([aria-busy])")
    canvas.focus()
    for _ in range(3):
        for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
            canvas.press(key)
        (layer_a, head_a, layer_b, head_b), value = told(shown)
        assert value == pytest.approx(exact[12 * layer_a + head_a, 12 * layer_b + head_b], abs=TOLD)
        assert {layer_a, layer_b} == {4} or scope != "Layer 4"
    canvas.hover(position={"x": 5, "y": 200})
    (layer_a, head_a, layer_b, head_b), value = told(shown)
    assert value == pytest.approx(exact[12 * layer_a + head_a, 12 * layer_b + head_b], abs=TOLD)
    canvas.press("Enter")
    assert shown.focused == f"Layer {layer_a} head {head_a}"


def test_every_control_is_reached_with_the_tab_key(browser: Browser, folder: Path) -> None:
    shown = show(browser, folder, "several")
    shown.page.evaluate(
        """() => { window.seen = new Set();
        document.addEventListener('focusin', event => window.seen.add(event.target)); }"""
    )
    controls = shown.page.evaluate(
        """() => [...document.querySelectorAll('button,select,input,summary,canvas,a')]
        .filter(e => e.checkVisibility() && !e.matches(':disabled, .map a, details a')).length"""
    )
    for _ in range(controls + 60):
        shown.page.keyboard.press("Tab")
    missed = shown.page.evaluate(
        """() => [...document.querySelectorAll('button,select,input,summary,canvas,a')]
        .filter(e => e.checkVisibility() && !e.matches(':disabled, .map a, details a') && !window.seen.has(e))
        .map(e => e.outerHTML.slice(0, 100))"""
    )
    assert missed == []
    assert shown.page.evaluate("[...window.seen].filter(e => e.matches('.map a')).length") == 2  # one a map
    shown.page.context.close()


def test_the_theme_is_the_system_s_until_somebody_chooses(browser: Browser, folder: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    shown = show(browser, folder, "audit", color_scheme="dark")
    assert shown.page.evaluate(ground) == "rgb(18, 20, 24)"
    assert shown.text("#theme") == "Light"
    shown.one("#theme").press("Enter")
    assert shown.page.evaluate(ground) == "rgb(250, 250, 248)"
    assert shown.text("#theme") == "Dark"
    shown.page.context.close()


def test_without_a_script_everything_can_be_read(browser: Browser, folder: Path) -> None:
    shown = show(browser, folder, "made", java_script_enabled=False)
    assert shown.page.locator("#numbers tbody tr:visible").count() == 72
    assert shown.page.locator(".map td a:visible").count() == 72
    assert shown.page.locator(".square img").is_visible()
    assert shown.page.locator(".controls:visible, #theme:visible").count() == 0
    shown.page.locator(".map td a").nth(31).click()
    assert shown.page.locator("tr:target").get_attribute("id") == "layer-2-head-7"
    assert shown.noise == []
    shown.page.context.close()


@pytest.mark.parametrize("name", ["tiny-bart", "tiny-llama", "comparison", "audit", "large"])
def test_paper_is_white_and_has_no_controls(browser: Browser, folder: Path, name: str) -> None:
    shown = show(browser, folder, name, color_scheme="dark")
    shown.page.emulate_media(media="print")
    assert shown.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert shown.page.locator(".bar:visible, .controls:visible, input:visible, .groups:visible").count() == 0
    for scroll in shown.page.locator(".scroll").all():
        assert scroll.evaluate("e => e.scrollHeight <= e.clientHeight + 1")
    shown.page.set_viewport_size({"width": 718, "height": 1000})  # A4 between its margins
    assert shown.page.evaluate("document.documentElement.scrollWidth") == 718
    shown.page.context.close()


@pytest.mark.parametrize("size", SIZES)
def test_hostile_text_does_nothing(browser: Browser, folder: Path, size: str) -> None:
    path = folder / "hostile.html"
    path.write_text(written([full_of(text) for text in HOSTILE]), encoding="utf-8")
    shown = opened(browser, path, size=size)
    for link in shown.page.locator(".map td a").all()[:: 8 * 3]:
        link.click()
    assert shown.page.evaluate("window.hurt") is None
    assert shown.noise == []
    assert shown.page.evaluate("document.documentElement.scrollWidth") == SIZES[size][0]
    assert "<img src=x onerror=window.hurt=1>" in shown.page.locator("h1").all_inner_texts()
    shown.page.context.close()


def test_the_card_closes_and_opens_with_the_history(shown: Shown) -> None:
    shown.page.locator(".map td a").nth(3).click()
    shown.page.locator(".map td a").nth(15).click()
    shown.page.go_back()
    assert "Layer 0 head 3" in shown.text("#card")
    shown.page.go_back()
    assert not shown.one("#card").is_visible()
    shown.page.go_forward()
    assert "Layer 0 head 3" in shown.text("#card")


@pytest.mark.parametrize("address", ["#%", "#%E0%A4%A", "#layer-99-head-0", "#r1-layer-0-head-0", "#<script>"])
def test_a_link_to_nothing_is_the_page(browser: Browser, folder: Path, address: str) -> None:
    shown = show(browser, folder, "made", hash=address)
    assert not shown.one("#card").is_visible()
    assert shown.noise == []
    shown.page.context.close()


def test_a_link_to_a_part_closes_the_card_and_keeps_the_focus(shown: Shown) -> None:
    shown.page.locator(".map td a").nth(3).click()
    shown.page.locator('.bar a[href="#pairs"]').press("Enter")
    assert not shown.one("#card").is_visible()
    assert shown.page.url.endswith("#pairs")
    assert shown.page.evaluate("document.activeElement.closest('.map')") is None


def test_an_empty_page_is_a_page(browser: Browser, folder: Path) -> None:
    path = folder / "few.html"
    lonely = made(1, 1)
    path.write_text(written([page_of(replace(lonely, pairs=lonely.pairs.head(0)))]), encoding="utf-8")
    shown = opened(browser, path)
    assert shown.noise == []
    shown.page.context.close()


@pytest.mark.parametrize("size", SIZES)
def test_tokens_of_examples_stay_in_their_picture(browser: Browser, folder: Path, size: str) -> None:
    shown = show(browser, folder, "examples", size=size)
    assert shown.page.evaluate(
        """() => [...document.querySelectorAll('.strip text')].filter(text => {
            const [mine, room] = [text, text.ownerSVGElement].map(e => e.getBoundingClientRect());
            return mine.left < room.left || mine.right > room.right || mine.bottom > room.bottom;
        }).map(text => text.textContent)"""
    ) == []  # fmt: skip
    assert shown.page.evaluate("window.hurt") is None
    shown.page.context.close()
