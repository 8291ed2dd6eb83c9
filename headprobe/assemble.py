"""Totals become tables: the last step of a scan, and the last that sees a tensor."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from headprobe.capture.validate import ROW_TOLERANCE
from headprobe.collect import BASELINES, Collector
from headprobe.errors import InputError
from headprobe.groups import Sampled, group_table
from headprobe.headtypes import head_types
from headprobe.load.collate import Measured
from headprobe.metrics import Metric, Values
from headprobe.pair_table import Compared, nearest, pair_table
from headprobe.report import Provenance, Report
from headprobe.tile import Site

HEADS = (
    "site", "path", "tower", "kind", "layer", "head", "kv_group", "sequences", "queries",
    "row_error", "leak", "zero_frac",
    "aat_fro", "aat_sq", "aat_unit", "aat01", "overlap", "diffuse", "rcos", "rcos_excess",
    "aat_heads_share", "entropy", "entropy_norm", "eff_keys", "confidence",
    "self_mass", "prev_mass", "next_mass", "first_mass", "first_mass_excl_first", "special_mass",
    "mean_distance", "mean_distance_excl_first", "sink_virtual", "dropped_mass",
    "local_mass", "far_mass", "delimiter_mass", "segment_mass", "one_to_one", "monotone", "alignment",
    "induction_mass", "duplicate_mass",
    "norm_sum", "norm_entropy", "norm_confidence", "norm_self", "norm_first", "norm_special",
    "kl_mean", "js_mean", "nearest_layer", "nearest_head", "nearest_js",
)  # fmt: skip
LAYERS = (
    "site", "path", "tower", "kind", "layer", "heads", "window", "queries", "aat_heads", "aat_heads_queries",
    "rcos_heads", "kl_mean", "kl_inf_frac", "js_mean", "effective_heads", "effective_heads_2",
)  # fmt: skip
PAIRS = (
    "site_a", "layer_a", "head_a", "site_b", "layer_b", "head_b", "same_kv_group", "cos", "js", "kl_ab", "kl_ba", "bc",
    "cka", "cka_unbiased", "ocos", "ocos_centred",
)  # fmt: skip

Row = dict[str, Any]


def assemble(
    collector: Collector,
    columns: frozenset[str],
    inputs: Sequence[Measured],
    provenance: Provenance,
    notes: list[str],
    *,
    allow_invalid: bool,
) -> Report:
    """The report of everything that a collector has seen, with the chosen `columns`."""
    sites = sorted(collector.queries, key=lambda site: site.index)
    values = {site: _compute(collector.metrics, collector.totals[site]) for site in sites}
    if not allow_invalid:
        _refuse_invalid(values, provenance.dtype)
    compared = _compared(collector, sites, values)
    head_table = pd.DataFrame([row for site in sites for row in _head_rows(site, values[site], collector)])
    if any("js" in group.matrices for group in compared):
        head_table = head_table.merge(nearest(compared), how="left", on=["site", "head"])
    keep = columns | {"dropped_mass", *(("nearest_layer", "nearest_head", "nearest_js") if "js" in columns else ())}
    heads = _frame(head_table, HEADS, keep)
    baselines = _frame([_baseline_row(site, values[site], collector) for site in sites], HEADS, keep)
    report = Report(
        provenance=provenance,
        heads=heads,
        layers=_frame([_layer_row(site, values[site], collector) for site in sites], LAYERS, keep),
        pairs=_frame(pair_table(compared), PAIRS, keep | {"kl_ab", "kl_ba"} & columns),
        sequences=_sequences(values, keep),
        baselines=baselines,
        inputs=pd.DataFrame([_input_row(item) for item in inputs], columns=["sequence", "length", "cut", "sha256"]),
        notes=tuple(notes),
        types=head_types(heads, baselines),
    )
    return replace(report, groups=group_table(report, _sampled(collector)))


def _compute(metrics: Iterable[Metric], totals: dict[str, Any]) -> list[Values]:
    return [metric.compute(totals[metric.name]) for metric in metrics if metric.name in totals]


def _refuse_invalid(values: dict[Site, list[Values]], dtype: str) -> None:
    """M0 over the whole scan: the first batch was checked when it came."""
    tolerance = ROW_TOLERANCE.get(getattr(torch, dtype, torch.float32), max(ROW_TOLERANCE.values()))
    for site, computed in values.items():
        heads = {name: column for part in computed for name, column in part.heads.items()}
        error, leak = float(heads["row_error"].max()), float(heads["leak"].max())
        if not (error <= tolerance and leak <= 1e-6):  # a NaN is no number within bounds
            raise InputError(
                "E-INVALID",
                f"attention of {site.path} is no distribution: rows are off one by up to {error:.3g},"
                f" and up to {leak:.3g} of their mass is on hidden keys",
                "Measure it all the same with --allow-invalid.",
            )


def _numbers(column: Tensor) -> list[float]:
    return [float(value) for value in column.double().cpu()]


def _named(site: Site) -> Row:
    return {"site": site.index, "path": site.path, "tower": site.tower, "kind": site.kind, "layer": site.layer}


def _head_rows(site: Site, values: list[Values], collector: Collector) -> list[Row]:
    columns = {name: _numbers(column) for part in values for name, column in part.heads.items()}
    if site in collector.dropped:
        columns["dropped_mass"] = _numbers(collector.dropped[site].mean()[:, 0])
    common = _named(site)
    counts = {"sequences": len(collector.sequences[site]), "queries": int(collector.queries[site])}
    return [
        {**common, "head": head, "kv_group": site.kv_group(head), **counts}
        | {name: column[head] for name, column in columns.items()}
        for head in range(site.heads)
    ]


def _layer_row(site: Site, values: list[Values], collector: Collector) -> Row:
    row = _named(site) | {"heads": site.heads, "window": site.window, "queries": int(collector.queries[site])}
    return row | {name: float(value) for part in values for name, value in part.layers.items()}


def _baseline_row(site: Site, values: list[Values], collector: Collector) -> Row:
    row = _named(site) | {name: float(value) for part in values for name, value in part.baseline.items()}
    metrics = [metric for metric in collector.metrics if metric.name in BASELINES]
    for part in _compute(metrics, collector.baselines[site]):
        row |= {name: float(column[0]) for name, column in part.heads.items()}
    return row


def _sequences(values: dict[Site, list[Values]], keep: Iterable[str]) -> pd.DataFrame:
    """A row a sequence and head of each site, with the columns that are kept for paired comparisons.

    A metric that was not defined on a sequence is missing there.
    """
    kept = {site: [part for part in parts if part.sequences] for site, parts in values.items()}
    found = {site: _sequences_of(site, parts) for site, parts in kept.items() if parts}
    if not found:
        return _frame([], (), keep)
    chosen = {"sequence", "site", "head", *keep}
    names = [name for name in dict.fromkeys(name for columns in found.values() for name in columns) if name in chosen]
    missing = {site: np.full(len(columns["head"]), np.nan) for site, columns in found.items()}
    return pd.DataFrame(
        {name: np.concatenate([columns.get(name, missing[site]) for site, columns in found.items()]) for name in names}
    )


def _sequences_of(site: Site, parts: list[Values]) -> dict[str, Any]:
    """The metrics of a site side by side, [sequence and head] each."""
    numbers = np.unique(np.concatenate([part.numbers for part in parts]))
    columns: dict[str, Any] = {
        "sequence": np.repeat(numbers, site.heads),
        "site": np.full(len(numbers) * site.heads, site.index),
        "head": np.tile(np.arange(site.heads), len(numbers)),
    }
    for part in parts:
        rows = np.searchsorted(numbers, part.numbers)
        for name, matrix in part.sequences.items():
            column = np.full((len(numbers), site.heads), np.nan)
            column[rows] = matrix.cpu().numpy()
            columns[name] = column.ravel()
    return columns


def _compared(collector: Collector, sites: list[Site], values: dict[Site, list[Values]]) -> list[Compared]:
    """The heads that were compared with each other: within each site, or across the sites of each pool."""
    if collector.pools:
        return [Compared(pool.sites, _matrices(_compute(collector.metrics, pool.totals))) for pool in collector.pools]
    return [Compared((site,), _matrices(values[site])) for site in sites]


def _matrices(values: list[Values]) -> dict[str, Any]:
    return {name: matrix.double().cpu().numpy() for part in values for name, matrix in part.pairs.items()}


def _sampled(collector: Collector) -> list[Sampled]:
    """JS of all pairs by sequence, where it was kept: to draw from the sequences."""
    totals = [(pool.sites, pool.totals) for pool in collector.pools] or [
        ((site,), totals) for site, totals in collector.totals.items()
    ]
    found = []
    for sites, seen in totals:
        kept = getattr(seen.get("js"), "kept", None)
        if kept is not None:
            sums, counts = (part.cpu().numpy() for part in kept.by_sequence())
            heads = tuple((site.index, head) for site in sites for head in range(site.heads))
            found.append(Sampled(heads, sums, counts[:, 0, 0]))
    return found


def _input_row(item: Measured) -> Row:
    return {"sequence": item.number, "length": item.length, "cut": item.was_cut, "sha256": item.sha256}


def _frame(rows: list[Row] | pd.DataFrame, order: tuple[str, ...], keep: Iterable[str]) -> pd.DataFrame:
    """Rows as a table: what names a row first, then the columns to `keep` in the given order, plug-ins' last."""
    kept = set(keep)
    names = {"sequence", *HEADS[:9], *LAYERS[:8], *PAIRS[:7]}
    table = pd.DataFrame(rows)
    found = [str(name) for name in table]
    chosen = [name for name in order if name in found] + [name for name in found if name not in order]
    table = table[[name for name in chosen if name in names or name in kept]]
    for name in ("nearest_layer", "nearest_head", "window"):
        if name in table:
            table = table.astype({name: "Int64"})
    return table
