"""Scans of what heads give and write, against the slow float64 implementation over the models' own modules.

The reference sees each sequence alone, and reads what goes into projections and comes out of them by hooks of its own.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import headprobe
from headprobe import budget
from headprobe.errors import EnvironmentFailure, InputError, UsageError
from headprobe.plan import plan
from tests import oracle_outputs
from tests.capture.models import CONFIGS
from tests.capture.watching import make
from tests.conftest import SAMPLES, Run

ROWS = [(100, "H1   0.79  1.00 -0.00"), (45, "H1  0.79 1.00 -.00"), (20, "H1 9955")]
PAIRS = ["cka", "cka_unbiased", "ocos", "ocos_centred"]
NORMS = ["norm_sum", "norm_entropy", "norm_confidence", "norm_self", "norm_first"]
LENGTHS = (9, 5, 12, 3)
# By the class of a layer's attention: its output projection, its values, and where values are one of three parts.
PARTS: dict[str, tuple[str, str, bool]] = {
    "BertSelfAttention": ("../output.dense", "value", False),
    "LlamaAttention": ("o_proj", "v_proj", False),
    "BartAttention": ("out_proj", "v_proj", False),
    "GPT2Attention": ("c_proj", "c_attn", True),
    "T5Attention": ("o", "v", False),
}
MODELS = ("minilm", "tiny-bert", "tiny-llama", "tiny-bart", "gpt2", "t5")
WAYS: tuple[dict[str, Any], ...] = ({"size": 1}, {"size": 4}, {"size": 4, "tiles": 150_000}, {"size": 2, "left": 3})


def load(name: str, minilm: Path) -> Any:
    if name in CONFIGS:
        return make(CONFIGS[name]())
    folder = minilm if name == "minilm" else SAMPLES / name
    return hf.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def sequences(model: Any) -> list[dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(1)
    size = min(model.config.vocab_size, 1000)
    found = []
    for length in LENGTHS:
        ids = torch.randint(5, size, (1, length), generator=rng)
        reads = {"decoder_input_ids": ids[:, : max(3, length - 2)]} if model.config.is_encoder_decoder else {}
        found.append({"input_ids": ids, **reads})
    return found


def batches(model: Any, size: int, left: int = 0) -> list[dict[str, Tensor]]:
    """The sequences, so many at a time, padded on the right, and on the left of those that are read from there."""
    found, every = [], sequences(model)
    for start in range(0, len(every), size):
        part = every[start : start + size]
        batch: dict[str, Tensor] = {}
        for name in part[0]:
            longest = left + max(each[name].shape[1] for each in part)
            pad = [(left, longest - left - each[name].shape[1]) for each in part]
            rows = [nn.functional.pad(each[name], ends, value=1) for each, ends in zip(part, pad, strict=True)]
            masks = [nn.functional.pad(torch.ones_like(each[name]), ends) for each, ends in zip(part, pad, strict=True)]
            batch |= {name: torch.cat(rows), name.replace("input_ids", "attention_mask"): torch.cat(masks)}
        found.append(batch)
    return found


@dataclass
class Seen:
    """Of one site: what its heads give and write if taken, by sequence, and what its projection made of all of it."""

    z: list[np.ndarray]
    written: list[np.ndarray]  # [head, key, width]: of values
    probs: list[np.ndarray]  # [head, query, key]
    made: list[np.ndarray]
    weights: np.ndarray  # [head, feature, width]
    bias: np.ndarray

    def heads(self) -> list[np.ndarray]:
        """[head] of [query, feature], over all sequences."""
        return list(np.concatenate(self.z, 1))


def modules_of(model: Any, path: str) -> tuple[nn.Module, nn.Module, bool]:
    projection, value, fused = PARTS[type(model.get_submodule(path)).__name__]
    parent, child = (path.rsplit(".", 1)[0], projection[3:]) if projection.startswith("../") else (path, projection)
    return model.get_submodule(f"{parent}.{child}"), model.get_submodule(f"{path}.{value}"), fused


def watched(model: Any, path: str, run: Callable[[], Any]) -> tuple[Tensor, Tensor, Tensor, Any]:
    """Of one run of one sequence what a site's projection read and made, its values, and the model's output."""
    projection, value, fused = modules_of(model, path)
    seen: dict[str, Tensor] = {}
    hooks = [
        projection.register_forward_hook(lambda _, args, out: seen.update(z=args[0][0], made=out[0])),
        value.register_forward_hook(lambda _, args, out: seen.update(v=out[0].chunk(3, -1)[2] if fused else out[0])),
    ]
    with torch.no_grad():
        output = run()
    for hook in hooks:
        hook.remove()
    return seen["z"], seen["made"], seen["v"], output


def truth(model: Any, site: Any) -> Seen:
    """What the reference knows of a site, given by its row of a layers table."""
    projection, _, _ = modules_of(model, site["path"])
    turned = type(projection).__name__ != "Conv1D"
    weight = projection.get_parameter("weight").detach().double()
    weights = (weight.T if turned else weight).unflatten(0, (site["heads"], -1)).numpy()
    bias = getattr(projection, "bias", None)
    found = Seen([], [], [], [], weights, np.zeros(1) if bias is None else bias.detach().double().numpy())
    for inputs in sequences(model):

        def run(given: dict[str, Tensor] = inputs) -> Any:
            return model(**given, output_attentions=True)

        z, made, v, output = watched(model, site["path"], run)
        names = {"cross": "cross_attentions", "decoder": "decoder_attentions", "encoder": "encoder_attentions"}
        maps = output[names[site["kind"]]] if model.config.is_encoder_decoder else output.attentions
        probs = maps[site["layer"]][0].double().numpy()
        values = v.double().unflatten(-1, (-1, weights.shape[1])).transpose(0, 1).numpy()
        values = values.repeat(len(weights) // len(values), 0)  # of grouped heads
        found.z.append(z.double().unflatten(-1, (site["heads"], -1)).transpose(0, 1).numpy())
        found.made.append(made.double().numpy())
        found.probs.append(probs)
        found.written.append(values @ weights)
    return found


@cache
def loaded(name: str, minilm: Path) -> tuple[Any, pd.DataFrame, dict[int, Seen]]:
    model = load(name, minilm)
    layers = headprobe.scan(model, batches=batches(model, 4), metrics=["js"]).layers
    return model, layers, {site["site"]: truth(model, site) for site in layers.to_dict("records")}


@pytest.fixture(params=MODELS)
def known(request: pytest.FixtureRequest, minilm: Path) -> tuple[Any, pd.DataFrame, dict[int, Seen]]:
    return loaded(request.param, minilm)


def test_what_the_heads_write_is_what_the_layer_writes(known: tuple[Any, pd.DataFrame, dict[int, Seen]]) -> None:
    """Of the reference itself, by which the weights that it took are those of the model."""
    for seen in known[2].values():
        for z, made in zip(seen.z, seen.made, strict=True):
            assert np.allclose((z @ seen.weights).sum(0) + seen.bias, made, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_scans_give_what_the_reference_gives(
    known: tuple[Any, pd.DataFrame, dict[int, Seen]], way: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "TILES", way.get("tiles", 8))
    model, layers, seen = known
    left = way.get("left", 0) if type(model).__name__ == "LlamaModel" else 0  # others would shift their positions
    given = batches(model, way["size"], left)
    report = headprobe.scan(model, batches=given, metrics=["cka", "ocos", "norms"])
    for site in layers.to_dict("records"):
        mine = seen[site["site"]]
        heads = mine.heads()
        expected = oracle_outputs.of_outputs(heads) | oracle_outputs.of_written(heads, list(mine.weights))
        pairs = report.pairs[report.pairs["site_a"] == site["site"]]
        for name in PAIRS:
            value = expected[name][pairs["head_a"], pairs["head_b"]]
            assert pairs[name].to_numpy() == pytest.approx(value, rel=1e-3, abs=3e-5), name
        rows = report.heads[report.heads["site"] == site["site"]]
        for head in range(site["heads"]):
            norms = oracle_outputs.norms([probs[head] for probs in mine.probs], [f[head] for f in mine.written])
            found = rows.iloc[head]
            if site["kind"] == "cross":
                assert np.isnan(found["norm_self"])
                norms["norm_self"] = found["norm_self"]
            assert found[NORMS].to_numpy(dtype=float) == pytest.approx(
                [norms[name] for name in NORMS], rel=1e-4, abs=1e-6, nan_ok=True
            )


def test_pairs_across_layers_are_those_of_all_outputs(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, seen = loaded("tiny-llama", minilm)
    heads = [z for site in sorted(seen) for z in seen[site].heads()]
    weights = [w for site in sorted(seen) for w in seen[site].weights]
    expected = oracle_outputs.of_outputs(heads) | oracle_outputs.of_written(heads, weights)
    for tiles in (8, 150_000):
        monkeypatch.setattr(budget, "TILES", tiles)
        report = headprobe.scan(model, batches=batches(model, 1), metrics=["js", "cka", "ocos"], pairs="model")
        for name in PAIRS:
            found = report.matrix(name).to_numpy()
            assert found == pytest.approx(expected[name], rel=1e-3, abs=3e-5), name


def plant(minilm: Path, change: Callable[[Any, slice, slice], None]) -> pd.Series:
    """The first pair of MiniLM's first layer, after a change of its second head."""
    model = load("minilm", minilm)
    attention = model.encoder.layer[0].attention
    with torch.no_grad():
        change(attention, slice(0, 32), slice(32, 64))
    report = headprobe.scan(model, batches=batches(model, 2), metrics=["js", "cka", "ocos"])
    return report.pairs[(report.pairs["site_a"] == 0) & (report.pairs["head_b"] == 1)].iloc[0]


