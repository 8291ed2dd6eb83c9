"""headprobe bench"""

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headprobe.cli.options import accepting, written
from headprobe.cli.show import check_are_files, check_output_options, say
from headprobe.errors import UsageError, nearest

BENCHMARKS = ("penalty-vs-kl",)
Option = typer.Option


@accepting("format", "quiet")
def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="penalty-vs-kl.")],
    shape: Annotated[
        list[str] | None,
        Option(
            "--shape",
            metavar="QxHxK",
            help="Queries, heads and keys, like 128x12x128. Repeatable.",
            show_envvar=False,
            show_default="128x12x128 and 64x30x60",
        ),
    ] = None,
    dtype: Annotated[
        str, Option("--dtype", help="float32, float64, bfloat16 or float16.", show_envvar=False)
    ] = "float32",
    threads: Annotated[
        int | None, Option("--threads", help="Cores to use.", show_default="torch's choice", show_envvar=False)
    ] = None,
    repetitions: Annotated[
        int, Option("--repetitions", help="Of every measurement; medians are shown.", show_envvar=False)
    ] = 15,
    steps: Annotated[int, Option("--steps", help="Of gradient descent.", show_envvar=False)] = 3000,
    seeds: Annotated[int, Option("--seeds", help="Starting points of gradient descent.", show_envvar=False)] = 10,
    output: Annotated[list[str] | None, written("Write .json. Repeatable.")] = None,
    **options: Any,
) -> None:
    """Measure a claim on this machine: does KL between heads cost more than Lin et al.'s penalty, and does it diverge?

    Examples:

        headprobe bench penalty-vs-kl

        headprobe bench penalty-vs-kl --shape 512x16x512 --threads 1 -o claims.json
    """
    if name not in BENCHMARKS:
        raise UsageError("E-BENCH", f'no benchmark "{name}"', nearest(name, BENCHMARKS))
    paths = [Path(path) for path in output or ()]
    check_output_options({**options, "top": None, "output": output or ()}, ("table", "json"), (".json",))
    check_are_files(paths, "benchmark", (".json",))
    given = {"shapes": [_shape(text) for text in shape]} if shape else {}
    from headprobe.train.claims import penalty_vs_kl
    from headprobe.write import json_bytes
    from headprobe.write.atomic import atomic_write

    found = penalty_vs_kl(**given, dtype=dtype, threads=threads, repetitions=repetitions, steps=steps, seeds=seeds)
    for path in paths:
        atomic_write(path, json_bytes(found))
        say(f"wrote {path}", options)
    if options["format"] == "json":
        sys.stdout.write(json_bytes(found).decode())
        return
    from headprobe.view.claims import claims_document
    from headprobe.view.terminal import console, show

    show(claims_document(found), console())


def _shape(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if match is None:
        raise UsageError("E-OPTION", f'--shape "{text}" is not queries, heads and keys', "Give it like 128x12x128.")
    queries, heads, keys = match.groups()
    return int(queries), int(heads), int(keys)
