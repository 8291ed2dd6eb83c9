"""headprobe plot."""

import re
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.view.made import made
from tests.view.test_page import compared

STARTS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reports and a comparison."""
    folder = tmp_path_factory.mktemp("saved")
    made(4, 6, model="a $x^2$ <b>").save(folder / "report.json")
    made(1, 2).save(folder / "small.json")
    made(8, 12).save(folder / "large.json")
    compared().save(folder / "changes.json")
    return folder


@pytest.mark.parametrize("suffix", STARTS)
@pytest.mark.parametrize(
    ("kind", "of", "more"),
    [
        ("heatmap", "report", ()),
        ("heatmap", "large", ("--metric", "rcos_excess")),
        ("heatmap", "changes", ("--metric", "rcos")),
        ("matrix", "report", ("--part", "layer 2", "--metric", "cos")),
        ("matrix", "large", ()),
        ("dendrogram", "report", ()),
        ("map", "report", ()),
        ("compare", "changes", ()),
    ],
)
def test_every_kind_is_drawn(
    run: Run, saved: Path, tmp_path: Path, kind: str, of: str, more: tuple[str, ...], suffix: str
) -> None:  # fmt: skip
    paths = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for path in paths:
        found = run("plot", kind, saved / f"{of}.json", *more, "-o", path, "-q")
        assert (found.code, found.out, found.err) == (0, "", "")
    one, two = (path.read_bytes() for path in paths)
    assert one.startswith(STARTS[suffix])
    assert one == two
    assert 3_000 < len(one) < 500_000


def test_heat_maps_are_shown_here(run: Run, saved: Path) -> None:
    found = run("plot", "heatmap", saved / "report.json", "-m", "entropy_norm")
    values = made(4, 6).heads["entropy_norm"]
    assert (found.code, found.err) == (0, "")
    assert [float(word) for word in re.findall(r"\d\.\d\d", found.out)[:24]] == pytest.approx(values, abs=0.006)
    found = run("plot", "matrix", saved / "report.json", "-p", "Layer 1")
    assert found.out.startswith("js of heads, layer 1")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("heatmp", "report.json"), 2, 'error[E-PLOT]: no plot "heatmp". Did you mean heatmap?'),
        (("heatmap", "report.json", "-m", "rcso"), 2, 'error[E-METRIC]: no measure "rcso" of heads. Did you mean rcos'),
        (("matrix", "report.json", "-m", "kl"), 2, 'error[E-METRIC]: no matrix of "kl".'),
        (("matrix", "report.json", "-p", "layer 9"), 2, 'error[E-LAYERS]: no heads of "layer 9" were compared.'),
        (("matrix", "changes.json"), 2, "error[E-PLOT]: there are no pairs of heads to plot."),
        (("dendrogram", "report.json"), 2, "error[E-OUTPUT]: a dendrogram is a picture. Say where: -o plot.png"),
        (("map", "small.json", "-o", "TMP.png"), 2, "error[E-PLOT]: 2 heads make no map."),
        (("compare", "report.json", "-o", "TMP.png"), 2, "error[E-PLOT]: only a comparison can be plotted so."),
        (("heatmap", "report.json", "-o", "TMP.gif"), 2, 'unknown format ".gif"'),
        (("heatmap", "report.json", "-o", "TMP"), 2, "a plot is one file. Give it .png, .svg or .pdf."),
        (("heatmap", "none.json"), 3, "error[E-REPORT]: no report at"),
        (("heatmap", "report.json", "-o", "-"), 2, 'error[E-OUTPUT]: -o "-" is no path. Name a file.'),
        (("heatmap", "report.json", "-p", "layer 1"), 2, "error[E-OPTION]: a heatmap has no --part. It shows all"),
        (("dendrogram", "report.json", "-m", "cos", "-o", "TMP.png"), 2, "error[E-OPTION]: a dendrogram has no --met"),
        (("map", "report.json", "-m", "cos", "-o", "TMP.png"), 2, "A map is made of js."),
    ],
)
def test_what_can_go_wrong_is_one_line(
    run: Run, saved: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:  # fmt: skip
    words = [word.replace("TMP", str(tmp_path / "plot")) for word in arguments]
    found = run("plot", words[0], saved / words[1], *words[2:])
    assert (found.code, found.out) == (code, "")
    assert len(found.err.splitlines()) == 1
    assert said in found.err


def test_without_matplotlib_it_says_what_to_install(run: Run, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headprobe.view.plots.find_spec", lambda name: None)
    found = run("plot", "heatmap", saved / "report.json", "-o", "x.png")
    assert found.code == 4
    assert 'error[E-PACKAGE]: plots need the package "matplotlib". Run: pip install "headprobe[plot]"' in found.err
