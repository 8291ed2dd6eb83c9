"""headprobe inspect"""

import sys
from typing import Any

from headprobe.cli.options import ModelArgument, accepting, scan_options
from headprobe.cli.show import check_output_options, progress


@accepting(
    "revision", "cache_dir", "token", "trust_remote_code", "allow_pickle", "base_model", "gguf_file", "dtype", "device",
    "limit", "max_length", "batch_size", "metrics", "layers", "kind", "pairs", "max_memory", "approx", "format",
    "quiet", "verbose", "no_progress",
)  # fmt: skip
def inspect(model: ModelArgument, **options: Any) -> None:
    """Show a checkpoint's attention sites, heads and groups, and what a scan will need. Loads no weights.

    Examples:

        headprobe inspect bert-base-uncased

        headprobe inspect ./checkpoint --max-length 512

        headprobe inspect ./llama --max-length 32768 --max-memory 4GiB --pairs model

        headprobe inspect ./llama --metrics cka --layers 0-7
    """
    check_output_options({**options, "top": None, "output": ()}, ("table", "json"))
    with progress(options, model):
        from headprobe.plan import plan

        found = plan(model, **scan_options(options))
    if options["format"] == "json":
        from headprobe.write import json_bytes

        sys.stdout.write(json_bytes(found.document()).decode())
        return
    from headprobe.view.plan import plan_document
    from headprobe.view.terminal import console, show

    show(plan_document(found.document()), console())
