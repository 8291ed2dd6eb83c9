"""python -m benchmarks: every measurement, the table in docs/performance.md, and benchmarks/results.json."""

import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import headprobe
from benchmarks.rivals import bert, by_hand, js_by_loops, pairs_by_loops
from headprobe.metrics import METRICS, Metric
from headprobe.tile import AttentionTile

ROOT = Path(__file__).parent.parent
REPEATS = 5


@dataclass(frozen=True)
class Row:
    """A measurement: `ours` and `theirs` in seconds (medians), and the median of their ratios in one run."""

    work: str
    against: str
    ours: float
    theirs: float
    ratio: float
    aim: str


def seconds(work: Callable[[], Any]) -> float:
    """Of one run, on the wall."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(works: dict[str, Callable[[], Any]], repeats: int = REPEATS) -> dict[str, list[float]]:
    """Times of each, taken in turns after one unmeasured run of all."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(seconds(work))
    return times


def row(work: str, against: str, ours: list[float], theirs: list[float], aim: str, *, faster: bool = False) -> Row:
    """Medians; `faster` turns the ratio round."""
    pairs = zip(ours, theirs, strict=True)
    ratio = statistics.median(theirs / ours if faster else ours / theirs for ours, theirs in pairs)
    return Row(work, against, statistics.median(ours), statistics.median(theirs), ratio, aim)


def scans() -> list[Row]:
    """A default scan against the plain forward pass, and what it adds against what a script adds."""
    rows = []
    for size, length, batches, most in ((8, 128, 4, "≤ 1.3"), (4, 512, 2, "≤ 2.0")):
        rows += scan_of(size, length, batches, most)
    return rows


