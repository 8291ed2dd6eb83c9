"""Every modality is fed what its own processor makes, one input at a time, and batches change no number."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers as hf
from PIL import Image

import headprobe
from headprobe.feed.takes import modality
from headprobe.load.checkpoint import load_checkpoint
from headprobe.plan import plan
from headprobe.settings import ScanOptions
from tests.feed.checkpoints import BUILDERS, PLACE, picture, recording, waveform
from tests.feed.checkpoints import lines as jsonl
from tests.feed.conftest import Made
from tests.feed.feeding import FEW, TEXTS, fed, same

# --- all of them ------------------------------------------------------------------------------------------------

KINDS = {
    "vit": "image", "swin": "image", "segformer": "image", "detr": "image", "clip": "image-text", "llava": "image-text",
    "qwen": "image-text", "whisper": "audio", "wav2vec2": "audio", "bart": "text", "bert": "text",
    "layoutlm": "image-text", "patchtst": "other", "llava_next": "image-text", "flava": "image-text",
    "clap": "audio-text", "trocr": "image",
}  # fmt: skip
BUILT_IN = ("vit", "swin", "segformer", "detr", "clip", "llava", "whisper", "wav2vec2", "bart", "bert", "layoutlm",
            "llava_next", "clap", "trocr")  # fmt: skip
SITES = {
    "vit": 2, "swin": 4, "segformer": 4, "detr": 3, "clip": 4, "llava": 4, "qwen": 4, "whisper": 6, "wav2vec2": 2,
    "bart": 6, "bert": 2, "layoutlm": 2, "patchtst": 2, "llava_next": 4, "flava": 6, "clap": 4, "trocr": 6,
}  # fmt: skip


@pytest.mark.parametrize("name", BUILDERS)
def test_what_a_model_takes_is_told(made: Made, name: str) -> None:
    assert modality(load_checkpoint(str(made(name)), ScanOptions()).model) == KINDS[name]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_modality_has_inputs_of_its_own(made: Made, name: str) -> None:
    report = headprobe.scan(made(name), limit=2, **FEW)
    assert len(report.layers) == SITES[name]
    assert report.provenance.corpus["source"].startswith("built-in")
    assert report.provenance.corpus["sequences"] == len(report.inputs) == 2


@pytest.mark.parametrize("name", BUILDERS)
def test_random_inputs_suit_every_model(made: Made, name: str) -> None:
    one, again, other = (headprobe.scan(made(name), random_inputs=3, seed=seed, **FEW) for seed in (None, None, 1))
    assert len(one.layers) == SITES[name]
    assert one.provenance.corpus["source"] == "random inputs"
    assert any("random" in note for note in one.notes)
    assert len(one.inputs) == 3
    assert one.inputs["sha256"].nunique() == 3
    assert one.results_sha256 == again.results_sha256 != other.results_sha256


@pytest.mark.parametrize("name", BUILDERS)
def test_a_plan_has_the_sites_of_a_scan(made: Made, name: str) -> None:
    sites = headprobe.scan(made(name), random_inputs=1, **FEW).layers
    planned = [(found.site.path, found.site.kind, found.site.heads) for found in plan(str(made(name))).sites]
    assert planned == list(zip(sites["path"], sites["kind"], sites["heads"], strict=True))


def test_random_texts_have_different_lengths_and_no_special_tokens(made: Made) -> None:
    _, batches = fed(made("bart"), random_inputs=8)
    ids = torch.cat([batch.inputs["input_ids"][batch.inputs["attention_mask"].bool()] for batch in batches])
    lengths = torch.cat([batch.inputs["attention_mask"].sum(-1) for batch in batches])
    assert len(set(lengths.tolist())) > 2
    assert not set(ids.tolist()) & {0, 2, 3}


# --- images -----------------------------------------------------------------------------------------------------


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Images of three sizes in folders, and what is none of them."""
    folder = tmp_path / "album"
    for i, name in enumerate(("b.png", "a/z.jpg", "c.webp", "a/.hidden.png", ".cache/x.png")):
        picture(folder / name, ((20, 30), (40, 20), (20, 30))[i % 3], i)
    (folder / "labels.csv").write_text("b.png,cat\n")
    (folder / "away.png").symlink_to(picture(tmp_path / "elsewhere.png", (20, 30)))
    return folder


