"""Reports as JSON: standard JSON, so a missing value is null and never NaN."""

import json
from pathlib import Path
from typing import Any

from headprobe.errors import InputError


def json_bytes(document: dict[str, Any]) -> bytes:
    """UTF-8, compact."""
    return (
        json.dumps(document, allow_nan=False, ensure_ascii=True, indent=None, separators=(",", ":")) + "\n"
    ).encode()


def read_document(path: Path) -> Any:
    """The JSON document in `path`; raises `InputError` if there is none."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as fault:
        raise InputError("E-REPORT", f"no report at {path}") from fault
    except (ValueError, RecursionError) as fault:
        raise InputError("E-REPORT", f"{path} is no JSON") from fault
    except OSError as fault:
        raise InputError("E-REPORT", f"{path} can't be read: {fault.strerror}") from fault
