"""What can be wrong with images, sounds, pairs and targets, and the one line that headprobe answers."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

import headprobe
from headprobe.errors import InputError, UsageError
from tests.cli.test_bad_input import assert_told
from tests.conftest import SAMPLES, Run
from tests.feed.checkpoints import lines, picture, recording
from tests.feed.conftest import Made

Told = Callable[..., None]
OFFER = "Or measure random inputs: --random-inputs 32."


@pytest.fixture
def told(run: Run, made: Made) -> Told:
    """Scan a checkpoint with some arguments, and make sure that it is refused in one line."""

    def check(code: int, error: str, says: str, name: str, *arguments: object) -> None:
        assert_told(run("scan", made(name), *arguments), code, error, says)

    return check


# --- images -----------------------------------------------------------------------------------------------------


def test_images_that_are_not_there_are_named(told: Told, tmp_path: Path) -> None:
    told(3, "E-DATA", f"no image at {tmp_path / 'nope'}", "vit", "--images", tmp_path / "nope")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no image")
    says = f"no image in {tmp_path / 'empty'} (1 other files). Valid: .jpg,"
    told(3, "E-DATA", says, "vit", "--images", tmp_path / "empty")


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[300:320] = bytes(20)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "breaks", "says"),
    [
        ("a.png", _half, "a.png is damaged"),
        ("a.jpg", _half, "a.jpg is"),
        ("a.png", _flipped, "a.png is damaged"),
        ("a.png", lambda path: path.write_text("hello"), "a.png is no image that can be read. Valid: JPEG"),
        ("a.png", lambda path: path.write_bytes(b""), "a.png is no image that can be read"),
        ("a.png", lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "is no image"),
    ],
    ids=["half a PNG", "half a JPEG", "flipped bytes", "a text", "nothing", "a program for a printer"],
)
def test_a_broken_image_is_named(
    told: Told, tmp_path: Path, name: str, breaks: Callable[[Path], Any], says: str
) -> None:
    breaks(picture(tmp_path / name, (40, 40)))
    picture(tmp_path / "0.png", (20, 20))
    told(3, "E-IMAGE", says, "vit", "--images", tmp_path)


def test_an_image_too_large_to_be_one_is_refused(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    told(3, "E-IMAGE", "a.png has too many pixels", "vit", "--images", picture(tmp_path / "a.png", (40, 40)))
    told(3, "E-IMAGE", "b.png has too many pixels", "vit", "--images", picture(tmp_path / "b.png", (90, 90)))


def test_an_image_model_needs_its_processor(
    run: Run, made: Made, copied: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, path = copied("vit"), picture(tmp_path / "a.png", (20, 20))
    (folder / "preprocessor_config.json").write_text('{"image_processor_type": "NoSuchProcessor"}')
    assert_told(run("scan", folder, "--images", path), 3, "E-PROCESSOR", "the image processor in", OFFER)
    (folder / "preprocessor_config.json").unlink()
    assert_told(run("scan", folder, "--images", path), 3, "E-PROCESSOR", "no preprocessor_config.json in", OFFER)
    assert run("scan", folder, "--random-inputs", 2, "--metrics", "rcos").code == 0


def test_a_processor_of_the_checkpoints_own_is_not_run(run: Run, copied: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied("vit")
    (folder / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "Mine", "auto_map": {"AutoImageProcessor": "mine.Mine"}}'
    )
    assert_told(
        run("scan", folder, "--images", picture(tmp_path / "a.png", (20, 20))),
        5,
        "E-REMOTE",
        "pass --trust-remote-code",
    )
    assert not (tmp_path / "ran").exists()


def test_a_package_that_is_missing_is_named(told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    says = 'needs the package "soundfile". Run: pip install "headprobe[audio]"'
    told(4, "E-PACKAGE", says, "wav2vec2", "--audio", tmp_path / "a.flac")
    says = "a sound of 8000 Hz for a model of 16000 Hz needs the package"
    told(4, "E-PACKAGE", says, "wav2vec2", "--audio", recording(tmp_path / "a.wav", 0.2, 8000))


# --- sounds -----------------------------------------------------------------------------------------------------


def _plain(path: Path) -> None:
    recording(path, 0.2)


@pytest.mark.parametrize(
    ("name", "writes", "says"),
    [
        ("a.wav", lambda path: path.write_text("hello"), "a.wav is no sound that can be read"),
        ("a.wav", lambda path: path.write_bytes(b""), "a.wav is no sound that can be read"),
        ("a.flac", lambda path: path.write_bytes(b"fLaC" + bytes(99)), "a.flac is no sound that can be read"),
        ("a.wav", lambda path: recording(path, 0), "a.wav has no samples"),
        (
            "a.wav",
            lambda path: soundfile.write(path, np.array([0.1, np.nan]), 16_000, subtype="FLOAT"),
            "a.wav has samples that are no numbers",
        ),
    ],
    ids=["a text", "nothing", "half a FLAC", "no samples", "not a number"],
)
def test_a_broken_sound_is_named(
    told: Told, tmp_path: Path, name: str, writes: Callable[[Path], Any], says: str
) -> None:
    writes(tmp_path / name)
    told(3, "E-AUDIO", says, "wav2vec2", "--audio", tmp_path)


def test_a_sound_too_short_for_the_model_is_told(told: Told, tmp_path: Path) -> None:
    told(3, "E-AUDIO", "a.wav is too short for the model", "wav2vec2", "--audio", recording(tmp_path / "a.wav", 0.005))


def test_sounds_need_their_extractor(run: Run, copied: Callable[[str], Path]) -> None:
    folder = copied("wav2vec2")
    (folder / "preprocessor_config.json").unlink()
    assert_told(run("scan", folder), 3, "E-PROCESSOR", "no preprocessor_config.json", OFFER)


# --- pairs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "error", "says"),
    [
        ({"text": "a cat"}, "E-FIELD", 'pairs.jsonl:2 has no field "image"'),
        ({"image": "a.png"}, "E-FIELD", 'pairs.jsonl:2 has no field "text". Every line needs image (a path) and text'),
        ({"image": 3, "text": "a cat"}, "E-FIELD", 'pairs.jsonl:2 "image" is no text'),
        ({"image": "nope.png", "text": "a cat"}, "E-DATA", "no image at"),
        ({"image": ".", "text": "a cat"}, "E-DATA", "is a folder"),
        ({"image": "pairs.jsonl", "text": "a cat"}, "E-IMAGE", "is no image that can be read"),
        ({"image": "a\0.png", "text": "a cat"}, "E-IMAGE", "is damaged"),
        ([], "E-DATA", "pairs.jsonl:2 is not a JSON object"),
    ],
)
@pytest.mark.parametrize("name", ["clip", "llava"])
def test_a_wrong_pair_is_named(told: Told, tmp_path: Path, name: str, row: object, error: str, says: str) -> None:
    picture(tmp_path / "a.png", (20, 20))
    path = lines(tmp_path / "pairs.jsonl", {"image": "a.png", "text": "a cat"}, row)
    told(3, error, says, name, "--text", path)


def test_an_image_elsewhere_is_read(run: Run, made: Made, tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (20, 20))
    (tmp_path / "deep").mkdir()
    path = lines(
        tmp_path / "deep/pairs.jsonl",
        {"image": "../a.png", "text": "a"},
        {"image": str(tmp_path / "a.png"), "text": "a"},
    )
    assert run("scan", made("clip"), "--text", path, "--metrics", "rcos").code == 0


def test_a_model_of_pairs_needs_both(told: Told, made: Made, tmp_path: Path) -> None:
    hint = "Give --text FILE.jsonl whose lines have image (a path) and text"
    (tmp_path / "a.txt").write_text("a cat\n")
    told(
        2,
        "E-MODALITY",
        f"CLIPModel takes images with texts, not texts alone. {hint}",
        "clip",
        "--text",
        tmp_path / "a.txt",
    )
    path = picture(tmp_path / "a.png", (20, 20))
    told(2, "E-MODALITY", f"LlavaModel takes images with texts, not images alone. {hint}", "llava", "--images", path)
    told(3, "E-DATA", "no lines in", "clip", "--text", lines(tmp_path / "empty.jsonl"))
    with pytest.raises(UsageError, match="not texts alone"):
        headprobe.scan(made("clip"), texts=["a cat"])
    with pytest.raises(InputError, match="2 texts for 1 images"):
        headprobe.scan(made("clip"), texts=["a cat", "a mat"], images=[path])


def test_pairs_need_their_processor(run: Run, copied: Callable[[str], Path]) -> None:
    folder = copied("llava")
    (folder / "processor_config.json").unlink()
    (folder / "preprocessor_config.json").unlink(missing_ok=True)
    assert_told(run("scan", folder), 3, "E-PROCESSOR", "no preprocessor_config.json", OFFER)


# --- targets ----------------------------------------------------------------------------------------------------


def test_targets_are_one_for_each_input(told: Told, made: Made, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("a cat\nwhy ?\n")
    (tmp_path / "out.txt").write_text("a mat\n")
    says = "1 target texts for 2 texts. Give one target for each, in their order"
    told(3, "E-TARGETS", says, "bart", "--text", tmp_path / "in.txt", "--target-text", tmp_path / "out.txt")
    says = "1 target texts for 8 inputs"
    told(3, "E-TARGETS", says, "whisper", "--target-text", tmp_path / "out.txt")
    told(3, "E-DATA", "no text file at", "bart", "--target-text", tmp_path / "nope.txt")
    with pytest.raises(UsageError, match="targets is one text"):
        headprobe.scan(made("bart"), texts=["a cat"], targets="a cat")


# --- options that mean nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "error", "says"),
    [
        ("bert", ("--images", "x"), "E-MODALITY", "BertModel takes texts, not images. Leave --images out"),
        ("bert", ("--audio", "x"), "E-MODALITY", "BertModel takes texts, not sounds"),
        ("vit", ("--audio", "x"), "E-MODALITY", "ViTModel takes images, not sounds"),
        ("wav2vec2", ("--images", "x"), "E-MODALITY", "Wav2Vec2Model takes sounds, not images"),
        ("wav2vec2", ("--text", "x.txt"), "E-MODALITY", "Wav2Vec2Model takes sounds, not texts. Give --audio"),
        ("clip", ("--audio", "x"), "E-MODALITY", "CLIPModel takes images with texts, not sounds"),
        ("patchtst", (), "E-MODALITY", "PatchTSTModel takes past_values, which no option gives"),
        ("bert", ("--target-text", "x"), "E-OPTION", "BertModel has no decoder and no use for --target-text x"),
        ("bert", ("--target-length", 5), "E-OPTION", "no use for --target-length 5"),
        ("vit", ("--special", "drop-keys"), "E-OPTION", "images have no use for --special drop-keys"),
        ("vit", ("--max-length", 5), "E-OPTION", "images have no use for --max-length 5"),
        ("clip", ("--special", "drop-keys"), "E-OPTION", "pairs have no use for --special"),
        ("bert", ("--random-inputs", 2, "--text", "x.txt"), "E-OPTION", "random inputs have no use for --text x.txt"),
        ("bert", ("--random-inputs", 2, "--limit", 1), "E-OPTION", "random inputs have no use for --limit 1"),
        ("bert", ("--random-inputs", 0), "E-OPTION", "--random-inputs 0 is too small"),
        ("bart", ("--target-length", 0), "E-OPTION", "--target-length 0 is too small"),
    ],
)
def test_what_means_nothing_is_refused(
    told: Told, name: str, arguments: tuple[object, ...], error: str, says: str
) -> None:
    told(2, error, says, name, *arguments)


def test_a_text_model_without_tokenizer_can_be_given_random_inputs(run: Run, copied: Callable[[str], Path]) -> None:
    folder = copied("bert")
    (folder / "tokenizer.json").unlink()
    assert_told(run("scan", folder), 3, "E-TOKENIZER", "no tokenizer files", OFFER)
    assert run("scan", folder, "--random-inputs", 2, "--metrics", "rcos").code == 0


def test_lists_from_python_are_checked() -> None:
    with pytest.raises(UsageError, match="paths or objects, not both"):
        headprobe.scan(SAMPLES / "tiny-vit", images=["a.png", np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(InputError, match="image 0 is damaged"):
        headprobe.scan(SAMPLES / "tiny-vit", images=[object()])
    with pytest.raises(UsageError, match="batches exclude"):
        headprobe.scan(SAMPLES / "tiny-vit", images=["a.png"], batches=[{}])