def test_images_are_read_in_order_and_others_counted(made: Made, album: Path) -> None:
    found, batches = fed(made("vit"), images=album)
    processor: Any = hf.AutoImageProcessor.from_pretrained(made("vit"))
    pixels = torch.cat([batch.inputs["pixel_values"] for batch in batches])
    expected = [Image.open(album / name).convert("RGB") for name in ("a/z.jpg", "b.png", "c.webp")]
    assert torch.equal(pixels, processor(images=expected, return_tensors="pt")["pixel_values"])
    assert found.notes == ["4 other files beside the images were left out"]
    assert [item.number for item in found.sequences] == [0, 1, 2]


def test_limit_and_seed_choose_images(made: Made, album: Path) -> None:
    assert [item.number for item in _sequences(made("vit"), images=album, limit=2)] == [0, 1]
    drawn = [[item.number for item in _sequences(made("vit"), images=album, limit=2, seed=seed)] for seed in range(5)]
    assert [1, 2] in drawn


def _sequences(folder: Path, **options: Any) -> Any:
    return fed(folder, **options)[0].sequences


def test_images_of_all_sizes_are_measured_as_each_alone(made: Made, album: Path) -> None:
    for name in ("vit", "detr"):
        same(
            headprobe.scan(made(name), images=album, **FEW),
            headprobe.scan(made(name), images=album, batch_size=1, **FEW),
        )
    _, batches = fed(made("detr"), images=album)
    assert len({tuple(batch.inputs["pixel_values"].shape[2:]) for batch in batches}) == 2


def test_images_can_come_from_python(made: Made, album: Path) -> None:
    paths = [album / name for name in ("a/z.jpg", "b.png", "c.webp")]
    by_path = headprobe.scan(made("vit"), images=paths, **FEW)
    objects: list[Any] = [Image.open(path) for path in paths[:2]]
    objects.append(np.asarray(Image.open(paths[2]).convert("RGB")))
    given = headprobe.scan(made("vit"), images=objects, **FEW)
    assert by_path.inputs.equals(given.inputs)
    assert given.provenance.corpus["source"] == "images given in Python"


def test_a_picture_is_turned_upright(made: Made, tmp_path: Path) -> None:
    upright = Image.open(picture(tmp_path / "up.png", (20, 30)))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees to the right
    turned.save(tmp_path / "turned.png", exif=exif)
    seen = [fed(made("vit"), images=tmp_path / name)[1][0].inputs["pixel_values"] for name in ("up.png", "turned.png")]
    assert torch.equal(*seen)


# --- sounds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_plain_wav_needs_no_package(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, channels: int
) -> None:
    path = recording(tmp_path / "a.wav", 0.5, width=width, channels=channels)
    read, _ = soundfile.read(path, dtype="float32", always_2d=True)
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    _, (batch,) = fed(made("wav2vec2"), audio=path)
    extractor = hf.Wav2Vec2FeatureExtractor()
    expected = extractor(read[:, 0], sampling_rate=16_000, return_tensors="pt")["input_values"]
    assert torch.allclose(batch.inputs["input_values"], expected, atol=1e-5)


def test_other_rates_and_formats_give_the_same_sound(made: Made, tmp_path: Path) -> None:
    time = np.arange(8000) / 8000
    soundfile.write(tmp_path / "a.flac", 0.5 * np.sin(2 * np.pi * 440 * time), 8000)
    _, (batch,) = fed(made("wav2vec2"), audio=tmp_path)
    exact = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    heard = batch.inputs["input_values"][0].numpy()
    assert heard.shape == exact.shape
    assert np.corrcoef(heard[100:-100], exact[100:-100])[0, 1] > 0.9999


def test_sounds_are_measured_as_each_alone(made: Made, tmp_path: Path) -> None:
    for i, seconds in enumerate((0.5, 0.3, 0.5, 0.7)):
        recording(tmp_path / f"{i}.wav", seconds)
    for name in ("wav2vec2", "whisper"):
        together = headprobe.scan(made(name), audio=tmp_path, **FEW)
        same(together, headprobe.scan(made(name), audio=tmp_path, batch_size=1, **FEW))
        assert len(together.inputs) == 4


