"""Does pushing heads apart make a better classifier? Fine-tunes a sample checkpoint plainly, with Lin et al.'s penalty
and with repulsive heads, from equal seeds on equal data, and scans what became of its heads.

    python examples/train_with_penalty.py

The task: two markers stand among random words; does the one come before the other? Attention must find both and
tell where they are.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from scipy import stats
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel, logging

import headprobe
from headprobe.train import DiversityPenalty, RepulsiveHeads

MODEL = Path(__file__).parent.parent / "sample_inputs" / "tiny-bert"
RUNS = ("plain", "lin", "svgd")
EDGES, MARKERS, WORDS = (2, 3), (1000, 1001), (1010, 1042)  # ids of the checkpoint's vocabulary
LENGTH, BATCH, RATE = 10, 32, 1e-3
LIN, REPULSION = 0.1, 0.1  # weights of the two
MEASURED = {"accuracy": 1, "aat_heads": 2, "rcos": 3, "js_mean": 3, "effective_heads": 2, "ms a step": 1}  # decimals


@dataclass
class Run:
    """What one training led to: accuracy in percent on held-out rows, metrics as means over heads or layers."""

    run: str
    seed: int
    values: dict[str, float]


def rows(generator: torch.Generator, number: int) -> dict[str, Tensor]:
    """Random words between [CLS] and [SEP]; the label says whether the one marker comes before the other."""
    ids = torch.randint(*WORDS, (number, LENGTH + 2), generator=generator)
    at = torch.rand(number, LENGTH, generator=generator).argsort(1)[:, :2] + 1
    ids.scatter_(1, at, torch.tensor([MARKERS]).expand(number, 2))
    ids[:, 0], ids[:, -1] = EDGES
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": (at[:, 0] < at[:, 1]).long()}


def fresh(seed: int) -> PreTrainedModel:
    """The checkpoint with a new classifier."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        MODEL, num_labels=2, attn_implementation="eager", dtype=torch.float32
    )
    return model


def trained(run: str, seed: int, steps: int) -> tuple[PreTrainedModel, float]:
    """The model after so many steps, and milliseconds a step."""
    model = fresh(seed).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    penalty = DiversityPenalty("lin", weight=LIN)
    repulsive = RepulsiveHeads(model, "svgd", repulsion=REPULSION)
    generator = torch.Generator().manual_seed(seed)
    start = time.process_time()
    for _ in range(steps):
        batch = rows(generator, BATCH)
        if run == "lin":
            with penalty.watching(model):
                loss = model(**batch).loss + penalty()
        else:
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if run == "svgd":
            repulsive(optimizer)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval(), (time.process_time() - start) / steps * 1000


def judged(model: PreTrainedModel, held_out: dict[str, Tensor]) -> dict[str, float]:
    """Accuracy in percent, and means over heads and layers of what a scan of held-out rows finds."""
    with torch.no_grad():
        right = model(**held_out).logits.argmax(-1) == held_out["labels"]
    batch = {name: held_out[name][:64] for name in ("input_ids", "attention_mask")}
    report = headprobe.scan(model, batches=[batch])
    layers = report.layers[["aat_heads", "js_mean", "effective_heads"]].mean()
    return {"accuracy": 100 * float(right.float().mean()), "rcos": float(report.heads.rcos.mean()), **layers}


def experiment(steps: int, seeds: int) -> Iterator[Run]:
    """Every run from every seed: the same start, the same rows, the same number of steps."""
    held_out = rows(torch.Generator().manual_seed(10_000), 1000)
    for seed in range(seeds):
        for run in RUNS:
            model, milliseconds = trained(run, seed, steps)
            yield Run(run, seed, {**judged(model, held_out), "ms a step": milliseconds})


def compared(found: list[Run]) -> list[str]:
    """For each run against the plain one the change of accuracy, paired by seed, with its 95 % interval."""
    accuracy = {run: [each.values["accuracy"] for each in found if each.run == run] for run in RUNS}
    lines = []
    for run in RUNS[1:]:
        changes = [mine - plain for mine, plain in zip(accuracy[run], accuracy[RUNS[0]], strict=True)]
        mean = sum(changes) / len(changes)
        line = f"{run} against plain: {mean:+.1f} points of accuracy"
        if len(changes) > 1:
            half = float(stats.sem(changes)) * float(stats.t.ppf(0.975, len(changes) - 1))
            sure = "more than chance" if abs(mean) > half else "no more than seeds differ by themselves"
            line += f" (95 % of seeds' mean: {mean - half:+.1f} to {mean + half:+.1f}): {sure}"
        lines.append(line + ".")
    return lines


def shown(found: list[Run]) -> Table:
    """Means over seeds and their standard deviation."""
    table = Table("run", *MEASURED)
    for run in RUNS:
        values = pd.DataFrame([each.values for each in found if each.run == run])
        cells = (f"{values[name].mean():.{n}f} ± {values[name].std(ddof=0):.{n}f}" for name, n in MEASURED.items())
        table.add_row(run, *cells)
    return table


def main() -> None:
    """Run it all, and print a table and what follows from it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found = list(experiment(options.steps, options.seeds))
    console = Console(width=120, highlight=False)
    console.print(f"tiny-bert, {options.steps} steps, mean ± deviation over {options.seeds} seeds; ms of one core")
    console.print(shown(found))
    for line in compared(found):
        console.print(line)


if __name__ == "__main__":
    main()
