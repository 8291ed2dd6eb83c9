"""From two reports to a comparison: sites matched, sequences paired, changes tested."""

from dataclasses import replace

import numpy as np
import pandas as pd

from headprobe.comparison.comparison import LAYER_METRICS, SITE, Comparison, table
from headprobe.comparison.conditions import metric_names, refuse_differences, site_keys
from headprobe.comparison.notes import notes_of
from headprobe.comparison.statistics import RESAMPLES, Numbers, discoveries, mean_interval, signed_rank
from headprobe.errors import InputError, UsageError
from headprobe.report import Report

# A float32 model differs from itself by up to 3e-8 of a value when it is run with another batch size or padding.
TOLERANCE = 1e-6


def compare_reports(
    base: Report,
    tuned: Report,
    drift: pd.DataFrame | None = None,
    *,
    seed: int = 0,
    confidence: float = 0.95,
) -> Comparison:
    """Compare a fine-tuned model with its base, head by head, sequence by sequence.

    `drift` is how far the attention itself moved: a row a head with `site` (the base's), `head`, `js` (nats) and `tv`
    (0 to 1), means over queries; heads that are not in the reports are left out. `seed` is the bootstrap's,
    `confidence` that of the intervals, between 0 and 1.

    A change of at most 1e-6, absolutely or of the larger value, is rounding and counts as none. What is undefined in
    one model for a sequence is left out there; a head and metric without any pair stays missing and is in no family.

    Raises `UsageError` or `InputError` where the reports can't be compared: no numbers by sequence (E-SEQUENCES),
    other options or dtype (E-CONDITIONS), other inputs or tokenizers (E-INPUTS), other sites or heads (E-SHAPES), a
    metric that `tuned` lacks (E-METRIC).
    """
    if not 0 < confidence < 1:
        raise UsageError("E-OPTION", f"confidence {confidence} is not between 0 and 1", "Give 0.95, say.")
    refuse_differences(base, tuned)
    named = base.heads.sort_values(["site", "head"]).reset_index(drop=True)
    if "tower" not in named:
        named = named.assign(tower="")
    moved = _renumbered(base, tuned)
    names = metric_names(base)
    before, after = _by_sequence(base, named, names), _by_sequence(moved, named, names)
    heads = _heads_table(named, moved, names, _settled(before, after), seed=seed, confidence=confidence)
    drifted = _drift_table(named, drift)
    return Comparison(
        base=base.provenance,
        tuned=tuned.provenance,
        heads=heads,
        layers=_layers_table(base, moved, named, drifted),
        drift=drifted,
        notes=tuple(notes_of(base, tuned, heads, np.isnan(before) != np.isnan(after))),
        options={"seed": seed, "confidence": confidence, "tolerance": TOLERANCE, "resamples": RESAMPLES},
    )


def _renumbered(base: Report, tuned: Report) -> Report:
    """The tuned model's report with the base's numbers of sites."""
    sites = {key: site for site, key in site_keys(base).items()}
    number = {site: sites[key] for site, key in site_keys(tuned).items()}
    changed = {name: getattr(tuned, name).assign(site=getattr(tuned, name)["site"].map(number)) for name in MOVED}
    return replace(tuned, **changed)


MOVED = ("heads", "layers", "sequences")


def _by_sequence(report: Report, named: pd.DataFrame, names: list[str]) -> Numbers:
    """Values by metric, head (rows of `named`) and sequence (in their order); NaN where there is none."""
    rows = report.sequences.set_index(["site", "head", "sequence"])
    if rows.index.has_duplicates:
        raise InputError("E-SEQUENCES", f"{report.provenance.model}: a head has two values for one sequence")
    sequences = np.sort(report.sequences["sequence"].unique())
    heads = pd.MultiIndex.from_frame(named[["site", "head"]])
    wide = [rows[name].unstack("sequence").reindex(index=heads, columns=sequences) for name in names]
    values = np.stack([by_head.to_numpy(dtype=np.float64, na_value=np.nan) for by_head in wide])
    return np.where(np.isfinite(values), values, np.nan)


def _settled(before: Numbers, after: Numbers) -> Numbers:
    """Changes, 0 where they are within rounding."""
    change = after - before
    scale = np.maximum(1.0, np.maximum(np.abs(before), np.abs(after)))
    return np.where(np.abs(change) <= TOLERANCE * scale, 0.0, change)


