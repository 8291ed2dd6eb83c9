"""Files that are odd but right, and files that pretend: both must be read as what they are."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

import headprobe
from headprobe.errors import InputError, UsageError
from headprobe.feed.pairs import mark
from headprobe.load.images import read_image
from headprobe.load.sounds import read_sound
from tests.cli.test_bad_input import assert_told
from tests.conftest import Run
from tests.feed.checkpoints import lines, picture, recording, tokenizer
from tests.feed.conftest import Made
from tests.feed.feeding import FEW, fed, same

# --- images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("a.png", np.uint16), ("a.tiff", np.uint16), ("a.tiff", np.int32)])
def test_pixels_of_16_bits_keep_their_shades(tmp_path: Path, name: str, kind: Any) -> None:
    shades = (np.arange(256).reshape(16, 16) * 256).astype(kind)
    Image.fromarray(shades).save(tmp_path / name)
    assert np.array_equal(np.asarray(read_image(tmp_path / name, 1, name)), shades >> 8)


def test_pixels_without_a_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(InputError, match="pixels of floating point"):
        read_image(tmp_path / "a.tiff", 3, "a.tiff")
    with pytest.raises(InputError, match="more than 16 bits"):
        read_image(Image.fromarray(np.full((4, 4), 2**20, np.int32)), 3, "image 0")


def test_a_file_that_the_system_refuses_is_not_damaged() -> None:
    with pytest.raises(InputError, match="can't be read: File name too long"):
        read_image("x" * 300, 3, "x.png")


# --- sounds -----------------------------------------------------------------------------------------------------


def _riff(path: Path, rate: int, bits: int) -> Path:
    sizes = struct.pack("<HHIIHH", 1, 1, rate, rate * bits // 8, bits // 8, bits)
    content = b"WAVEfmt " + struct.pack("<I", len(sizes)) + sizes + b"data" + struct.pack("<I", 8000) + bytes(8000)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(content)) + content)
    return path


@pytest.mark.parametrize("bits", [40, 64])
def test_samples_wider_than_any_are_told(tmp_path: Path, bits: int) -> None:
    with pytest.raises(InputError, match=r"a\.wav is no sound that can be read: File contains data in an unimpl"):
        read_sound(_riff(tmp_path / "a.wav", 16_000, bits), 16_000, "a.wav")


def test_a_rate_that_no_sound_has_is_refused(tmp_path: Path) -> None:
    for rate in (0, 1, 2**31 - 1):
        with pytest.raises(InputError, match=f"has {rate} samples a second. Valid: 1000"):
            read_sound(_riff(tmp_path / "a.wav", rate, 16), 16_000, "a.wav")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("a\0.wav", "no sound at x"),
        (([0.1, 0.2], None), "x is no sound"),
        (np.zeros((2, 16_000)), "x has 16000 channels. Give samples as"),
        (np.zeros((0, 2)), "x has no samples"),
        (np.zeros((2, 2, 2)), "x is no sound: 3 axes"),
    ],
)
def test_what_is_no_sound_is_told(given: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_sound(given, 16_000, "x")


def test_long_sounds_are_cut_at_the_same_place_every_time(made: Made, tmp_path: Path) -> None:
    path = lines(tmp_path / "pairs.jsonl", {"audio": "a.wav", "text": "a cat"})
    recording(tmp_path / "a.wav", 3, 48_000)
    one, other = (headprobe.scan(made("clap"), text=path, **FEW) for _ in range(2))
    assert one.inputs["sha256"].tolist() == other.inputs["sha256"].tolist()


def test_silence_that_a_model_scales_by_its_loudness_is_told(tmp_path: Path) -> None:
    model: Any = hf.Wav2Vec2Model(_small_wav2vec2())
    with pytest.raises(InputError, match="fails on sound 0: it makes values that are no numbers"):
        headprobe.scan(model, audio=[np.ones(4000)], processor=_scaled, **FEW)


def _scaled(samples: np.ndarray, **_: object) -> dict[str, torch.Tensor]:
    return {"input_values": torch.from_numpy(samples)[None] / float(np.ptp(samples) or np.nan)}


def _small_wav2vec2() -> Any:
    layers: dict[str, Any] = {"conv_dim": [8], "conv_kernel": [10], "conv_stride": [10], "num_feat_extract_layers": 1}
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    return hf.Wav2Vec2Config(**layers, **sizes, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)


# --- pairs ------------------------------------------------------------------------------------------------------


def test_a_processor_of_something_else_is_told(made: Made) -> None:
    image = Image.new("RGB", (8, 8))
    with pytest.raises(InputError, match="the processor makes input_values, the model takes pixel_values"):
        headprobe.scan(made("vit"), images=[image], processor=lambda **_: {"input_values": 1}, **FEW)
    with pytest.raises(UsageError, match="has no tokenizer"):
        headprobe.scan(made("clip"), texts=["a cat"], images=[image], processor=hf.CLIPImageProcessorPil(), **FEW)


@pytest.mark.parametrize("name", ["clip", "llava", "llava_next"])
def test_odd_pairs_are_read(made: Made, tmp_path: Path, name: str) -> None:
    for i, size in enumerate(((1, 1), (60, 20), (3, 50))):
        picture(tmp_path / f"bïld {i}.png", size, i)
    rows = [{"image": f"bïld {i}.png", "text": text} for i, text in enumerate(("", "a \ud800 cat", "why ?"))]
    path, turned = lines(tmp_path / "a.jsonl", *rows), lines(tmp_path / "b.jsonl", *rows[::-1])
    path.write_text(path.read_text().replace("\n", "\r\n\r\n"))
    report = headprobe.scan(made(name), text=path, **FEW)
    same(report, headprobe.scan(made(name), text=path, batch_size=1, **FEW))
    same(report, headprobe.scan(made(name), text=turned, **FEW))


@pytest.mark.parametrize("name", ["clip", "llava", "bart"])
def test_a_number_of_too_many_digits_is_no_json(run: Run, made: Made, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a cat", "image": ' + "1" * 5000 + "}\n")
    assert_told(run("scan", made(name), "--text", tmp_path / "a.jsonl"), 3, "E-DATA", "a.jsonl:1 is not valid JSON")


def test_an_image_in_any_line_makes_pairs(run: Run, made: Made, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (20, 20))
    path = lines(tmp_path / "a.jsonl", {"text": "a cat"}, {"text": "a cat", "image": "a.png"})
    assert_told(run("scan", made("llava"), "--text", path), 3, "E-FIELD", 'a.jsonl:1 has no field "image"')


def test_pairs_in_files_have_their_images(run: Run, made: Made, tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png", (20, 20))
    path = lines(tmp_path / "a.jsonl", {"text": "a cat", "image": "a.png"})
    refused = run("scan", made("clip"), "--text", path, "--images", image)
    assert_told(refused, 2, "E-OPTION", "pairs in files have no use for --images")


def test_a_pair_that_the_processor_refuses_is_named_by_its_line(run: Run, made: Made, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (20, 20))
    path = lines(tmp_path / "a.jsonl", {"text": "<image> a <image>", "image": "a.png"})
    assert_told(run("scan", made("llava"), "--text", path), 3, "E-DATA", "a.jsonl:1): The total number of <image>")


class _Chat:
    """A processor with a chat template."""

    def __init__(self, write: Callable[[list[str]], str]) -> None:
        self._write = write

    def apply_chat_template(self, turns: Any, *, tokenize: bool) -> str:
        return self._write([part["type"] if part["type"] != "text" else part["text"] for part in turns[0]["content"]])


def _failing(parts: list[str]) -> str:
    raise ValueError(parts)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (
            lambda parts: "user " + "".join(parts).replace("image", "<start><image><end>") + " end",
            "<start><image><end>",
        ),
        (lambda parts: "user " + "".join(parts).replace("image", "") + " end", "<image>\n"),
        (_failing, "<image>\n"),
    ],
    ids=["a template", "one without images", "none"],
)
def test_the_chat_template_says_what_marks_an_image(write: Callable[[list[str]], str], expected: str) -> None:
    assert mark(_Chat(write), "image", "<image>") == expected


def test_a_cut_text_keeps_to_the_limit(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png", (20, 20))
    processor = hf.CLIPProcessor(hf.CLIPImageProcessorPil(crop_size=16, size={"shortest_edge": 16}), tokenizer())
    decode = processor.tokenizer.decode
    monkeypatch.setattr(processor.tokenizer, "decode", lambda ids: decode(ids) + " ?" * 3)  # more than there was
    given: dict[str, Any] = {"texts": ["cat " * 99], "images": [tmp_path / "a.png"]}
    report = headprobe.scan(made("clip"), processor=processor, **given, **FEW)
    assert report.inputs["length"].tolist() == [24]


def test_built_in_images_are_drawn_by_seed(made: Made) -> None:
    drawn = [item.number for item in _drawn(made("vit"))]
    assert drawn == sorted(drawn) != [0, 1, 2]


def _drawn(folder: Path) -> Any:
    return fed(folder, limit=3, seed=1)[0].sequences


def test_texts_from_python_may_hold_half_a_character(made: Made) -> None:
    report = headprobe.scan(made("bart"), texts=["a \ud800 cat"], targets=["a \ud800"], **FEW)
    assert len(report.inputs) == 1
