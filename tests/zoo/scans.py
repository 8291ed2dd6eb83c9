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

# Over all modalities and kinds of softmax attention; what needs no package beyond ours, and copies no other's code.
TYPES = (
    "albert", "bert", "big_bird", "biogpt", "bloom", "camembert", "canine", "codegen", "convbert", "ctrl", "deberta",
    "deberta-v2", "distilbert", "electra", "esm", "falcon", "funnel", "gemma", "gemma2", "gemma3_text", "glm", "gpt2",
    "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "jamba", "llama", "mistral", "mixtral",
    "mobilebert", "modernbert", "mpnet", "mpt", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "qwen3_moe",
    "qwen3_next", "rembert", "roberta", "roformer", "squeezebert", "stablelm", "starcoder2", "xglm", "xlm",
    "xlm-roberta", "xlnet", "zamba2", "deepseek_v3", "bart", "blenderbot", "fsmt", "longt5", "m2m_100", "marian",
    "mbart", "mt5", "nllb-moe", "pegasus", "plbart", "switch_transformers", "t5", "umt5", "beit", "data2vec-vision",
    "deit", "dinov2", "dinov3_vit", "dpt", "glpn", "hiera", "ijepa", "levit", "mobilevit", "pvt", "segformer", "swin",
    "swinv2", "vit", "vit_mae", "vit_msn", "yolos", "videomae", "audio-spectrogram-transformer", "data2vec-audio",
    "hubert", "moonshine", "sew", "speech_to_text", "unispeech", "wav2vec2", "wav2vec2-bert", "wavlm", "whisper",
    "align", "altclip", "blip", "chinese_clip", "clip", "clipseg", "flava", "git", "groupvit", "llava", "owlvit",
    "paligemma", "qwen2_vl", "qwen2_5_vl", "siglip", "vilt",
)  # fmt: skip
# Without softmax attention: a line must say so.
WITHOUT = ("convnextv2", "poolformer", "mamba", "rwkv", "fnet", "resnet")
# What checkpoints of a type are, where its base class has layers that only run with a head.
HEADS = {"blip": "BlipForConditionalGeneration"}
SHARE = 0.95  # of the types with softmax attention that must end with a report


def scan(model_type: str) -> dict[str, Any]:
    """The outcome of one scan."""
    try:
        model = build(model_type, name=HEADS.get(model_type))
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
    refused = len(lines) == 1 and code in (3, 4, 5)
    without = refused and code == 3 and "error[E-NOATTN]" in lines[0]
    return {"type": model_type, "verdict": "no attention" if without else "refused" if refused else "crash",
            "line": f"{code}: {lines[-1][:260] if lines else ''}"}  # fmt: skip


def main(types: list[str]) -> int:
    """Scan every type and count: 1 if too few ended with a report, or any with neither a report nor a line."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found = run_all(types or TYPES + WITHOUT, scan, len(os.sched_getaffinity(0)), _tell)
    with_attention = [line["verdict"] for line in found if line["type"] not in WITHOUT]
    without = [line["verdict"] for line in found if line["type"] in WITHOUT]
    scanned, told = with_attention.count("scanned"), without.count("no attention")
    print(f"{scanned} of {len(with_attention)} types with softmax attention scanned: {dict(Counter(with_attention))}")
    print(f"{told} of {len(without)} types without told so in one line: {dict(Counter(without))}")
    crashed = any(line["verdict"].startswith("crash") for line in found)
    return int(crashed or scanned < SHARE * len(with_attention) or told < len(without))


def _tell(line: dict[str, Any]) -> None:
    print(f"{line['type']:32}{line['verdict']:14}{line.get('line', '')}", flush=True)


if __name__ == "__main__":
    assert Path(headprobe.pipeline.__file__)  # imported here, once for every fork
    sys.exit(main(sys.argv[1:]))
