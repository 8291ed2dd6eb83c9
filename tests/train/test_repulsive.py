"""RepulsiveHeads: which gradients it changes, into what, and what that does to training."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from headprobe.errors import UsageError
from headprobe.train.repulsive import RepulsiveCallback, RepulsiveHeads
from headprobe.train.slices import HeadParameters
from tests.capture.models import BART, GPT2, LLAMA, SIZE, T5
from tests.train.families import batch, build
from tests.train.test_particles import slow

FAMILIES = ("bert", "llama", "gpt2", "bart", "t5", "gpt-neox")


def backward(family: str, model: nn.Module) -> None:
    """Gradients of a loss that treats no head like another."""
    out = model(**batch(family))
    torch.manual_seed(3)
    states = out.last_hidden_state
    (states * torch.randn(states.shape, dtype=states.dtype)).sum().backward()


def particles(layer: HeadParameters, *, gradient: bool) -> Tensor:
    """[head, number] float64, shared parts repeated; of a shared part's gradient each head has its part."""
    rows = []
    for block in layer.blocks:
        shared = layer.heads // block.units
        tensor = block.parameter.grad if gradient else block.parameter.detach()
        assert tensor is not None
        rows.append(block.read(tensor).double().repeat_interleave(shared, 0) / (shared if gradient else 1))
    return torch.cat(rows, 1)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def by_hand(layer: HeadParameters, repulsion: float) -> list[Tensor]:
    """What each block's gradient must become, by slow loops over whole heads."""
    theta, slope = particles(layer, gradient=False), particles(layer, gradient=True)
    distances = torch.stack([(theta - row).square().sum(1) for row in theta])
    squared = 0.5 * float(distances.flatten().quantile(0.5)) / math.log(layer.heads + 1)
    rows, changed, first = slow(slope, theta, squared, repulsion), [], 0
    for block in layer.blocks:
        width = block.read(block.parameter).shape[1]
        changed.append(rows[:, first : first + width].unflatten(0, (block.units, -1)).sum(1))
        first += width
    return changed


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layers_gradient_is_svgds_over_whole_heads(family: str) -> None:
    model = build(family)
    backward(family, model)
    repulsive = RepulsiveHeads(model, repulsion=0.5)
    expected = {layer.path: by_hand(layer, 0.5) for layer in repulsive.layers}
    repulsive()
    for layer in repulsive.layers:
        for block, rows in zip(layer.blocks, expected[layer.path], strict=True):
            assert block.parameter.grad is not None
            torch.testing.assert_close(block.read(block.parameter.grad).double(), rows, rtol=1e-4, atol=1e-5)


def test_only_the_chosen_heads_gradients_change() -> None:
    model = build("bart")
    backward("bart", model)
    before = gradients(model)
    RepulsiveHeads(model, layers="1", kinds=["cross"])()
    changed = {name for name, now in gradients(model).items() if not torch.equal(now, before[name])}
    projections = ("q_proj", "k_proj", "v_proj")
    stem = "decoder.layers.1.encoder_attn"
    assert changed == {f"{stem}.{name}.{part}" for name in projections for part in ("weight", "bias")}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_kernel_of_one_without_repulsion_is_the_plain_averaged_gradient(family: str) -> None:
    model = build(family)
    backward(family, model)
    repulsive = RepulsiveHeads(model, repulsion=0.0, bandwidth=math.inf)
    means = [[b.read(b.parameter.grad).mean(0) for b in layer.blocks] for layer in repulsive.layers]  # type: ignore[arg-type]
    repulsive()
    for layer, expected in zip(repulsive.layers, means, strict=True):
        for block, mean in zip(layer.blocks, expected, strict=True):
            assert block.parameter.grad is not None
            for row in block.read(block.parameter.grad):
                torch.testing.assert_close(row, mean, rtol=1e-4, atol=1e-5)


def test_a_narrow_kernel_without_repulsion_is_a_heads_own_gradient() -> None:
    model = build("llama")
    backward("llama", model)
    before = gradients(model)
    RepulsiveHeads(model, repulsion=0.0, bandwidth=1e-3)()
    for name, now in gradients(model).items():
        heads = 4 if "self_attn" in name and "o_proj" not in name else 1
        torch.testing.assert_close(now * heads, before[name])


CONFIGS: dict[str, Any] = {
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**SIZE)),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT2)),
    "bart": lambda: hf.BartForConditionalGeneration(hf.BartConfig(**BART)),
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5 | {"decoder_start_token_id": 0})),
}