def scan_of(size: int, length: int, batches: int, most: str) -> list[Row]:
    """`batches` batches of `size` sequences of `length` tokens."""
    plain, eager = bert("sdpa"), bert("eager")
    rng = torch.Generator().manual_seed(0)
    ids = [torch.randint(1000, 30000, (size, length), generator=rng) for _ in range(batches)]
    work = [{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in ids]

    def forward(model: Any) -> None:
        with torch.no_grad():
            for batch in work:
                model(**batch)

    def script() -> None:
        for batch in work:
            by_hand(eager, batch)

    def scan() -> None:
        headprobe.scan(eager, batches=work)

    times = alternate({"sdpa": lambda: forward(plain), "eager": lambda: forward(eager), "scan": scan}, 3)
    by_script = [seconds(script)]  # once: it takes minutes
    base = statistics.median(times["eager"])
    added = [statistics.median(times["scan"]) - base], [by_script[0] - base]
    return [
        row(f"default scan, {size} × {length}", "plain sdpa forward pass", times["scan"], times["sdpa"], most),
        row(f"eager forward pass, {size} × {length}", "plain sdpa forward pass", times["eager"], times["sdpa"], ""),
        row(f"what a scan adds, {size} × {length}", "what a script adds", *added, "≤ 0.5"),
    ]


def pairs() -> list[Row]:
    """All pairs of 144 heads over 128 × 128, against published and plain loops."""
    maps = torch.softmax(3 * torch.randn(1, 144, 128, 128, generator=torch.Generator().manual_seed(0)), -1)
    loops = maps[0].numpy()

    def of(*names: str) -> Callable[[], Any]:
        def observe() -> None:
            tile = AttentionTile.of(maps)
            parts = [tile.cut(0, 64), tile.cut(64, 128)]
            for name in names:
                for part in parts:
                    METRICS[name].observe(part)

        return observe

    js = alternate({"ours": of("js"), "theirs": partial(js_by_loops, loops)}, 2)
    rest = alternate({"ours": of("kl", "bhattacharyya", "cosine"), "theirs": partial(pairs_by_loops, loops)}, 2)
    return [
        row(
            "JS of 144 heads, 128 × 128, one thread",
            "numpy, a pair at a time",
            js["ours"],
            js["theirs"],
            "≥ 60",
            faster=True,
        ),
        row(
            "KL, BC, cosine of 144 heads, one thread",
            "numpy, a pair at a time",
            rest["ours"],
            rest["theirs"],
            "≥ 100",
            faster=True,
        ),
    ]


def tiny() -> list[Row]:
    """The program on a tiny checkpoint, against a process that imports, loads and runs the model."""
    folder = ROOT / "sample_inputs" / "tiny-bert"
    theirs = (
        "from transformers import AutoModel, AutoTokenizer; import torch\n"
        f"model = AutoModel.from_pretrained({str(folder)!r}, attn_implementation='eager', dtype=torch.float32)\n"
        f"tokenizer = AutoTokenizer.from_pretrained({str(folder)!r})\n"
        "from headprobe.load.corpus import corpus\nfrom headprobe.settings import ScanOptions\n"
        "texts = list(corpus(ScanOptions.of()).texts)\n"
        "with torch.no_grad():\n"
        "    for i in range(0, 128, 16):\n"
        "        some = texts[i:i + 16]\n"
        "        batch = tokenizer(some, padding=True, truncation=True, max_length=128, return_tensors='pt')\n"
        "        model(**batch)\n"
    )

    def run(*words: str) -> Callable[[], Any]:
        return lambda: subprocess.run(words, check=True, capture_output=True, cwd=ROOT)

    times = alternate(
        {
            "ours": run(sys.executable, "-m", "headprobe", "scan", str(folder)),
            "theirs": run(sys.executable, "-c", theirs),
        }
    )
    return [
        row("headprobe scan tiny-bert, whole process", "import, load, run it", times["ours"], times["theirs"], "≤ 1.25")
    ]


def observe_all(metrics: list[Metric], maps: torch.Tensor) -> None:
    """Every metric of one tile."""
    tile = AttentionTile.of(maps)
    for metric in metrics:
        metric.observe(tile)


def growth() -> list[Row]:
    """Row metrics of one layer of 4 heads against the length: the exponent between the shortest and the longest."""
    lengths, times = (512, 1024, 2048, 4096), []
    metrics = [metric for metric in METRICS.values() if metric.shape == "rows"]
    for length in lengths:
        maps = torch.softmax(3 * torch.randn(1, 4, length, length), -1)
        found = alternate({"one": partial(observe_all, metrics, maps)}, 3)
        times.append(statistics.median(found["one"]))
    exponent = float(np.polyfit(np.log(lengths), np.log(times), 1)[0])
    return [
        Row(f"row metrics, {lengths[0]} to {lengths[-1]} tokens", "exponent", times[-1], times[0], exponent, "≤ 2.1")
    ]


def markdown(rows: list[Row]) -> str:
    """The table of docs/performance.md."""
    lines = ["| work | against | ours | theirs | ratio | aim |", "|---|---|---|---|---|---|"]
    for one in rows:
        ratio = {"exponent": f"{one.ratio:.2f}"}.get(one.against, f"{one.ratio:.2f}×")
        ratio += " faster" if "a pair at a time" in one.against else ""
        lines.append(f"| {one.work} | {one.against} | {one.ours:.3f} s | {one.theirs:.3f} s | {ratio} | {one.aim} |")
    return "\n".join(lines)


def write_page(rows: list[Row]) -> None:
    """Put the table in the place of the page's."""
    page = ROOT / "docs" / "performance.md"
    before, _, rest = page.read_text(encoding="utf-8").partition("| work |")
    after = rest[rest.index("\n\n") :]
    page.write_text(before + markdown(rows) + after, encoding="utf-8")


def main() -> None:
    """Measure, print, save."""
    started = {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    rows: list[Row] = []
    for part in (tiny, pairs, growth, scans):
        for found in part():
            rows.append(found)
            line = f"{found.work:44} {found.against:26} {found.ours:9.3f} s {found.theirs:9.3f} s {found.ratio:7.2f} "
            print(f"{line} {found.aim}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    document = {"machine": {**started, "cpu": platform.processor() or platform.machine()}, "peak_mib": peak}
    (ROOT / "benchmarks" / "results.json").write_text(
        json.dumps(document | {"rows": [asdict(one) for one in rows]}, indent=1, ensure_ascii=False) + "\n"
    )
    write_page(rows)


if __name__ == "__main__":
    main()
