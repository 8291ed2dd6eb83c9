"""What is refused, and in which words."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from headprobe.comparison import compare_reports, conditions
from headprobe.errors import HeadprobeError, InputError, UsageError
from headprobe.report import Report
from tests.comparison.made import OPTIONS, drawn, provenance, report

Change = Callable[[Report], Report]


def option(**changes: Any) -> Change:
    return lambda made: replace(made, provenance=provenance(options={**OPTIONS, **changes}))


def without_texts(made: Report) -> Report:
    return replace(made, provenance=provenance(corpus={"source": "other"}))


def other_tokens(made: Report) -> Report:
    return replace(made, inputs=made.inputs.assign(sha256=["x" if s < 3 else h for s, h in made.inputs.to_numpy()]))


def without_layer(made: Report) -> Report:
    return replace(
        made, heads=made.heads[made.heads["layer"] != 1], layers=made.layers[made.layers["layer"] != 1],
        sequences=made.sequences[made.sequences["site"] != 1],
    )  # fmt: skip


def without_head(made: Report) -> Report:
    return replace(made, heads=made.heads[made.heads["head"] != 3], sequences=made.sequences.query("head != 3"))


REFUSED: dict[str, tuple[Change, type[HeadprobeError], str, str]] = {
    "special": (option(special="drop-keys"), UsageError, "E-CONDITIONS", "--special keep against drop-keys"),
    "length": (option(max_length=64), UsageError, "E-CONDITIONS", "--max-length 128 against 64"),
    "layers": (option(layers="0-1"), UsageError, "E-CONDITIONS", "--layers not given against 0-1"),
    "dtype": (
        lambda made: replace(made, provenance=provenance(dtype="bfloat16")),
        UsageError, "E-CONDITIONS", "dtype float32 against bfloat16",
    ),
    "tokenizer": (
        other_tokens, InputError, "E-INPUTS", "the tokenizers differ: 3 of 20 sequences have other tokens",
    ),
    "inputs": (
        lambda made: other_tokens(without_texts(made)),
        UsageError, "E-INPUTS", "the inputs differ: 3 of 20 sequences are not the same",
    ),
    "number": (
        lambda made: replace(made, inputs=made.inputs.head(12)), UsageError, "E-INPUTS", "20 sequences against 12",
    ),
    "layer lacks": (without_layer, InputError, "E-SHAPES", "only the base has encoder layer 1"),
    "heads": (without_head, InputError, "E-SHAPES", "4 heads against 3 in encoder layer 0, encoder layer 1"),
    "metric": (
        lambda made: replace(made, sequences=made.sequences.drop(columns="entropy")),
        UsageError, "E-METRIC", "the tuned model's report lacks entropy",
    ),
}  # fmt: skip


def both() -> tuple[Report, Report]:
    made = report({"rcos": drawn(0), "entropy": drawn(1)}, layers=2)
    return made, made


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compared_is_refused_in_one_line(name: str) -> None:
    change, error, code, words = REFUSED[name]
    base, tuned = both()
    tuned = change(tuned)
    assert conditions(base, tuned) == [words]
    with pytest.raises(error) as refusal:
        compare_reports(base, tuned)
    assert refusal.value.code == code
    assert words in refusal.value.problem
    assert refusal.value.hint
    assert "\n" not in str(refusal.value)


def test_several_differences_are_counted() -> None:
    base, tuned = both()
    tuned = other_tokens(option(special="drop-keys", max_length=64)(tuned))
    assert len(conditions(base, tuned)) == 3
    with pytest.raises(UsageError, match=r"--max-length 128 against 64 \(and 2 more differences\)"):
        compare_reports(base, tuned)


def test_more_layers_are_named_and_counted() -> None:
    small, large = report({"rcos": drawn()}, layers=1), report({"rcos": drawn(0, 48)}, layers=6)
    (words,) = conditions(small, large)
    assert words == "only the tuned model has encoder layer 1, encoder layer 2, encoder layer 3 and 2 more"
    (words,) = conditions(large, replace(report({"rcos": drawn()}, kind="decoder"), inputs=large.inputs))
    assert words.startswith("only the base has encoder layer 0")
    assert words.endswith("only the tuned model has encoder decoder layer 0")


@pytest.mark.parametrize(
    "changes",
    [{"limit": 40}, {"seed": 3}, {"dtype": "auto"}, {"metrics": ["rcos"]}, {"base_model": "x"}, {"from_later": 1}],
)
def test_what_shapes_no_number_is_no_difference(changes: dict[str, Any]) -> None:
    base, tuned = both()
    tuned = option(**changes)(tuned)
    assert conditions(base, tuned) == []
    compare_reports(base, tuned)


def test_a_metric_that_only_the_tuned_model_has_is_no_difference() -> None:
    base, tuned = both()
    base = replace(base, sequences=base.sequences.drop(columns="entropy"))
    assert conditions(base, tuned) == []
    assert set(compare_reports(base, tuned).heads["metric"]) == {"rcos"}


def test_reports_from_batches_have_nothing_to_pair() -> None:
    base, tuned = both()
    empty = replace(tuned, sequences=pd.DataFrame(columns=["sequence", "site", "head"]))
    for pair, name in (((base, empty), "tuned model"), ((empty, base), "base")):
        with pytest.raises(InputError, match=f"the {name}'s report has no numbers by sequence") as refusal:
            compare_reports(*pair)
        assert refusal.value.code == "E-SEQUENCES"


def test_two_values_for_one_sequence_are_refused() -> None:
    base, tuned = both()
    twice = replace(tuned, sequences=pd.concat([tuned.sequences, tuned.sequences.head(1)]))
    with pytest.raises(InputError, match="two values for one sequence"):
        compare_reports(base, twice)
