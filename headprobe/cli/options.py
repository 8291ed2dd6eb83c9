"""Every option of the commands, in words. Types and defaults come from headprobe.settings."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Annotated, Any

import typer

from headprobe.settings import ScanOptions

MODEL_PANEL, INPUT_PANEL, MEASURE_PANEL, OUTPUT_PANEL, GATE_PANEL = "Model", "Input", "Measurement", "Output", "Gate"
DEFAULTS = {field.name: field.default for field in fields(ScanOptions)}


def _option(kind: Any, panel: str, text: str, *names: str, **extra: Any) -> Any:
    shown = {"show_default": extra.pop("show", True), "show_envvar": extra.pop("show_envvar", False)}
    option: Any = typer.Option  # its overloads don't know of names that come as a tuple
    return Annotated[kind, option(*names, help=text, rich_help_panel=panel, **shown, **extra)]


ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A hub name (org/model) or a checkpoint's folder.")]

OPTIONS: dict[str, Any] = {
    "revision": _option(str | None, MODEL_PANEL, "Branch, tag or commit of a hub model."),
    "dtype": _option(str, MODEL_PANEL, "auto, float32, float16, bfloat16 or float64."),
    "device": _option(str, MODEL_PANEL, "auto, cpu, cuda, cuda:1."),
    "device_map": _option(
        str | None,
        MODEL_PANEL,
        "Share a model out over devices, memory and disk: auto, balanced, sequential, or a file.json of parts.",
        "--device-map",
    ),
    "cache_dir": _option(str | None, MODEL_PANEL, "Where hub models are kept."),
    "token": _option(str | None, MODEL_PANEL, "Hub token.", envvar="HF_TOKEN", show_envvar=True, show=False),
    "trust_remote_code": _option(
        bool, MODEL_PANEL, "Run code that the checkpoint ships. Review it first.", "--trust-remote-code"
    ),
    "allow_pickle": _option(bool, MODEL_PANEL, "Load pickled weights, which can run code.", "--allow-pickle"),
    "base_model": _option(
        str | None, MODEL_PANEL, "An adapter's base: hub name or folder, instead of the one that it names."
    ),
    "gguf_file": _option(str | None, MODEL_PANEL, "The GGUF file to read, in the model's folder or repository."),
    "text": _option(
        list[str],
        INPUT_PANEL,
        "Texts: .txt (one a line), .jsonl, .csv, .parquet, or - (standard input). Repeatable. For models of images with"
        " texts: .jsonl whose lines have image (a path) and text.",
        "--text",
        metavar="FILE",
        show=False,
    ),
    "field": _option(str | None, INPUT_PANEL, "The field of .jsonl, .csv or .parquet rows that holds the text."),
    "images": _option(
        list[str],
        INPUT_PANEL,
        "Images: a file, or a folder of them. Repeatable.",
        "--images",
        metavar="PATH",
        show=False,
    ),
    "audio": _option(
        list[str],
        INPUT_PANEL,
        "Sounds: a file, or a folder of them. Repeatable.",
        "--audio",
        metavar="PATH",
        show=False,
    ),
    "target_text": _option(
        list[str],
        INPUT_PANEL,
        "What the decoder reads, one text for each input. Default: what the model writes itself.",
        "--target-text",
        metavar="FILE",
        show=False,
    ),
    "target_length": _option(int, INPUT_PANEL, "The model writes so many tokens at most where no --target-text is."),
    "random_inputs": _option(
        int | None, INPUT_PANEL, "Measure on so many random inputs: heads without meaning, for any model."
    ),
    "limit": _option(int | None, INPUT_PANEL, "Use so many texts, images or sounds, the first ones.", "--limit", "-n"),
    "max_length": _option(int, INPUT_PANEL, "Cut texts at so many tokens (never beyond the model's own limit)."),
    "batch_size": _option(
        int | None, INPUT_PANEL, "Sequences a forward pass. Changes no result.", "--batch-size", "-b"
    ),
    "seed": _option(int | None, INPUT_PANEL, "Draw the --limit inputs with this seed instead of taking the first."),
    "special": _option(str, INPUT_PANEL, "Special tokens: keep, drop-queries, or drop-keys (rows are rescaled)."),
    "metrics": _option(
        list[str],
        MEASURE_PANEL,
        "A metric or column (see headprobe metrics). Repeatable, commas work. Default: all.",
        "--metrics",
        metavar="NAME",
        show=False,
    ),
    "pairs": _option(str, MEASURE_PANEL, "Compare heads within a layer, over the whole model, or not at all (none)."),
    "layers": _option(str | None, MEASURE_PANEL, "Only these layers, like 0-3,7."),
    "kind": _option(str | None, MEASURE_PANEL, "Only encoder, decoder or cross attention."),
    "null": _option(
        str | None,
        MEASURE_PANEL,
        "Measure a null model too and show the excess over it: random-init (fresh weights), random-tokens or shuffled.",
    ),
    "null_runs": _option(int, MEASURE_PANEL, "So many draws of the null model."),
    "max_memory": _option(str, MEASURE_PANEL, "Memory for attention beyond the model's own."),
    "approx": _option(
        bool, MEASURE_PANEL, "Estimate redundancy beyond 1,024 tokens, with standard errors (columns …_se).", "--approx"
    ),
    "probe": _option(
        bool,
        MEASURE_PANEL,
        "Induction and duplicate-token scores too, on repeated random tokens (texts only).",
        "--probe",
    ),
    "examples": _option(
        bool | None,
        OUTPUT_PANEL,
        "Attention on a few of the texts, in pages and data. Default: in pages alone, and not where CI is set.",
        "--examples/--no-examples",
        show=False,
    ),
    "allow_invalid": _option(
        bool, MEASURE_PANEL, "Report attention that is no distribution instead of refusing it.", "--allow-invalid"
    ),
}

OUTPUT: dict[str, Any] = {
    "output": _option(
        list[str],
        OUTPUT_PANEL,
        "Write .html (a page), .md, .json (all), .csv or .parquet (heads), or a folder (everything). Repeatable.",
        "--output",
        "-o",
        metavar="PATH",
        show=False,
    ),
    "format": _option(str, OUTPUT_PANEL, "On standard output: table, json or csv.", "--format", "-f"),
    "sort": _option(str | None, OUTPUT_PANEL, "Column to sort heads by."),
    "top": _option(int | None, OUTPUT_PANEL, "Heads and pairs to show: 20 on a terminal, all elsewhere; 0 is all."),
    "quiet": _option(bool, OUTPUT_PANEL, "No progress and no messages.", "--quiet", "-q"),
    "verbose": _option(bool, OUTPUT_PANEL, "Messages of the libraries too.", "--verbose", "-v"),
    "no_progress": _option(bool, OUTPUT_PANEL, "No progress bar.", "--no-progress"),
}
GATE: dict[str, Any] = {
    "baseline": _option(str | None, GATE_PANEL, "What to judge change against: a model, or a saved report (.json)."),
    "baseline_revision": _option(str | None, GATE_PANEL, "Branch, tag or commit of a baseline on the hub."),
    "update_baseline": _option(
        bool, GATE_PANEL, "Write the model's report to --baseline, and judge no change.", "--update-baseline"
    ),
    "policy": _option(
        str | None, GATE_PANEL, "A policy. Default: that of the nearest configuration file.", metavar="FILE"
    ),
    "fail_on": _option(str | None, GATE_PANEL, "The least severity that fails: note, warning or error (the default)."),
    "select": _option(
        list[str], GATE_PANEL, "Only rules whose codes begin so. Repeatable.", "--select", metavar="CODE", show=False
    ),
    "ignore": _option(
        list[str], GATE_PANEL, "Not the rules whose codes begin so. Repeatable.", "--ignore", metavar="CODE", show=False
    ),
    "set": _option(
        list[str], GATE_PANEL, "A rule's limit, like HP101.js=0.02. Repeatable.", "--set", metavar="LIMIT", show=False
    ),
    "exit_zero": _option(bool, GATE_PANEL, "Exit 0 although there are findings.", "--exit-zero"),
    "explain": _option(str | None, GATE_PANEL, "Explain a rule and stop.", metavar="CODE"),
    "show_policy": _option(bool, GATE_PANEL, "Show every setting and where it is from, and stop.", "--show-policy"),
}
GATE_DEFAULTS: dict[str, Any] = {
    "baseline": None, "baseline_revision": None, "update_baseline": False, "policy": None, "fail_on": None,
    "select": (), "ignore": (), "set": (), "exit_zero": False, "explain": None, "show_policy": False,
}  # fmt: skip
OUTPUT_DEFAULTS: dict[str, Any] = {
    "output": (), "format": "table", "sort": None, "top": None, "quiet": False, "verbose": False, "no_progress": False,
}  # fmt: skip


def written(help: str, panel: str | None = None) -> Any:  # noqa: A002  # as typer calls it
    """The option -o of a command that writes other files than those of data."""
    return typer.Option(
        "--output", "-o", help=help, metavar="PATH", rich_help_panel=panel, show_envvar=False, show_default=False
    )


def accepting(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the named options, passed on as keyword arguments.

    The decorated function has its own parameters and `**options`; the command line sees both.
    """
    known = {**OPTIONS, **OUTPUT, **GATE}
    defaults = {**DEFAULTS, **OUTPUT_DEFAULTS, **GATE_DEFAULTS}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        given = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=_default(defaults[name]), annotation=known[name]
            )
            for name in names
        ]

        @wraps(command)
        def wrapper(*args: Any, **kwargs: Any) -> None:
            command(*args, **kwargs)

        wrapper.__signature__ = inspect.Signature([*own, *given])  # type: ignore[attr-defined]  # what inspect looks for
        wrapper.__annotations__ = {p.name: p.annotation for p in (*own, *given)} | {"return": None}
        return wrapper

    return decorate


def _default(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def scan_options(options: dict[str, Any]) -> dict[str, Any]:
    """The part of a command's options that the library knows."""
    return {name: value for name, value in options.items() if name in DEFAULTS}
