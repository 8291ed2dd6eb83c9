"""What decoders read: target texts, else what the model writes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import headprobe
from headprobe.errors import UsageError
from headprobe.feed import Given
from tests.feed.checkpoints import picture, recording, tokenizer
from tests.feed.conftest import Made
from tests.feed.feeding import FEW, TEXTS, fed, of_model, same


def test_targets_are_shifted_right(made: Made, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("why ?\n\na cat sat\n")
    (tmp_path / "out.txt").write_text("the mat\nleft out\non the sea .\n")
    found, (batch,) = fed(made("bart"), text=tmp_path / "in.txt", target_text=tmp_path / "out.txt")
    words = tokenizer()
    reads = [words(text)["input_ids"][:-1] for text in ("on the sea .", "the mat")]  # the start is <s>: once
    assert batch.inputs["decoder_input_ids"].tolist() == [reads[0], reads[1] + [0] * 2]
    assert batch.inputs["decoder_attention_mask"].tolist() == [[1] * 5, [1] * 3 + [0] * 2]
    assert batch.special["decoder"].tolist() == [[True] + [False] * 4, [True] + [False] * 4]
    assert found.about["decoder"] == "target texts"


def test_a_decoder_reads_what_the_model_writes(made: Made) -> None:
    model: Any = hf.BartForConditionalGeneration.from_pretrained(made("bart"), attn_implementation="eager").eval()
    words = tokenizer()
    (batch,) = of_model(model, Given(texts=TEXTS, tokenizer=words), target_length=6)
    for row, number in enumerate(batch.numbers or ()):
        ids = torch.tensor([words(TEXTS[number])["input_ids"]])
        read = _greedy(model, {"input_ids": ids}, 6)
        mask = batch.inputs["decoder_attention_mask"][row].bool()
        assert batch.inputs["decoder_input_ids"][row][mask].tolist() == read
    report = headprobe.scan(model, texts=TEXTS, tokenizer=words, target_length=6, **FEW)
    assert "the decoder read texts generated greedily by the model" in report.notes
    assert report.provenance.corpus["decoder"] == "texts generated greedily by the model"
    same(report, headprobe.scan(model, texts=TEXTS, tokenizer=words, target_length=6, batch_size=1, **FEW))


def _greedy(model: Any, inputs: dict[str, Any], length: int) -> list[int]:
    """What the decoder reads while it writes the likeliest token, one after another, without a cache."""
    read = [model.config.decoder_start_token_id]
    with torch.inference_mode():
        for _ in range(length):
            out = model(**inputs, decoder_input_ids=torch.tensor([read]), use_cache=False)
            token = int(out.logits[0, -1].argmax())
            if token == model.config.eos_token_id:
                return read
            read.append(token)
    return read[:-1]


def test_whisper_reads_what_it_writes_or_targets_or_its_start(made: Made, tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav", 0.5)
    model: Any = hf.WhisperForConditionalGeneration.from_pretrained(made("whisper"), attn_implementation="eager")
    extractor = hf.WhisperFeatureExtractor.from_pretrained(made("whisper"))
    (batch,) = of_model(model, Given(processor=extractor), audio=path, target_length=5)
    features = batch.inputs["input_features"]
    assert batch.inputs["decoder_input_ids"][0].tolist() == _greedy(model, {"input_features": features}, 5)
    (tmp_path / "out.txt").write_text("a cat\n")
    _, (batch,) = fed(made("whisper"), audio=path, target_text=tmp_path / "out.txt")
    assert batch.inputs["decoder_input_ids"][0].tolist() == tokenizer()("a cat")["input_ids"][:-1]
    (batch,) = of_model(hf.WhisperModel.from_pretrained(made("whisper")), Given(processor=extractor), audio=path)
    assert batch.inputs["decoder_input_ids"].tolist() == [[2]]


def test_whispers_language_and_task_are_read(copied: Made, tmp_path: Path) -> None:
    folder = copied("whisper")
    settings = {"lang_to_id": {"<|en|>": 7, "<|de|>": 8}, "task_to_id": {"transcribe": 9}, "no_timestamps_token_id": 11}
    known = {"decoder_start_token_id": 2, "eos_token_id": 3, "pad_token_id": 3, "begin_suppress_tokens": [3]}
    chosen = {"is_multilingual": True, "language": "de", "task": "transcribe"}
    (folder / "generation_config.json").write_text(json.dumps({**settings, **known, **chosen}))
    path = recording(tmp_path / "a.wav", 0.5)
    for length in (1, 6, 448):  # the last is more than there is room for
        _, (batch,) = fed(folder, audio=path, target_length=length)
        read = batch.inputs["decoder_input_ids"][0].tolist()
        assert read[:4] == [2, 8, 9, 11]
        assert len(read) <= min(length + 3, 32)


def test_settings_of_other_ways_to_write_change_nothing(copied: Made) -> None:
    folder = copied("bart")
    expected = fed(folder, Given(texts=TEXTS))[1][0].inputs["decoder_input_ids"]
    path = folder / "generation_config.json"
    others = {"num_beams": 4, "num_return_sequences": 3, "do_sample": True, "return_dict_in_generate": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), **others}))
    assert torch.equal(fed(folder, Given(texts=TEXTS))[1][0].inputs["decoder_input_ids"], expected)


def test_a_model_that_stops_at_once_reads_its_start(copied: Made, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a cat\n")
    recording(tmp_path / "a.wav", 0.5)
    given: dict[str, Any]
    for name, given in (("bart", {"text": tmp_path / "a.txt"}), ("whisper", {"audio": tmp_path / "a.wav"})):
        folder = copied(name)
        path = folder / "generation_config.json"
        settings = {**json.loads(path.read_text()), "eos_token_id": list(range(3, 23)), "pad_token_id": 3}
        path.write_text(json.dumps(settings))
        _, (batch,) = fed(folder, Given(), **given)
        assert batch.inputs["decoder_input_ids"].tolist() == [[2]]


def test_drawn_inputs_keep_their_targets(made: Made, tmp_path: Path) -> None:
    for i in range(6):
        recording(tmp_path / f"sounds/{i}.wav", 0.5, seed=i)
    (tmp_path / "out.txt").write_text("\n".join(["a", "cat", "sat", "on", "the", "mat"]))
    found, batches = fed(made("whisper"), audio=tmp_path / "sounds", target_text=tmp_path / "out.txt", limit=2, seed=1)
    numbers = [item.number for item in found.sequences]
    assert numbers != [0, 1]
    words = [tokenizer().decode(row[1]) for batch in batches for row in batch.inputs["decoder_input_ids"]]
    assert words == [["a", "cat", "sat", "on", "the", "mat"][number] for number in numbers]


def test_targets_that_were_cut_are_told(made: Made, tmp_path: Path) -> None:
    targets = ["cat " * 99, "a cat"]
    path = recording(tmp_path / "a.wav", 0.5)
    for report in (
        headprobe.scan(made("bart"), texts=TEXTS[:2], targets=targets, **FEW),
        headprobe.scan(made("whisper"), audio=[path, path], targets=targets, **FEW),
    ):
        assert "1 of 2 target texts were cut" in report.notes


def test_an_empty_target_is_the_start_alone(made: Made, tmp_path: Path) -> None:
    found, (batch,) = fed(made("bart"), Given(texts=["a cat"], targets=[""]))
    assert batch.inputs["decoder_input_ids"].tolist() == [[2]]
    assert found.about["decoder"] == "target texts"


def test_an_image_is_read_aloud(made: Made, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", (20, 20))
    _, (batch,) = fed(made("trocr"), Given(targets=["a cat"]), images=path)
    assert batch.inputs["decoder_input_ids"].tolist() == [[3, 2, 6, 7]]
    report = headprobe.scan(made("trocr"), images=path, target_length=4, **FEW)
    assert "the decoder read texts generated greedily by the model" in report.notes


def test_targets_from_python_are_checked(made: Made, tmp_path: Path) -> None:
    model: Any = hf.WhisperForConditionalGeneration.from_pretrained(made("whisper"))
    given: dict[str, Any] = {"audio": recording(tmp_path / "a.wav", 0.5), "targets": ["a cat"]}
    with pytest.raises(UsageError, match="a model object has no tokenizer"):
        headprobe.scan(model, processor=hf.WhisperFeatureExtractor(feature_size=16, chunk_length=1), **given)
    with pytest.raises(UsageError, match="targets is one text"):
        headprobe.scan(made("whisper"), **{**given, "targets": "a cat"})
    with pytest.raises(UsageError, match="has no decoder and no use for targets"):
        headprobe.scan(made("wav2vec2"), **given)
    with pytest.raises(UsageError, match="exclude files"):
        headprobe.scan(made("whisper"), target_text="out.txt", **given)
    with pytest.raises(UsageError, match="batches exclude"):
        headprobe.scan(made("bart"), batches=[{}], targets=["a cat"])
    with pytest.raises(UsageError, match=r"texts\[1\] is no text"):
        headprobe.scan(made("bart"), texts=["a cat", None])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="batches are not all dictionaries"):
        headprobe.scan(made("bart"), batches=[[1, 2]])  # type: ignore[list-item]
