"""Penalties and metrics in transformers' Trainer, end to end."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import headprobe
from headprobe.errors import HeadprobeError
from headprobe.report import Report
from headprobe.train import DiversityPenalty, HeadMetricsCallback, RepulsiveHeads
from headprobe.train.callback import same_random_numbers
from tests.capture.models import LLAMA, SIZE
from tests.conftest import Run
from tests.train.making import measured

pytest.importorskip("accelerate")  # which transformers' Trainer needs
LENGTH, STEPS = 9, 4
Item = dict[str, torch.Tensor]


def items(count: int = 16) -> list[Item]:
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(5, 97, (count, LENGTH), generator=draw)
    return [{"input_ids": row, "labels": (row[0] > 50).long()} for row in rows]


def texts(count: int = 8) -> list[Item]:
    return [{"input_ids": item["input_ids"], "labels": item["input_ids"]} for item in items(count)]


def classifier() -> Any:
    torch.manual_seed(0)
    config = hf.BertConfig(**SIZE)
    return hf.BertForSequenceClassification._from_config(config, attn_implementation="eager")


def causal() -> Any:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM._from_config(hf.LlamaConfig(**LLAMA), attn_implementation="eager")


def trainer(folder: Path, model: Any = None, data: list[Item] | None = None, **options: Any) -> Any:
    arguments = hf.TrainingArguments(
        output_dir=str(folder),
        **{"max_steps": STEPS, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "report_to": [],
           "logging_steps": 2, "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "seed": 3,
           "dataloader_pin_memory": False, **options},
    )  # fmt: skip
    return hf.Trainer(model=model or classifier(), args=arguments, train_dataset=data or items())


BATCHES = [{"input_ids": torch.stack([item["input_ids"] for item in items()])[4:]}]


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def same(one: Any, other: Any) -> bool:
    mine, theirs = weights(one), weights(other)
    return all(torch.equal(weight, theirs[name]) for name, weight in mine.items())


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
class TestPenalty:
    def test_weight_zero_is_training_without(self, tmp_path: Path) -> None:
        models = []
        for weight in (None, 0.0, 0.5):
            run = trainer(tmp_path)
            if weight is not None:
                DiversityPenalty("lin", weight=weight).add_to(run)
            run.train()
            models.append(run.model)
        assert same(models[0], models[1])
        assert not same(models[0], models[2])

    def test_penalty_lowers_what_it_measures(self, tmp_path: Path) -> None:
        found = []
        for weight in (0.0, 3.0):
            run = trainer(tmp_path, max_steps=12)
            DiversityPenalty("lin", weight=weight, layers=1).add_to(run)
            run.train()
            (value,) = measured("lin", run.model, BATCHES[0], layers=1).values()
            found.append(value)
        assert found[1] < found[0] - 0.02

    def test_evaluation_has_no_penalty(self, tmp_path: Path) -> None:
        run = trainer(tmp_path)
        run.eval_dataset = items(4)
        plain = run.evaluate()["eval_loss"]
        DiversityPenalty("lin", weight=1e3).add_to(run)
        assert run.evaluate()["eval_loss"] == plain

    @pytest.mark.parametrize("by_items", [True, False])
    def test_accumulation_does_not_scale_the_penalty(self, tmp_path: Path, by_items: bool) -> None:
        """One large batch and two small ones of the same rows: losses are means of means, or over all tokens."""
        runs = []
        for parts in (1, 2):
            run = trainer(
                tmp_path, causal(), texts(), max_steps=1, optim="sgd", learning_rate=0.1, max_grad_norm=0.0,
                per_device_train_batch_size=8 // parts, gradient_accumulation_steps=parts,
            )  # fmt: skip
            run.model_accepts_loss_kwargs = by_items
            DiversityPenalty("lin", weight=5.0).add_to(run)
            run.train()
            runs.append(weights(run.model))
        for name, weight in runs[0].items():
            assert torch.allclose(weight, runs[1][name], rtol=0, atol=1e-7), name

    def test_half_precision_and_checkpointing(self, tmp_path: Path) -> None:
        run = trainer(tmp_path, causal(), texts(), bf16=True, gradient_checkpointing=True)
        before = weights(run.model)
        penalty = DiversityPenalty("js", weight=0.5)
        penalty.add_to(run)
        run.add_callback(HeadMetricsCallback(run, batches=BATCHES, every=2))
        run.train()
        assert len(penalty.values) == 2
        assert all(weight.isfinite().all() for weight in weights(run.model).values())
        assert any(not torch.equal(weight, before[name]) for name, weight in weights(run.model).items())

    def test_a_resumed_run_is_the_run(self, tmp_path: Path) -> None:
        """Of two penalties, repulsion with noise and the log of metrics nothing needs to be in a checkpoint."""
        found: list[Any] = []
        for checkpoint in (None, str(tmp_path / "0" / "checkpoint-2")):
            folder = tmp_path / str(len(found))
            run = trainer(folder, causal(), texts(), save_strategy="steps", save_steps=2)
            DiversityPenalty("lin", weight=0.5).add_to(run)
            DiversityPenalty("output", weight=0.1, layers=0).add_to(run)
            run.add_callback(RepulsiveHeads(run.model, "spos", temperature=1e-3, seed=4).callback())
            run.add_callback(HeadMetricsCallback(run, batches=BATCHES, every=1))
            run.train(resume_from_checkpoint=checkpoint)
            found.append(run.model)
        assert same(*found)
        plain = trainer(tmp_path, causal(), texts())
        plain.train()
        assert not same(plain.model, found[0])

    def test_a_loss_of_ones_own(self, tmp_path: Path) -> None:
        run = trainer(tmp_path)
        run.compute_loss_func = lambda outputs, labels, num_items_in_batch=None: outputs.logits.square().mean()
        penalty = DiversityPenalty("cosine")
        penalty.add_to(run)
        run.train()
        assert len(penalty.values) == 2


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
class TestCallback:
    def test_training_goes_on_as_without(self, tmp_path: Path) -> None:
        runs = []
        for watched in (False, True):
            run = trainer(tmp_path)
            if watched:
                run.add_callback(HeadMetricsCallback(run, batches=BATCHES, every=1))
            run.train()
            runs.append(run)
        assert same(runs[0].model, runs[1].model)
        losses = [[line["loss"] for line in run.state.log_history if "loss" in line] for run in runs]
        assert losses[0] == losses[1]
        assert len(losses[0]) == STEPS // 2

    def test_logs_are_what_a_scan_measures(self, tmp_path: Path) -> None:
        run = trainer(tmp_path)
        run.add_callback(HeadMetricsCallback(run, batches=BATCHES, every=3))
        run.train()
        logs = {line["step"]: line for line in run.state.log_history if "headprobe/rcos/encoder.0" in line}
        assert list(logs) == [0, 3, STEPS]
        report = headprobe.scan(run.model, batches=BATCHES)
        for layer in (0, 1):
            heads = report.heads[report.heads["layer"] == layer]
            for column in ("rcos", "entropy", "first_mass", "nearest_js"):
                logged = logs[STEPS][f"headprobe/{column}/encoder.{layer}"]
                assert logged == pytest.approx(float(heads[column].mean()), rel=1e-9)
            effective = float(report.layers["effective_heads"][layer])
            assert logs[STEPS][f"headprobe/effective_heads/encoder.{layer}"] == pytest.approx(effective)
        assert Report.load(tmp_path / "headprobe" / "final.json").results_sha256 == report.results_sha256

    def test_metrics_are_those_that_are_asked_for(self, tmp_path: Path) -> None:
        run = trainer(tmp_path)
        run.add_callback(HeadMetricsCallback(run, batches=BATCHES, every=2, metrics=["entropy"], layers="1"))
        run.train()
        logs = [line for line in run.state.log_history if any(name.startswith("headprobe/") for name in line)]
        assert [line["step"] for line in logs] == [0, 2, STEPS]
        for line in logs:
            assert [name for name in line if name.startswith("headprobe/")] == ["headprobe/entropy/encoder.1"]

    def test_reports_compare(self, tmp_path: Path, run: Run) -> None:
        tuned = trainer(tmp_path / "out", sample(), masked())
        tokenizer = hf.AutoTokenizer.from_pretrained("sample_inputs/tiny-bert")
        corpus = ["The river runs past the old mill.", "She sold the house.", "A storm is coming.", "He sang all day."]
        tuned.add_callback(HeadMetricsCallback(tuned, corpus, tokenizer=tokenizer, output=tmp_path / "reports"))
        tuned.train()
        folder = tmp_path / "reports"
        assert sorted(path.name for path in folder.iterdir()) == ["final.json", "start.json"]
        found = run("compare", folder / "start.json", folder / "final.json")
        assert (found.code, found.err) == (0, "")
        assert "rcos" in found.out

    def test_everything_is_as_it_was(self, tmp_path: Path) -> None:
        model = classifier()
        model.set_attn_implementation("sdpa")
        run = trainer(tmp_path, model.train())
        model.bert.encoder.layer[1].eval()
        callback = HeadMetricsCallback(run, batches=BATCHES)
        modes = [module.training for module in model.modules()]
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        run.state.is_world_process_zero = True
        callback.on_train_begin(run.args, run.state, run.control, model=model)
        assert [module.training for module in model.modules()] == modes
        assert model.config._attn_implementation == "sdpa"
        assert random.getstate() == states[0]
        assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), states[1], strict=True))
        assert torch.equal(torch.get_rng_state(), states[2])

    def test_everything_is_as_it_was_after_a_scan_that_fails(self, tmp_path: Path) -> None:
        run = trainer(tmp_path, classifier().train())
        run.model.bert.encoder.layer[1].eval()
        callback = HeadMetricsCallback(run, batches=[{"input_ids": torch.tensor([[5, 9999]])}])
        modes = [module.training for module in run.model.modules()]
        states = random.getstate(), torch.get_rng_state()
        with pytest.raises(HeadprobeError, match="fails on its inputs"):
            callback.on_train_begin(run.args, run.state, run.control, model=run.model)
        assert [module.training for module in run.model.modules()] == modes
        assert random.getstate() == states[0]
        assert torch.equal(torch.get_rng_state(), states[1])

    def test_towers_keep_their_own_attention(self) -> None:
        from headprobe.pipeline import ready

        config: Any = hf.CLIPConfig(
            text_config={**SIZE, "projection_dim": 8}, vision_config={**SIZE, "image_size": 16, "patch_size": 4}
        )
        model = hf.CLIPModel(config)
        model.set_attn_implementation({"text_config": "eager", "vision_config": "sdpa"})
        before = [each._attn_implementation for each in (config, config.text_config, config.vision_config)]
        assert len(set(before)) == 2
        with ready(model):
            assert {each._attn_implementation for each in (config, config.text_config, config.vision_config)} == {
                "eager"
            }
        assert [each._attn_implementation for each in (config, config.text_config, config.vision_config)] == before

    def test_random_numbers_go_on_after_an_error(self) -> None:
        def draws() -> list[float]:
            return [random.random(), float(np.random.rand()), float(torch.rand(()))]

        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)
        expected = draws()
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)

        @same_random_numbers()
        def fails() -> None:
            draws()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fails()
        assert draws() == expected

    def test_a_model_that_breaks_is_told_and_trained_on(self, tmp_path: Path) -> None:
        run = trainer(tmp_path, learning_rate=1e30)
        run.add_callback(HeadMetricsCallback(run, batches=BATCHES, every=STEPS))
        with pytest.warns(UserWarning, match="E-NONFINITE"):
            run.train()
        assert run.state.global_step == STEPS
        assert not (tmp_path / "headprobe" / "final.json").exists()

    def test_a_resumed_run_keeps_its_start(self, tmp_path: Path) -> None:
        run = trainer(tmp_path, save_strategy="steps", save_steps=2)
        run.add_callback(HeadMetricsCallback(run, batches=BATCHES))
        run.train()
        start = (tmp_path / "headprobe" / "start.json").read_text()
        again = trainer(tmp_path)
        again.add_callback(HeadMetricsCallback(again, batches=BATCHES))
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
        assert (tmp_path / "headprobe" / "start.json").read_text() == start
        assert json.loads(start)["tables"] != json.loads((tmp_path / "headprobe/final.json").read_text())["tables"]

    @pytest.mark.parametrize("every", [0, -1, 1.5, True, "all"])
    def test_steps_that_are_none(self, tmp_path: Path, every: Any) -> None:
        with pytest.raises(HeadprobeError) as caught:
            HeadMetricsCallback(trainer(tmp_path), every=every)
        assert caught.value.code == "E-OPTION"

    def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "reports").write_text("")
        run = trainer(tmp_path)
        run.add_callback(HeadMetricsCallback(run, batches=BATCHES, output=tmp_path / "reports"))
        with pytest.raises(HeadprobeError, match="can't be made") as caught:
            run.train()
        assert caught.value.code == "E-OUTPUT"

    def test_no_trainer_or_a_sharded_one(self, tmp_path: Path) -> None:
        with pytest.raises(HeadprobeError, match="is no Trainer"):
            HeadMetricsCallback(["a text"])
        run = trainer(tmp_path)
        run.is_deepspeed_enabled = True
        with pytest.raises(HeadprobeError) as caught:
            HeadMetricsCallback(run)
        assert caught.value.code == "E-SHARDED"


def sample() -> Any:
    return hf.AutoModelForMaskedLM.from_pretrained("sample_inputs/tiny-bert", dtype=torch.float32)


def masked() -> list[Item]:
    return [{"input_ids": item["input_ids"] + 100, "labels": item["input_ids"] + 100} for item in items()]