def trained(family: str, seed: int, *, repels: bool) -> float:
    """The sum over layers of the mean distance of heads, after some steps."""
    torch.manual_seed(seed)
    model = CONFIGS[family]()
    repulsive = RepulsiveHeads(model, repulsion=1.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(12):
        ids = torch.randint(5, 97, (4, 9))
        model(input_ids=ids, labels=ids).loss.backward()
        if repels:
            repulsive()
        optimizer.step()
        optimizer.zero_grad()
    return sum(repulsive.distances().values())


@pytest.mark.parametrize(("family", "seed"), [*(("bert", i) for i in range(5)), *((name, 5) for name in CONFIGS)])
def test_heads_part_against_the_plain_run(family: str, seed: int) -> None:
    assert trained(family, seed, repels=True) > 1.02 * trained(family, seed, repels=False)


def test_two_heads_have_finite_gradients() -> None:
    """By the lower median their bandwidth would be 0."""
    torch.manual_seed(0)
    model: Any = hf.BertModel(hf.BertConfig(**SIZE | {"num_attention_heads": 2}))
    backward("bert", model)
    before = gradients(model)
    RepulsiveHeads(model, repulsion=0.5)()
    weight = model.encoder.layer[0].attention.self.value.weight
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())
    assert not torch.equal(weight.grad, before["encoder.layer.0.attention.self.value.weight"])


def test_distances_are_those_of_whole_heads() -> None:
    repulsive = RepulsiveHeads(build("llama"))
    for layer in repulsive.layers:
        theta = particles(layer, gradient=False)
        assert repulsive.distances()[layer.path] == pytest.approx(float(torch.pdist(theta).mean()), rel=1e-5)


# --- SPOS -------------------------------------------------------------------------------------------------------------


def test_spos_is_svgd_with_drift_and_noise_of_the_theorys_variance() -> None:
    """Variance 2τε of a step whatever the gradient: public code scales it by the gradient's median, with β for 1/β."""
    model, rate, temperature = build("gpt2"), 0.01, 0.3
    backward("gpt2", model)
    weight = model.h[1].attn.c_attn.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    plain, old = weight.grad.clone(), weight.detach().clone()
    RepulsiveHeads(model, repulsion=0.2)()
    drift = weight.grad.clone() + temperature * plain
    weight.grad.copy_(plain)
    for parameter in model.parameters():
        parameter.grad = None if parameter is not weight else parameter.grad
    RepulsiveHeads(model, "spos", repulsion=0.2, temperature=temperature)(optimizer)
    assert not torch.equal(weight.grad, drift)
    noise = -(weight.grad - drift)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), old - rate * drift + rate * noise)
    moved = rate * noise
    assert float(moved.mean()) == pytest.approx(0, abs=4 * math.sqrt(2 * temperature * rate / moved.numel()))
    assert float(moved.var()) == pytest.approx(2 * temperature * rate, rel=0.08)


def noisy(seed: int) -> Tensor:
    model = build("llama")
    backward("llama", model)
    torch.manual_seed(seed + 100)  # no concern of the noise
    RepulsiveHeads(model, "spos", seed=seed)(0.1)
    gradient: Tensor = model.layers[0].self_attn.k_proj.weight.grad
    return gradient


def test_noise_is_told_by_its_seed_alone() -> None:
    before = torch.get_rng_state()
    first = noisy(1)
    torch.set_rng_state(before)
    assert torch.equal(first, noisy(1))
    assert not torch.equal(first, noisy(2))


def test_noise_goes_on_where_training_is_resumed() -> None:
    def step(repulsive: RepulsiveHeads, model: Any) -> Tensor:
        weight: Tensor = model.layers[0].self_attn.k_proj.weight
        weight.grad = torch.zeros_like(weight)
        repulsive(0.1)
        assert weight.grad is not None
        return weight.grad.clone()

    model = build("llama")
    first = RepulsiveHeads(model, "spos", repulsion=0.0, seed=1)
    noise = [step(first, model) for _ in range(3)]
    again, other = RepulsiveHeads(model, "spos", repulsion=0.0, seed=1), RepulsiveHeads(model, "spos", seed=2)
    again.steps = 2
    assert torch.equal(step(again, model), noise[2])
    assert first.steps == again.steps == 3
    drawn = [*noise, *(step(other, model) for _ in range(3))]
    assert not any(torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_spos_without_temperature_and_a_step_of_nothing_are_finite() -> None:
    results = []
    for temperature, step in ((0.0, None), (0.0, 0.1), (0.2, 0.0)):
        model = build("llama")
        backward("llama", model)
        RepulsiveHeads(model, "spos", temperature=temperature)(step)
        results.append(gradients(model))
    for name, gradient in results[0].items():
        assert torch.equal(gradient, results[1][name])
        assert results[2][name].isfinite().all()


# --- what training does to it -----------------------------------------------------------------------------------------


def test_frozen_parts_are_left_out() -> None:
    model = build("bert")
    model.encoder.layer[0].requires_grad_(False)
    model.encoder.layer[1].attention.self.key.requires_grad_(False)
    backward("bert", model)
    repulsive = RepulsiveHeads(model, repulsion=0.5)
    repulsive()
    assert all(parameter.grad is None for parameter in model.encoder.layer[0].parameters())
    attention = model.encoder.layer[1].attention.self
    assert attention.key.weight.grad is None
    assert attention.query.weight.grad is not None


def test_no_gradient_at_all_is_an_error() -> None:
    model = build("bert")
    with pytest.raises(UsageError, match="no head of the chosen layers has a gradient"):
        RepulsiveHeads(model)()
    model.requires_grad_(False)
    with pytest.raises(UsageError, match="no head"):
        RepulsiveHeads(model)()


def test_accumulated_gradients_are_changed_as_one() -> None:
    found = []
    for parts in (1, 2):
        model = build("bert")
        ids = batch("bert")["input_ids"]
        for part in ids[:2].chunk(parts):
            model(input_ids=part).last_hidden_state.square().sum().backward()
        RepulsiveHeads(model)()
        found.append(gradients(model))
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_statistics_of_half_precision_are_float32(dtype: torch.dtype) -> None:
    model = build("bert").to(dtype)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape).to(dtype)
    wide = build("bert")
    for mine, other in zip(wide.parameters(), model.parameters(), strict=True):
        mine.data, mine.grad = other.detach().float(), other.grad.float()
    for each in (model, wide):
        RepulsiveHeads(each, repulsion=0.5)()
    for mine, other in zip(wide.parameters(), model.parameters(), strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert other.grad.dtype == dtype
        assert torch.equal(mine.grad.to(dtype), other.grad)


def test_autocast_trains() -> None:
    model = build("bert")
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch("bert")).last_hidden_state.float().square().mean()
    loss.backward()
    RepulsiveHeads(model)()
    assert all(gradient.dtype == torch.float32 and gradient.isfinite().all() for gradient in gradients(model).values())