def _heads_table(
    named: pd.DataFrame, tuned: Report, names: list[str], changes: Numbers, *, seed: int, confidence: float
) -> pd.DataFrame:
    """A row a head and metric, heads in order, metrics in theirs."""
    after = tuned.heads.set_index(["site", "head"]).reindex(pd.MultiIndex.from_frame(named[["site", "head"]]))
    measured = _measure(changes.reshape(-1, changes.shape[2]), seed=seed, confidence=confidence)
    parts = []
    for i, name in enumerate(names):
        old, new = (_column(heads, name) for heads in (named, after))
        part = named[[*SITE, "head"]].assign(metric=name, base=old, tuned=new, change=_settled(old, new))
        rows = slice(i * len(named), (i + 1) * len(named))
        part = part.assign(**{column: values[rows] for column, values in measured.items()})
        parts.append(part.assign(q=discoveries(measured["p"][rows]), order=i))
    return table("heads", pd.concat(parts).sort_values(["site", "head", "order"]).drop(columns="order"))


def _column(heads: pd.DataFrame, name: str) -> Numbers:
    if name not in heads:
        return np.full(len(heads), np.nan)
    return heads[name].to_numpy(dtype=np.float64, na_value=np.nan)


def _measure(changes: Numbers, *, seed: int, confidence: float) -> dict[str, Numbers]:
    """What the changes (rows × sequences) say, by row; NaN for a row without any."""
    known = ~np.isnan(changes)
    columns = ("mean_change", "median_change", "effect", "dz", "ci_low", "ci_high", "p")
    found = {name: np.full(len(changes), np.nan) for name in columns} | {"sequences": known.sum(axis=1)}
    patterns, which = np.unique(known, axis=0, return_inverse=True)
    for i, pattern in enumerate(patterns):
        rows = which.ravel() == i
        pairs = changes[np.ix_(rows, pattern)]
        if not pairs.size:
            continue
        found["mean_change"][rows] = pairs.mean(axis=1)
        found["median_change"][rows] = np.median(pairs, axis=1)
        found["effect"][rows], found["p"][rows] = signed_rank(pairs)
        found["dz"][rows] = _standardised(pairs)
        found["ci_low"][rows], found["ci_high"][rows] = mean_interval(pairs, seed=seed, confidence=confidence)
    return found


def _standardised(pairs: Numbers) -> Numbers:
    """Means in standard deviations: 0 where nothing changes, NaN where all change by the same."""
    mean = pairs.mean(axis=1)
    spread = pairs.std(axis=1, ddof=1) if pairs.shape[1] > 1 else np.zeros(len(pairs))
    varied = spread > 1e-12 * np.abs(mean)
    return np.where(pairs.any(axis=1), np.divide(mean, spread, out=np.full(len(mean), np.nan), where=varied), 0.0)


def _drift_table(named: pd.DataFrame, drift: pd.DataFrame | None) -> pd.DataFrame:
    if drift is None:
        return table("drift", [])
    heads = pd.MultiIndex.from_frame(named[["site", "head"]])
    found = drift.set_index(["site", "head"])
    if found.index.has_duplicates:
        raise ValueError("drift has a head twice")
    found = found.reindex(heads)
    return table("drift", named[[*SITE, "head"]].assign(js=_column(found, "js"), tv=_column(found, "tv")))


def _layers_table(base: Report, tuned: Report, named: pd.DataFrame, drift: pd.DataFrame) -> pd.DataFrame:
    rows = base.layers.sort_values("site")
    if "tower" not in rows:
        rows = rows.assign(tower="")
    old, new = (report.layers.set_index("site").reindex(rows["site"]) for report in (base, tuned))
    rows = rows[[*SITE, "heads"]]
    for name in LAYER_METRICS:
        if name == "rcos":
            before, after = (_mean(heads, name, rows["site"]) for heads in (named, tuned.heads))
        else:
            before, after = _column(old, name), _column(new, name)
        values = {"base": before, "tuned": after, "change": _settled(before, after)}
        rows = rows.assign(**{f"{name}_{of}": value for of, value in values.items()})
    rows = rows.assign(**{f"drift_{name}": _mean(drift, name, rows["site"]) for name in ("js", "tv")})
    return table("layers", rows)


def _mean(heads: pd.DataFrame, name: str, sites: "pd.Series[int]") -> Numbers:
    if name not in heads:
        return np.full(len(sites), np.nan)
    return heads.groupby("site")[name].mean().reindex(sites).to_numpy(dtype=np.float64, na_value=np.nan)
