"""Tables as CSV: RFC 4180, an empty cell for what is missing."""

import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0")


def csv_bytes(table: pd.DataFrame) -> bytes:
    """UTF-8. A text cell that a spreadsheet would run as a formula gets a leading apostrophe."""
    safe = table.copy()
    for name, column in table.items():
        if not pd.api.types.is_numeric_dtype(column.dtype):
            safe[name] = [f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell for cell in column]
    return safe.to_csv(index=False, lineterminator="\n").encode("utf-8", "backslashreplace")