def test_equal_heads_stay_finite() -> None:
    model = build("bert")
    for layer in RepulsiveHeads(model).layers:
        for block in layer.blocks:
            rows = block.read(block.parameter.detach())
            block.write(block.parameter.data, rows[:1].expand_as(rows))
    backward("bert", model)
    RepulsiveHeads(model)()
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "sgld"}, 'no method "sgld"'),
        ({"repulsion": -1.0}, "repulsion -1.0 makes no sense"),
        ({"repulsion": "much"}, "repulsion 'much' makes no sense"),
        ({"temperature": math.nan}, "temperature nan makes no sense"),
        ({"bandwidth": 0.0}, "bandwidth 0.0 is no distance"),
        ({"bandwidth": "wide"}, "bandwidth 'wide' is no distance"),
        ({"method": None}, 'no method "None"'),
        ({"seed": -1}, "seed -1 makes no sense"),
        ({"kinds": 5}, 'no kind of attention "5"'),
        ({"layers": 9}, "no layer 9"),
    ],
)
def test_wrong_options_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RepulsiveHeads(build("bert"), **options)


def test_one_head_has_nobody_to_push_away() -> None:
    model = hf.AutoModel.from_config(hf.BertConfig(**SIZE | {"num_attention_heads": 1}))
    with pytest.raises(UsageError, match="one head"):
        RepulsiveHeads(model)


def test_spos_needs_a_learning_rate() -> None:
    model = build("bert")
    backward("bert", model)
    with pytest.raises(UsageError, match="Call it with the optimizer"):
        RepulsiveHeads(model, "spos")()
    for step in (-0.1, "fast", math.nan):
        with pytest.raises(UsageError, match=r"step .* makes no sense"):
            RepulsiveHeads(model, "spos")(step)  # type: ignore[arg-type]


# --- transformers' Trainer --------------------------------------------------------------------------------------------


def arguments(folder: Path, **options: Any) -> hf.TrainingArguments:
    quiet: dict[str, Any] = {
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
    }
    return hf.TrainingArguments(str(folder), max_steps=3, per_device_train_batch_size=2, **quiet | options)


class Counting(RepulsiveHeads):
    """Counts its calls."""

    calls = 0

    def __call__(self, step: torch.optim.Optimizer | float | None = None) -> None:
        self.calls += 1
        super().__call__(step)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("method", ["svgd", "spos"])
def test_a_trainer_repels_once_a_step(tmp_path: Path, method: Any) -> None:
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(5, 97, (12, 7))]
    for accumulated in (1, 2):
        model = hf.BertForMaskedLM(hf.BertConfig(**SIZE))
        repulsive = Counting(model, method, repulsion=1.0)
        settings = arguments(tmp_path, gradient_accumulation_steps=accumulated)
        hf.Trainer(model, settings, train_dataset=rows, callbacks=[repulsive.callback()]).train()
        assert repulsive.calls == 3


def test_a_trainer_that_would_not_unscale_is_refused() -> None:
    class Settings:
        fp16, max_grad_norm = True, 0.0

    with pytest.raises(UsageError, match="still scaled"):
        RepulsiveCallback(RepulsiveHeads(build("bert"))).on_train_begin(Settings(), None, None)
