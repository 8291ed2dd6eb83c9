"""The waist of the house: what a scan found, as provenance and tables. No tensor below it, no pixel above it."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd

from headprobe.errors import InputError, UsageError, nearest
from headprobe.write import read_document, write_output

SCHEMA = "headprobe.report"
SCHEMA_VERSION = "1.3"
SITE = ("site", "path", "kind", "layer")
NAMES: dict[str, tuple[str, ...]] = {  # the columns that name a row of each table
    "heads": (*SITE, "head", "kv_group"),
    "layers": (*SITE, "heads"),
    "pairs": ("site_a", "layer_a", "head_a", "site_b", "layer_b", "head_b", "same_kv_group"),
    "sequences": ("sequence", "site", "head"),
    "baselines": SITE,
    "inputs": ("sequence",),
    "null_heads": ("run", *SITE, "head"),
    "null_layers": ("run", *SITE, "heads"),
    "types": (*SITE, "head"),
    "groups": ("scope", "block", *SITE, "head"),
    "examples": ("example", "shows", "sequence", "site", "head", "excerpt", "tokens", "keys", "weights"),
}
LATER = ("null_heads", "null_layers", "types", "groups", "examples")  # tables that reports of schema 1.0 to 1.2 lack
MAY_BE_EMPTY = ("pairs", "sequences", "inputs")  # without pairs, or of batches that were made by hand
TABLES = tuple(NAMES)
MATRICES = ("js", "cos", "bc", "cka", "cka_unbiased", "ocos", "ocos_centred")  # symmetric quantities of pairs
WORDS = ("path", "tower", "kind", "sha256", "type", "scope", "shows")
LISTS = ("tokens", "keys", "weights")  # columns whose cells are lists
ABOUT = ("model", "model_class", "commit", "dtype", "device")  # words of a provenance, the first two always there


@dataclass(frozen=True)
class Provenance:
    """What was measured, on what, with what: enough to repeat the scan and to tell two scans apart.

    `files` maps the checkpoint's file names to their SHA-256, `corpus` says what the model was run on, `options` which
    options shaped the numbers, `versions` what computed them.
    """

    model: str
    model_class: str
    commit: str | None = None
    dtype: str = ""
    device: str = ""
    files: dict[str, str] = field(default_factory=dict)
    corpus: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """What a file has of it; raises `KeyError`, `TypeError` or `ValueError` where it is damaged."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values or name in ABOUT[:2]}
        for name, value in known.items():
            if not isinstance(value, str if name in ABOUT else dict) and not (name == "commit" and value is None):
                raise ValueError(f"{name} is {value!r}")
        made = cls(**known)
        words = [*made.files.values(), *made.versions.values(), made.corpus.get("source", "")]
        counts = [made.corpus.get(name) or 0 for name in ("sequences", "tokens")]
        if not all(isinstance(word, str) for word in words) or not all(isinstance(count, int) for count in counts):
            raise ValueError("files, versions or corpus have other values than words and counts")
        return made


