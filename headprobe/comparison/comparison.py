"""Two reports on the same inputs: what changed, head by head, and whether it is more than chance."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import pandas as pd

from headprobe.errors import InputError
from headprobe.report import Provenance
from headprobe.write import check_output, json_bytes, read_document, write_table
from headprobe.write.atomic import atomic_write, make_folder
from headprobe.write.parquet import has_parquet

SCHEMA = "headprobe.comparison"
SCHEMA_VERSION = "1.0"
LAYER_METRICS = ("effective_heads", "aat_heads", "js_mean", "rcos")
SITE = ("site", "path", "tower", "kind", "layer")
COLUMNS = {
    "heads": (
        *SITE, "head", "metric", "base", "tuned", "change", "mean_change", "median_change", "effect", "dz",
        "ci_low", "ci_high", "p", "q", "sequences",
    ),
    "layers": (
        *SITE, "heads", *(f"{name}_{of}" for name in LAYER_METRICS for of in ("base", "tuned", "change")),
        "drift_js", "drift_tv",
    ),
    "drift": (*SITE, "head", "js", "tv"),
}  # fmt: skip
KEYS = {"heads": ("site", "head", "metric"), "layers": ("site",), "drift": ("site", "head")}  # no two rows share one
WORDS = ("path", "tower", "kind", "metric")
COUNTS = ("site", "layer", "head", "heads", "sequences")


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a fine-tuned model's heads do differently from its base's.

    `heads` has a row a head and metric: `site path tower kind layer head metric base tuned change mean_change
    median_change effect dz ci_low ci_high p q sequences`. `layers` has a row a site: `site path tower kind layer
    heads`, then for `effective_heads`, `aat_heads`, `js_mean` and `rcos` (mean of the heads) `<name>_base
    <name>_tuned <name>_change`, then `drift_js`, `drift_tv` (means over heads; missing if not measured). `drift` has a
    row a head: `site path tower kind layer head js tv`, empty if not measured. Sites and paths are the base's. `base`
    and `tuned` say what was compared, `options` with which seed, confidence and tolerance.

    `base`, `tuned` and `change` are a scan's numbers, in which queries weigh the same; in `mean_change`,
    `median_change` and what follows sequences weigh the same, since they are what is drawn independently.

    - `effect`: the matched-pairs rank-biserial correlation, -1 (every sequence fell) to 1 (every sequence rose).
    - `dz`: the mean change in standard deviations of the change; missing where all sequences change by the same.
    - `ci_low`, `ci_high`: the interval of `mean_change` at the given confidence (BCa bootstrap over sequences).
    - `p`: two-sided, of the Wilcoxon signed-rank test; `q`: `p` adjusted for all heads of the model by Benjamini and
      Hochberg, for each metric by itself.
    - `sequences`: the number of sequences with a value in both models.
    """

    base: Provenance
    tuned: Provenance
    heads: pd.DataFrame
    layers: pd.DataFrame
    drift: pd.DataFrame
    notes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name: heads, layers and drift."""
        return {"heads": self.heads, "layers": self.layers, "drift": self.drift}

    def document(self) -> dict[str, Any]:
        """The whole comparison as JSON values: what `save` writes and `load` reads."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "base": asdict(self.base),
            "tuned": asdict(self.tuned),
            "options": dict(self.options),
            "notes": list(self.notes),
            "tables": {name: _plain(table) for name, table in self.tables.items()},
        }

    def save(self, path: str | Path) -> list[Path]:
        """Write the comparison: `.json` the whole, `.csv` or `.parquet` the heads, a folder all. Whole or not at all.

        A folder gets its tables first and `comparison.json` last. Returns the files written. Raises `UsageError` for
        another suffix, `EnvironmentFailure` where the path can't be written. Markdown is a view: see
        `headprobe.view.markdown`.
        """
        path = Path(path)
        check_output(path)
        if path.suffix == ".json":
            return [atomic_write(path, json_bytes(self.document()))]
        if path.suffix:
            return [write_table(path, self.heads)]
        make_folder(path)
        suffixes = (".csv", ".parquet") if has_parquet() else (".csv",)
        tables = self.tables.items()
        written = [write_table(path / f"{name}{suffix}", table) for suffix in suffixes for name, table in tables]
        return [*written, atomic_write(path / "comparison.json", json_bytes(self.document()))]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a comparison saved as `.json`, or the folder with its `comparison.json`; `InputError` if it is none."""
        where = Path(path) / "comparison.json" if Path(path).is_dir() else Path(path)
        document = read_document(where)
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise InputError("E-COMPARISON", f"{where} is no headprobe comparison")
        version = str(document.get("schema_version"))
        if version.split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise InputError("E-COMPARISON", f"{where} has schema version {version}, this is {SCHEMA_VERSION}")
        try:
            tables = {name: table(name, document["tables"][name]) for name in COLUMNS}
            _check_rows(tables)
            return cls(
                base=Provenance.of(document["base"]),
                tuned=Provenance.of(document["tuned"]),
                notes=tuple(str(note) for note in document["notes"]),
                options=_options(document["options"]),
                **tables,
            )
        except (KeyError, TypeError, AttributeError, ValueError) as fault:
            raise InputError("E-COMPARISON", f"{where} is damaged: {fault!r}") from fault


def table(name: str, rows: Iterable[dict[str, Any]] | dict[str, list[Any]] | pd.DataFrame) -> pd.DataFrame:
    """The table `name` of a comparison with its columns in their order and types, further columns last.

    Numbers that are not given are missing. Raises `ValueError` or `TypeError` where what names a row is missing, or
    words stand for numbers.
    """
    found = pd.DataFrame(rows if isinstance(rows, dict | pd.DataFrame) else list(rows))
    known = COLUMNS[name]
    if len(found) and "sequences" in known and "sequences" not in found:
        found = found.assign(sequences=0)
    names = [column for column in known if column in (*WORDS, *COUNTS)]
    absent = [column for column in names if column not in found or bool(found[column].isna().any())]
    if len(found) and absent:
        raise ValueError(f"{name} has no {', '.join(absent)}")
    typed = {
        column: "str" if column in WORDS else "int64" if column in COUNTS else "float64"
        for column in known
    }  # fmt: skip
    further = [column for column in found if column not in known]
    return found.reindex(columns=[*known, *further]).astype(typed).reset_index(drop=True)


def _check_rows(tables: dict[str, pd.DataFrame]) -> None:
    """Raise `ValueError` where a row is there twice, or of a layer that no head is of."""
    sites = set(tables["heads"]["site"])
    for name, rows in tables.items():
        if rows.duplicated(list(KEYS[name])).any() or not set(rows["site"]) <= sites:
            raise ValueError(f"{name} has other rows than the heads")


def _options(values: dict[str, Any]) -> dict[str, Any]:
    """As they are; raises `TypeError` or `ValueError` where the confidence is no number."""
    if not isinstance(values.get("confidence", 0.0), int | float):
        raise ValueError("confidence is no number")
    return dict(values)


def _plain(columns: pd.DataFrame) -> dict[str, list[Any]]:
    """A table as lists by column, None where a value is missing or infinite."""
    return {str(name): [_json(value) for value in column.tolist()] for name, column in columns.items()}


def _json(value: Any) -> Any:
    return None if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)) else value