def copy_rows(linear: nn.Linear, one: slice, other: slice) -> None:
    linear.weight[other] = linear.weight[one]
    linear.bias[other] = linear.bias[one]


def test_the_same_attention_with_other_values(minilm: Path) -> None:
    """Each head tells one feature of what it looks at, and not the same one."""

    def change(attention: Any, one: slice, other: slice) -> None:
        copy_rows(attention.self.query, one, other)
        copy_rows(attention.self.key, one, other)
        for head, feature in ((one, torch.randn(1, 384)), (other, torch.randn(1, 384))):
            attention.self.value.weight[head] = torch.randn(32, 1) @ feature

    found = plant(minilm, change)
    assert found["js"] < 1e-6
    assert found["cka"] < 0.5
    assert abs(found["ocos_centred"]) < 0.5


def test_the_same_attention_with_the_same_values_turned(minilm: Path) -> None:
    turn = torch.linalg.qr(torch.randn(32, 32))[0]

    def change(attention: Any, one: slice, other: slice) -> None:
        for linear in (attention.self.query, attention.self.key, attention.self.value):
            copy_rows(linear, one, other)
        value, dense = attention.self.value, attention.output.dense
        value.weight[other], value.bias[other] = turn @ value.weight[one], turn @ value.bias[one]
        dense.weight[:, other] = dense.weight[:, one] @ turn.T  # so that the same is written

    found = plant(minilm, change)
    assert found["js"] < 1e-6
    assert found[PAIRS].to_numpy(dtype=float) == pytest.approx(1, abs=1e-5)