def test_sounds_can_come_from_python(made: Made, tmp_path: Path) -> None:
    samples = waveform(0.5, 16_000)
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    by_path = headprobe.scan(made("whisper"), audio=tmp_path / "a.wav", **FEW)
    for given in (samples, (samples, 16_000), samples.astype("f4").tolist()):
        same(by_path, headprobe.scan(made("whisper"), audio=[given], **FEW))


def test_a_sound_beyond_the_models_window_is_said_to_be_cut(made: Made, tmp_path: Path) -> None:
    report = headprobe.scan(made("whisper"), audio=recording(tmp_path / "a.wav", 1.5), **FEW)
    assert report.inputs["cut"].tolist() == [True]
    assert "1 of 1 inputs were cut at the model's limit" in report.notes


# --- pairs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    for i in range(3):
        picture(tmp_path / f"pictures/{i}.png", (20, 30), i)
    return jsonl(tmp_path / "pairs.jsonl", *({"image": f"pictures/{i}.png", "text": TEXTS[i]} for i in range(3)))


@pytest.mark.parametrize("name", ["clip", "llava"])
def test_pairs_are_what_the_processor_makes_of_each(made: Made, captions: Path, name: str) -> None:
    _, batches = fed(made(name), text=captions)
    processor: Any = hf.AutoProcessor.from_pretrained(made(name))
    assert sorted(number for batch in batches for number in batch.numbers or ()) == [0, 1, 2]
    for batch in batches:
        for row, number in enumerate(batch.numbers or ()):
            image = Image.open(captions.parent / f"pictures/{number}.png").convert("RGB")
            text = TEXTS[number] if name == "clip" else f"<image>\n{TEXTS[number]}"
            expected = processor(images=[image], text=[text], return_tensors="pt")
            assert torch.equal(batch.inputs["input_ids"][row], expected["input_ids"][0])
            assert torch.equal(batch.inputs["pixel_values"][row], expected["pixel_values"][0])
    same(
        headprobe.scan(made(name), text=captions, **FEW), headprobe.scan(made(name), text=captions, batch_size=1, **FEW)
    )


def test_a_text_that_says_where_its_image_goes_is_left_alone(made: Made, captions: Path) -> None:
    path = jsonl(captions.parent / "placed.jsonl", {"image": "pictures/0.png", "text": "what is in <image> ?"})
    _, (batch,) = fed(made("llava"), text=path)
    ids = batch.inputs["input_ids"][0]
    assert (ids == PLACE).sum() == 16
    assert (ids == PLACE).nonzero()[0] == 4


def test_pairs_can_come_from_python(made: Made, captions: Path) -> None:
    images = [Image.open(captions.parent / f"pictures/{i}.png") for i in range(3)]
    given = headprobe.scan(made("clip"), texts=TEXTS, images=images, **FEW)
    assert given.inputs.equals(headprobe.scan(made("clip"), text=captions, **FEW).inputs)


def test_long_texts_of_pairs_are_cut_before_their_image_is_put_in(made: Made, captions: Path) -> None:
    path = jsonl(captions.parent / "long.jsonl", {"image": "pictures/0.png", "text": "cat " * 100})
    for name, longest in (("clip", 24), ("llava", 64 + 16)):
        report = headprobe.scan(made(name), text=path, **FEW)
        assert report.inputs["cut"].tolist() == [True]
        assert report.inputs["length"].tolist() == [longest]


def test_a_model_that_can_do_without_images_is_given_texts(made: Made) -> None:
    assert headprobe.scan(made("layoutlm"), texts=TEXTS, **FEW).inputs["length"].tolist() == [9, 4, 9]


def test_texts_alone_are_enough_where_images_stand_in_the_text(made: Made) -> None:
    report = headprobe.scan(made("llava"), texts=["a cat sat", "why ?"])
    assert set(report.heads["tower"]) == {"language_model"}
    assert "vision_tower (2 attention layers) did not run on these inputs and is not in the report" in report.notes
