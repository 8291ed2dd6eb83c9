"""Fine-tune a sample checkpoint with and without penalties, and look at what became of its heads.

python examples/penalty.py
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

import headprobe
from headprobe.train import DiversityPenalty

MODEL = Path(__file__).parent.parent / "sample_inputs" / "tiny-llama"
TEXTS = Path(__file__).parent.parent / "LICENSE"
LAYERS = "2-3"
PENALTIES = {None: 0.0, "lin": 0.1, "cosine": 1.0, "js": 1.0, "output": 1.0}


def batches() -> list[dict[str, torch.Tensor]]:
    """Sequences of 64 tokens of a text, eight at a time."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    ids = tokenizer(TEXTS.read_text(encoding="utf-8"), return_tensors="pt", add_special_tokens=False).input_ids[0]
    rows = ids[: len(ids) // 64 * 64].view(-1, 64)
    return [{"input_ids": part, "labels": part} for part in rows.split(8)]


def tuned(name: str | None, weight: float, steps: int) -> torch.nn.Module:
    """The checkpoint after some steps on all batches but the last."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(MODEL, attn_implementation="eager", dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    penalty = None if name is None else DiversityPenalty(name, weight=weight, layers=LAYERS)
    *training, _ = batches()
    for step in range(steps):
        batch = training[step % len(training)]
        optimizer.zero_grad()
        if penalty is None:
            loss = model(**batch).loss
        else:
            with penalty.watching(model):
                loss = model(**batch).loss + penalty()
        loss.backward()
        optimizer.step()
    return model


def main() -> None:
    """Print one row a penalty."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    *_, held_out = batches()
    print(f"{steps} steps on tiny-llama; layers {LAYERS}, held-out text")
    print("penalty  weight   loss  aat_heads  rcos_heads  js_mean  effective_heads")
    for name, weight in PENALTIES.items():
        model = tuned(name, weight, steps)
        with torch.no_grad():
            loss = float(model.eval()(**held_out).loss)
        report = headprobe.scan(model, batches=[held_out], layers=LAYERS)
        row = report.layers[["aat_heads", "rcos_heads", "js_mean", "effective_heads"]].mean()
        print("{:8}{:7.1f} {:6.3f}".format(name or "none", weight, loss), end="")
        print("{:11.3f}{:12.3f}{:9.3f}{:17.2f}".format(*row))


if __name__ == "__main__":
    main()