def test_other_attention_that_writes_the_same(minilm: Path) -> None:
    """Each head looks elsewhere and every value is the same: nothing varies, and the same is written."""

    def change(attention: Any, one: slice, other: slice) -> None:
        attention.self.query.weight[other] *= 8
        attention.self.value.weight[:64] = 0
        attention.self.value.bias[other] = attention.self.value.bias[one]
        attention.output.dense.weight[:, other] = attention.output.dense.weight[:, one]

    found = plant(minilm, change)
    assert found["js"] > 0.05
    assert found["ocos"] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("special", ["keep", "drop-queries", "drop-keys"])
def test_special_tokens_are_left_out_as_samples_alone(minilm: Path, special: str) -> None:
    texts = ["What a head looks at is not what it writes.", "Short.", "Two heads may look at the same tokens, or not."]
    report = headprobe.scan(str(minilm), texts=texts, special=special, metrics=["cka", "ocos"], batch_size=3)
    model: Any = load("minilm", minilm)
    tokenizer = hf.AutoTokenizer.from_pretrained(minilm)
    by_head: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    for text in texts:
        given = tokenizer(text, return_tensors="pt")
        z, *_ = watched(model, "encoder.layer.2.attention.self", lambda given=given: model(**given))  # type: ignore[misc]
        z = z[1:-1] if special == "drop-queries" else z
        for head, part in enumerate(z.double().unflatten(-1, (12, -1)).transpose(0, 1).numpy()):
            by_head[head].append(part)
    expected = oracle_outputs.of_outputs([np.concatenate(by_head[head]) for head in range(12)])["cka_unbiased"]
    pairs = report.pairs[report.pairs["site_a"] == 2]
    value = expected[pairs["head_a"], pairs["head_b"]]
    assert pairs["cka_unbiased"].to_numpy() == pytest.approx(value, rel=1e-3, abs=3e-5)


