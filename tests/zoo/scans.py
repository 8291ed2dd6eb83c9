"""Scans by the command line: `python -m tests.zoo.scans [TYPE …]` saves a tiny checkpoint of each type and scans it.

Random inputs stand in for tokenizers and processors. A scan must end with a report, or with one line that says why not.
"""

import json
import os
import sys
import tempfile
import warnings
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch

import headprobe.pipeline
from headprobe.cli.handler import run
from tests.zoo.build import build
from tests.zoo.pool import run_all

# Over all modalities and kinds of attention; types that can be built, and that are no further copy of another's code.
TYPES = (
    "albert", "bert", "big_bird", "biogpt", "bloom", "camembert", "canine", "codegen", "convbert", "ctrl", "deberta",
    "deberta-v2", "distilbert", "electra", "esm", "falcon", "funnel", "gemma", "gemma2", "gemma3_text", "glm", "gpt2",
    "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "jamba", "llama", "mistral", "mixtral",
    "mobilebert", "modernbert", "mpnet", "mpt", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "qwen3_moe",
    "qwen3_next", "rembert", "roberta", "roformer", "squeezebert", "stablelm", "starcoder2", "xglm", "xlm",
    "xlm-roberta", "xlnet", "zamba2", "bart", "blenderbot", "fsmt", "m2m_100", "marian", "mbart", "mt5", "nllb-moe",
    "pegasus", "plbart", "switch_transformers", "t5", "umt5", "beit", "convnextv2", "data2vec-vision", "deit",
    "dinov2", "dpt", "hiera", "levit", "mobilevit", "poolformer", "pvt", "segformer", "swin", "swinv2", "vit",
    "vit_mae", "vit_msn", "yolos", "dinov3_vit", "ijepa", "glpn", "hubert", "sew", "unispeech", "wav2vec2", "wavlm",
    "whisper", "audio-spectrogram-transformer", "speech_to_text", "moonshine", "data2vec-audio", "align", "altclip",
    "blip", "chinese_clip", "clip", "clipseg", "flava", "siglip", "vilt", "llava", "paligemma", "qwen2_vl",
    "groupvit", "owlvit", "detr", "conditional_detr", "table-transformer", "mamba", "rwkv",
)  # fmt: skip


def scan(model_type: str) -> dict[str, Any]:
    """The outcome of one scan."""
    try:
        model = build(model_type)
    except Exception as fault:  # noqa: BLE001 - whatever it is, there is no model to scan
        return {"type": model_type, "verdict": "not built", "line": repr(fault)[:160]}
    out, err = StringIO(), StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(out), redirect_stderr(err):
        model.save_pretrained(folder)
        err.truncate(err.seek(0))
        code = run(["scan", folder, "--random-inputs", "3", "--max-length", "24", "--format", "json"])
    if code == 0:
        tables = json.loads(out.getvalue())["tables"]
        return {"type": model_type, "verdict": "scanned", "line": f"{len(tables['heads']['head'])} heads"}
    lines = err.getvalue().replace(folder, "FOLDER").strip().splitlines()
    return {"type": model_type, "verdict": "refused" if len(lines) == 1 and code in (3, 4, 5) else "crash",
            "line": f"{code}: {lines[-1][:260] if lines else ''}"}  # fmt: skip


def main(types: list[str]) -> int:
    """Scan every type and count: 1 if any ended otherwise than with a report or one line."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = run_all(types or TYPES, scan, len(os.sched_getaffinity(0)), _tell)
    print(Counter(line["verdict"] for line in found))
    return int(any(line["verdict"].startswith("crash") for line in found))


def _tell(line: dict[str, Any]) -> None:
    print(f"{line['type']:32}{line['verdict']:12}{line.get('line', '')}", flush=True)


if __name__ == "__main__":
    assert Path(headprobe.pipeline.__file__)  # imported here, once for every fork
    sys.exit(main(sys.argv[1:]))
