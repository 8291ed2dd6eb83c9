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
RATES = (1000, 10**6)  # samples a second; beyond them a header is wrong, and resampling would fill the memory
MOST_CHANNELS = 64


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
        sound = _from_file(Path(given), name)
    elif isinstance(given, tuple) and len(given) == 2:
        sound = _sound(given[0], given[1], name)
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


def _from_file(path: Path, name: str) -> Sound:
    if path.is_dir():
        raise InputError("E-DATA", f"{name} is a folder", "Give the files in it.")
    try:
        return _sound(*_plain_wav(path), name)
    except (FileNotFoundError, ValueError) as fault:  # ValueError for a name that no file can have
        raise InputError("E-DATA", f"no sound at {name}") from fault
    except OSError as fault:
        raise InputError("E-DATA", f"{name} can't be read: {fault.strerror}") from fault
    except (wave.Error, EOFError):  # no WAV, or one of another coding
        return _sound(*_with_soundfile(path, name), name)


def _plain_wav(path: Path) -> tuple[np.ndarray, int]:
    with wave.open(str(path), "rb") as file:
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        if width > 4:
            raise wave.Error(f"{8 * width} bits a sample")
        raw = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    raw = raw[: len(raw) - len(raw) % (width * channels)].reshape(-1, channels, width)
    if width == 1:  # the only unsigned one
        return (raw[..., 0].astype(np.float32) - 128) / 128, rate
    wide = np.zeros((*raw.shape[:2], 4), np.uint8)
    wide[..., 4 - width :] = raw
    return wide.view("<i4")[..., 0] / np.float64(2**31), rate


def _with_soundfile(path: Path, name: str) -> tuple[np.ndarray, int]:
    try:
        import soundfile
    except (ImportError, OSError) as fault:  # OSError where its library of C is missing
        raise EnvironmentFailure("E-PACKAGE", f'{name} needs the package "soundfile"', INSTALL) from fault
    try:
        samples, rate = soundfile.read(str(path), dtype="float64", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as fault:
        raise InputError("E-AUDIO", f"{name} is no sound that can be read: {_reason(fault)}") from fault
    return samples, int(rate)


def _reason(fault: Exception) -> str:
    """What soundfile says beyond the file's name."""
    return first_line(fault).rsplit("': ", 1)[-1]


def _sound(samples: Sequence[Any] | np.ndarray, rate: Any, name: str) -> Sound:
    """One channel: the mean of all [sample, channel]."""
    try:
        array, rate = np.asarray(samples, dtype=np.float64), int(rate)
    except (ValueError, TypeError) as fault:
        raise InputError("E-AUDIO", f"{name} is no sound: {first_line(fault)}") from fault
    if array.ndim not in (1, 2):
        raise InputError("E-AUDIO", f"{name} is no sound: {array.ndim} axes")
    if not array.size:
        raise InputError("E-AUDIO", f"{name} has no samples")
    if array.ndim == 2 and array.shape[1] > MOST_CHANNELS:
        raise InputError("E-AUDIO", f"{name} has {array.shape[1]} channels", "Give samples as [sample, channel].")
    if not np.isfinite(array).all():
        raise InputError("E-AUDIO", f"{name} has samples that are no numbers")
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError("E-AUDIO", f"{name} has {rate} samples a second", f"Valid: {RATES[0]} to {RATES[1]}.")
    return Sound((array if array.ndim == 1 else array.mean(axis=1)).astype(np.float32), rate)


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