def test_nothing_of_it_is_measured_or_held_unasked(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _ = loaded("tiny-llama", minilm)
    passes = []
    hook = model.register_forward_hook(lambda *_: passes.append(1))
    everything = headprobe.scan(model, batches=batches(model, 4))
    hook.remove()
    assert len(passes) == 1
    assert not {*PAIRS, *NORMS} & {*everything.pairs, *everything.heads}
    with pytest.raises(UsageError, match="leaves out cka"):
        headprobe.scan(model, batches=batches(model, 4), metrics=["cka"], pairs="none")


def test_sums_that_do_not_fit_are_refused(minilm: Path) -> None:
    model, _, _ = loaded("minilm", minilm)
    with pytest.raises(EnvironmentFailure, match=r"cka, ocos and norms hold .* bytes"):
        headprobe.scan(model, batches=batches(model, 1), metrics=["cka", "ocos"], max_memory="3MB")


@pytest.mark.parametrize("pairs", ["layer", "model"])
@pytest.mark.parametrize("metrics", [["cka"], ["cka", "ocos"], ["norms"]])
def test_a_forecast_of_sums_is_what_a_scan_refuses(minilm: Path, metrics: list[str], pairs: str) -> None:
    chosen: dict[str, Any] = {"metrics": metrics, "pairs": pairs, "layers": "1-3", "limit": 1, "max_length": 8}
    sums = plan(str(minilm), **chosen).sums_bytes
    width, heads, workers = 384, 12, torch.get_num_threads()
    kept = 3 * width**2 + (3 * width) ** 2 * (pairs == "model")
    room = max((workers + 2) * width**2, 3 * (3 * width) ** 2 * (pairs == "model"))
    pairwise = len(metrics) if metrics != ["norms"] else 0
    assert sums == 8 * (pairwise * kept + room if pairwise else 3 * width**2 // heads)
    headprobe.scan(minilm, **chosen, max_memory=sums)
    for needs in (plan, headprobe.scan):
        with pytest.raises(EnvironmentFailure, match=f"hold {sums:,} bytes"):
            needs(str(minilm), **chosen, max_memory=sums - 1)


def test_a_model_that_hides_its_values_is_refused_in_one_line(run: Run, tmp_path: Path) -> None:
    make(CONFIGS["bloom"]()).save_pretrained(tmp_path / "bloom")
    found = run("scan", tmp_path / "bloom", "--random-inputs", "4", "--metrics", "cka")
    assert found.code == 3
    assert found.err.count("\n") == 1
    assert "error[E-OUTPUTS]" in found.err
    assert "h.0.self_attention" in found.err
    assert run("scan", tmp_path / "bloom", "--random-inputs", "4", "--metrics", "js").code == 0


def test_compare_reads_them_too() -> None:
    found = headprobe.compare(SAMPLES / "tiny-bert", SAMPLES / "tiny-bert-finetuned", metrics=["norms", "js"], limit=8)
    assert {"norm_entropy", "norm_sum"} <= set(found.heads["metric"])


def test_gated_heads_give_but_do_not_write(minilm: Path) -> None:
    config = hf.BitNetConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, vocab_size=97,
        intermediate_size=48,
    )  # fmt: skip
    model = make(config)
    assert not headprobe.scan(model, batches=batches(model, 4), metrics=["cka"]).pairs["cka"].isna().any()
    for name in ("ocos", "norms"):
        with pytest.raises(InputError, match=r"layers\.0\.self_attn: no linear module reads .* gated, normed"):
            headprobe.scan(model, batches=batches(model, 4), metrics=[name])


@pytest.mark.parametrize(("columns", "row"), ROWS)
def test_matrices_show_numbers_below_zero(run: Run, monkeypatch: pytest.MonkeyPatch, columns: int, row: str) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    found = run("matrix", SAMPLES / "tiny-llama", "-n", "8", "--layer", "2", "--metric", "ocos")
    assert found.code == 0
    assert row in found.out


def test_files_of_pairs_have_them(run: Run, tmp_path: Path) -> None:
    names = ("report.json", "page.html", "matrix.png")
    report, page, picture = (tmp_path / name for name in names)
    found = run("scan", SAMPLES / "tiny-llama", "-n", "8", "--metrics", "js,cka,ocos", "-o", report, "-o", page, "-q")
    assert found.code == 0
    assert set(PAIRS) <= set(headprobe.Report.load(report).pairs)
    assert all(f"<option>{name}</option>" in page.read_text(encoding="utf-8") for name in PAIRS)
    assert run("plot", "matrix", report, "-m", "ocos", "-p", "layer 2", "-o", picture).code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