@dataclass(frozen=True, eq=False)
class Report:
    """A scan's result.

    `heads` has a row a head, `layers` a row a site, `pairs` a row an unordered pair, `sequences` a row a sequence and
    head, `baselines` a row a site with what uniform attention under the same mask gives, `inputs` a row a sequence.
    With a null model `null_heads` and `null_layers` are its heads and layers, once for every draw (`run`); else empty.
    `types` has a row a head: scores of what it is for, each beyond uniform attention, and a `type` where one is clear.
    `groups` has a row a head and scope: which heads attend alike in its layer, and over the model where that was asked.
    `examples` has a row a head and text, where texts were asked for: `weights` is a list of rows, one for each of
    `tokens`, with a weight for each of `keys`. It is the model's own attention, whatever was done with special tokens.
    A quantity that is undefined is missing (NaN), never 0. `notes` are things that a reader should know.
    """

    provenance: Provenance
    heads: pd.DataFrame
    layers: pd.DataFrame
    pairs: pd.DataFrame
    sequences: pd.DataFrame
    baselines: pd.DataFrame
    inputs: pd.DataFrame
    notes: tuple[str, ...] = ()
    null_heads: pd.DataFrame = field(default_factory=lambda: no_rows("null_heads"))
    null_layers: pd.DataFrame = field(default_factory=lambda: no_rows("null_layers"))
    types: pd.DataFrame = field(default_factory=lambda: no_rows("types"))
    groups: pd.DataFrame = field(default_factory=lambda: no_rows("groups"))
    examples: pd.DataFrame = field(default_factory=lambda: no_rows("examples"))

    def matrix(
        self, metric: str = "js", *, layer: int | None = None, kind: str | None = None, tower: str | None = None
    ) -> pd.DataFrame:
        """A similarity matrix, heads × heads: "kl" is KL(row ‖ column), any other column of pairs is symmetric.

        With `layer` the heads of that layer, else of all layers whose pairs were measured; pairs that were not
        measured are missing. `kind` and `tower` are needed where a layer number is ambiguous. Raises `UsageError` for
        a metric, layer, kind or tower that the report doesn't have.
        """
        found = [name for name in map(str, self.pairs) if name not in NAMES["pairs"]]
        symmetric = (*MATRICES, *(name for name in found if not name.endswith(("_ab", "_ba"))))
        valid = {"kl": ("kl_ab", "kl_ba"), **{name: (name, name) for name in symmetric}}
        if metric not in valid:
            raise UsageError("E-METRIC", f'no pair metric "{metric}"', nearest(metric, valid))
        columns = valid[metric]
        if not set(columns) <= set(self.pairs):
            raise UsageError(
                "E-METRIC", f"the report has no {metric} of pairs", f"Scan with --pairs and --metrics {metric}."
            )
        heads = self._heads_of(layer, kind, tower)
        labels = pd.MultiIndex.from_frame(heads[["site", "layer", "head"]])
        matrix = pd.DataFrame(float("nan"), index=labels, columns=labels)
        position = {(site, head): i for i, (site, _, head) in enumerate(labels)}
        values = matrix.to_numpy(copy=True)
        for i in range(len(labels)):
            values[i, i] = 0.0 if metric in ("js", "kl") else 1.0
        for pair in self.pairs.to_dict("records"):
            a, b = position.get((pair["site_a"], pair["head_a"])), position.get((pair["site_b"], pair["head_b"]))
            if a is not None and b is not None:
                values[a, b], values[b, a] = pair[columns[0]], pair[columns[1]]
        return pd.DataFrame(values, index=labels, columns=labels)

    def excess(self, table: Literal["heads", "layers"] = "heads") -> pd.DataFrame:
        """A row a head or layer: every number minus the mean of the null model's draws, beside what names the row.

        Raises `UsageError` where no null model was measured.
        """
        mine, null = getattr(self, table), getattr(self, f"null_{table}")
        if null.empty:
            raise UsageError("E-NULL", "the report has no null model", "Scan with --null random-init.")
        names = [name for name in mine if name in (*NAMES[table], "tower", "window", "sequences", "queries")]
        found = [name for name in mine if name in null and name not in names and not name.startswith("nearest_")]
        key = ["site", "head"] if table == "heads" else ["site"]
        means = null.groupby(key)[found].mean()
        excess: pd.DataFrame = mine.set_index(key)[found] - means
        joined: pd.DataFrame = mine[names].join(excess, on=key)
        return joined

    def _heads_of(self, layer: int | None, kind: str | None, tower: str | None) -> pd.DataFrame:
        heads = self.heads
        for name, wanted in (("kind", kind), ("tower", tower)):
            if wanted is not None:
                known = set(heads[name]) if name in heads else set()
                heads = heads[heads[name] == wanted] if name in heads else heads.head(0)
                if heads.empty:
                    raise UsageError(
                        f"E-{name.upper()}", f"no {wanted} attention in the report", nearest(wanted, known)
                    )
        if layer is None:
            return heads
        layers = sorted(set(heads["layer"]))
        heads = heads[heads["layer"] == layer]
        if heads.empty:
            raise UsageError("E-LAYERS", f"no layer {layer} in the report", f"Valid: {', '.join(map(str, layers))}.")
        if heads["site"].nunique() > 1:
            name = "kind" if heads["kind"].nunique() > 1 else "tower"
            several = sorted(set(heads[name])) if name in heads else []
            raise UsageError(
                f"E-{name.upper()}",
                f"layer {layer} stands for {heads['site'].nunique()} layers of attention",
                f"Choose with --{name}: {', '.join(several)}.",
            )
        return heads

    def without_examples(self) -> Self:
        """The same numbers without any text."""
        if self.examples.empty:
            return self
        told = replace(self.provenance, options={**self.provenance.options, "examples": False})
        return replace(self, provenance=told, examples=no_rows("examples"))

    @property
    def results_sha256(self) -> str:
        """Hash of the tables: two scans with the same numbers have the same hash, wherever and whenever they ran."""
        tables = {name: _plain(getattr(self, name)) for name in TABLES}
        tables = {name: table for name, table in tables.items() if any(table.values()) or name not in LATER}
        return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()

    def document(self) -> dict[str, Any]:
        """The whole report as JSON values: what `save` writes and `load` reads."""
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "provenance": asdict(self.provenance),
            "notes": list(self.notes),
            "results_sha256": self.results_sha256,
            "tables": {name: _plain(getattr(self, name)) for name in TABLES},
        }

    def save(self, path: str | Path) -> list[Path]:
        """Write the report: `.json` the whole, `.csv` or `.parquet` the heads, a folder all. Whole or not at all.

        Returns the files written. Raises `UsageError` for another suffix, `EnvironmentFailure` where the path can't
        be written.
        """
        tables = {name: getattr(self, name) for name in TABLES}
        return write_output(Path(path), self.document(), tables)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a report that was saved as `.json`, or the folder with its `report.json`."""
        where = Path(path) / "report.json" if Path(path).is_dir() else Path(path)
        document = read_document(where)
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise InputError("E-REPORT", f"{where} is no headprobe report")
        if str(document.get("schema_version")).split(".")[0] != SCHEMA_VERSION.split(".")[0]:
            raise InputError(
                "E-REPORT", f"{where} has schema version {document.get('schema_version')}, this is {SCHEMA_VERSION}"
            )
        try:
            provenance = Provenance.of(document["provenance"])
            tables = {name: _table(name, document["tables"].get(name, {})) for name in TABLES}
            notes = tuple(str(note) for note in document["notes"])
        except (KeyError, TypeError, AttributeError, ValueError) as fault:
            raise InputError("E-REPORT", f"{where} is damaged: {fault!r}") from fault
        report = cls(provenance=provenance, notes=notes, **tables)
        if document.get("results_sha256") != report.results_sha256:
            raise InputError("E-REPORT", f"{where} was changed after it was saved: its numbers don't fit its hash")
        return report


def no_rows(table: str) -> pd.DataFrame:
    """A table with nothing in it but the names of its first columns."""
    return pd.DataFrame(columns=list(NAMES[table]), dtype="float64")


def _plain(table: pd.DataFrame) -> dict[str, list[Any]]:
    """A table as lists by column, None where a value is missing."""
    return {
        str(name): [
            None if missing else value for value, missing in zip(column.tolist(), _unknown(column), strict=True)
        ]
        for name, column in table.items()
    }


def _unknown(column: "pd.Series[Any]") -> "pd.Series[bool]":
    """Missing, or infinite, which JSON has no word for."""
    return column.isna() if column.name in LISTS else column.isna() | column.isin([float("inf"), float("-inf")])


def _table(kind: str, columns: dict[str, list[Any]]) -> pd.DataFrame:
    """A table from its columns; raises `ValueError` if it lacks what names a row, or has other cells than it can."""
    wrong = next((name for name, values in columns.items() if not set(map(type, values)) <= _cells(kind, name)), None)
    if wrong is not None:
        raise ValueError(f"{kind} has cells in {wrong} that can't be there")
    table = pd.DataFrame(columns)
    if kind in LATER and not any(columns.values()):
        return no_rows(kind)
    if kind in MAY_BE_EMPTY and not columns:
        return table
    absent = [name for name in NAMES[kind] if name not in table or bool(table[name].isna().any())]
    if absent:
        raise ValueError(f"{kind} has no {absent[0]}")
    unknown = [name for name, values in columns.items() if values and all(value is None for value in values)]
    table[unknown] = table[unknown].astype("float64")
    for name in ("nearest_layer", "nearest_head", "window"):
        if name in table:
            table[name] = table[name].astype("Int64")
    if kind == "examples":
        _check_lists(table)
    return table


def _cells(kind: str, name: str) -> set[type]:
    """What a column's cells can be: whole numbers (or yes and no) where they name a row, else numbers or nothing."""
    if name in WORDS or name in LISTS:
        return {list} if name in LISTS else {str, type(None)}
    return {int, bool} if name in NAMES[kind] else {int, float, bool, type(None)}


def _check_lists(table: pd.DataFrame) -> None:
    """Raise `ValueError` unless every example has a weight for each of its tokens and keys."""
    for tokens, keys, weights in zip(*(table[name] for name in LISTS), strict=True):
        if not (isinstance(weights, list) and all(isinstance(row, list) for row in weights)):
            raise ValueError("weights of an example are no rows")
        words = all(isinstance(side, list) and all(isinstance(word, str) for word in side) for side in (tokens, keys))
        numbers = all(isinstance(weight, int | float) for row in weights for weight in row)
        if not (words and numbers and [len(row) for row in weights] == [len(keys)] * len(tokens)):
            raise ValueError("weights of an example don't fit its tokens")
