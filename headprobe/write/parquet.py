"""Tables as Parquet, where pyarrow is installed."""

import io
from importlib.util import find_spec

import pandas as pd


def has_parquet() -> bool:
    """True if Parquet files can be written."""
    return find_spec("pyarrow") is not None


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """The table with its types; missing values are null."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()
