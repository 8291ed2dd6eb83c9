"""python -m tests.zoo [types…] [--json file] [--write docs/coverage.md]: what headprobe captures, type by type."""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import transformers

from tests.zoo.build import TYPES
from tests.zoo.check import FAILURES, check
from tests.zoo.pool import Line, run_all
from tests.zoo.table import markdown


def main() -> int:
    """Exit status 1 if any type is captured wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", metavar="type")
    parser.add_argument("--json", type=Path, help="add each result here as it comes, a line each")
    parser.add_argument("--write", type=Path, help="write the table of all types here")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    results = run_all(
        options.types or TYPES,
        lambda name: check(name).as_dict(),
        options.processes,
        lambda line: tell(line, options.json),
    )
    print("\n" + "\n".join(f"{count:4} {word}" for word, count in totals(results).most_common()))
    if options.write:
        options.write.parent.mkdir(exist_ok=True)
        options.write.write_text(markdown(results))
    return int(any(failed(line) for line in results))


def failed(line: Line) -> bool:
    """True if headprobe does not do what it promises."""
    return str(line["verdict"]).startswith(FAILURES) or str(line.get("tiled", "")).startswith(FAILURES)


def totals(results: list[Line]) -> Counter[str]:
    """How many types came to which verdict."""
    return Counter(word(line) for line in results)


def word(line: Line) -> str:
    """The verdict's fixed words."""
    if line["verdict"] == "exact" and failed(line):
        return f"tiled: {line['tiled'].partition(':')[0]}"
    first = str(line["verdict"]).partition(":")[0]
    return "output changed" if first.startswith("output changed") else first


def tell(line: Line, file: Path | None) -> None:
    """One line on standard output, and one in the file: what is interrupted keeps what it has."""
    if file:
        with file.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
    kinds = "/".join(line.get("kinds", []))
    tiled = line.get("tiled", "")
    note = f"  TILED {tiled}" if tiled not in ("", "exact") else ""
    inputs = line.get("inputs", "")
    print(f"{line['type']:36} {line.get('sites', 0):3} {kinds:16} {line['verdict']}{note}  [{inputs}]", flush=True)


sys.exit(main())
