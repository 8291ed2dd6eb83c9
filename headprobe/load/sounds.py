"""Sounds to run a model on: files, arrays, or built-in tones and noise; one channel at the model's own rate."""

import math
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headprobe.errors import EnvironmentFailure, InputError
from headprobe.load.checkpoint import first_line

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
BUILT_IN = "sounds-1"
COUNT = 8
INSTALL = 'Run: pip install "headprobe[audio]"'
HIGHEST_RATE = 10**6


@dataclass(frozen=True)
class Sound:
    """Samples of one channel in [-1, 1], and how many of them make a second."""

    samples: np.ndarray
    rate: int


def read_sound(given: Any, rate: int, name: str) -> Sound:
    """A sound from a file, from (samples, rate), or from samples that have the rate asked for; always at that rate.

    Plain WAV needs no package beyond Python's own. Raises `InputError` for what is no sound.
    """
    if isinstance(given, str | Path):
        sound = _from_file(Path(given))
    elif isinstance(given, tuple) and len(given) == 2:
        sound = _sound(given[0], int(given[1]), name)
    else:
        sound = _sound(given, rate, name)
    return _resampled(sound, rate)


def built_in_sound(index: int, rate: int) -> Sound:
    """Tones, chirps, pulses and noise of one to four seconds; the details are given by the index."""
    rng = np.random.default_rng(index)
    time = np.arange(int(rate * (1 + index % 4))) / rate
    low, high = 110 * 2 ** rng.uniform(0, 2), 880 * 2 ** rng.uniform(0, 1)
    kinds = (
        lambda: np.sin(2 * np.pi * low * time) + 0.5 * np.sin(2 * np.pi * 3 * low * time),  # tone with an overtone
        lambda: np.sin(2 * np.pi * (low + (high - low) * time / time[-1] / 2) * time),  # chirp
        lambda: np.sin(2 * np.pi * low * time) * (np.sin(2 * np.pi * 4 * time) > 0),  # pulses
        lambda: rng.standard_normal(len(time)),  # noise
    )
    samples = kinds[index % len(kinds)]() + 0.02 * rng.standard_normal(len(time))
    return Sound((0.5 * samples / np.abs(samples).max()).astype(np.float32), rate)


def _from_file(path: Path) -> Sound:
    if path.is_dir():
        raise InputError("E-AUDIO", f"{path} is a folder", "Give the files in it.")
    try:
        return _sound(*_plain_wav(path), str(path))
    except FileNotFoundError as fault:
        raise InputError("E-DATA", f"no sound at {path}") from fault
    except OSError as fault:
        raise InputError("E-DATA", f"{path} can't be read: {fault.strerror}") from fault
    except (wave.Error, EOFError):  # no WAV, or one of another coding
        return _sound(*_with_soundfile(path), str(path))


def _plain_wav(path: Path) -> tuple[np.ndarray, int]:
    with wave.open(str(path), "rb") as file:
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        raw = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    raw = raw[: len(raw) - len(raw) % (width * channels)].reshape(-1, channels, width)
    if width == 1:  # the only unsigned one
        return (raw[..., 0].astype(np.float32) - 128) / 128, rate
    wide = np.zeros((*raw.shape[:2], 4), np.uint8)
    wide[..., 4 - width :] = raw
    return wide.view("<i4")[..., 0] / np.float64(2**31), rate


def _with_soundfile(path: Path) -> tuple[np.ndarray, int]:
    try:
        import soundfile
    except (ImportError, OSError) as fault:  # OSError where its library of C is missing
        raise EnvironmentFailure("E-PACKAGE", f'{path} needs the package "soundfile"', INSTALL) from fault
    try:
        samples, rate = soundfile.read(str(path), dtype="float64", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as fault:
        raise InputError("E-AUDIO", f"{path} is no sound that can be read: {first_line(fault)}") from fault
    return samples, int(rate)


def _sound(samples: Sequence[Any] | np.ndarray, rate: int, name: str) -> Sound:
    """One channel: the mean of all [sample, channel]."""
    try:
        array = np.asarray(samples, dtype=np.float64)
    except (ValueError, TypeError) as fault:
        raise InputError("E-AUDIO", f"{name} is no sound: {first_line(fault)}") from fault
    if array.ndim == 2:
        array = array.mean(axis=1)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        what = "has samples that are no numbers" if array.ndim == 1 and array.size else "has no samples"
        raise InputError("E-AUDIO", f"{name} {what}" if array.ndim == 1 else f"{name} is no sound: {array.ndim} axes")
    if not 0 < rate <= HIGHEST_RATE:
        raise InputError("E-AUDIO", f"{name} has {rate} samples a second")
    return Sound(array.astype(np.float32), rate)


def _resampled(sound: Sound, rate: int) -> Sound:
    if sound.rate == rate:
        return sound
    try:
        from scipy.signal import resample_poly
    except ImportError as fault:
        raise EnvironmentFailure(
            "E-PACKAGE", f'a sound of {sound.rate} Hz for a model of {rate} Hz needs the package "scipy"', INSTALL
        ) from fault
    common = math.gcd(sound.rate, rate)
    samples = resample_poly(sound.samples.astype(np.float64), rate // common, sound.rate // common)
    return Sound(samples.astype(np.float32), rate)
