"""Two reports on the same inputs: what changed, head by head, and whether it is more than chance."""

from dataclasses import dataclass

import pandas as pd

from headprobe.report import Provenance


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a fine-tuned model's heads do differently from its base's.

    `heads` has a row a head and metric: `site path tower kind layer head metric base tuned change median_change
    effect dz ci_low ci_high p q sequences`. `layers` has a row a site: `site path tower kind layer heads`, then
    for `effective_heads`, `aat_heads`, `js_mean` and `rcos` (mean of the heads) `<name>_base <name>_tuned <name>_change`,
    then `drift_js`, `drift_tv` (means over heads; missing if not measured). `drift` has a row a head: `site path tower kind
    layer head js tv`, empty if not measured. `base` and `tuned` say what was compared.
    """

    base: Provenance
    tuned: Provenance
    heads: pd.DataFrame
    layers: pd.DataFrame
    drift: pd.DataFrame
    notes: tuple[str, ...] = ()
