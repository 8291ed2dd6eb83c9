"""What penalties and repulsive heads are told: a model, which of its layers and kinds of attention, and numbers."""

import math
from collections.abc import Collection, Iterable
from numbers import Real
from typing import TypeGuard

from torch import nn

from headprobe.errors import UsageError, nearest
from headprobe.settings import SITE_KINDS, parse_layers

ChosenLayers = str | int | Iterable[int] | None
ChosenKinds = str | Iterable[str] | None


def chosen_layers(layers: ChosenLayers) -> list[int] | None:
    """The numbers of layers in "0-3,7", a number or several; None for all. Raises `UsageError` for what is none."""
    return None if layers is None else parse_layers(",".join(map(str, _several(layers))))


def chosen_kinds(kinds: ChosenKinds) -> list[str] | None:
    """One kind of attention or several; None for all. Raises `UsageError` for what is none."""
    if kinds is None:
        return None
    return [one_of(SITE_KINDS, kind, "E-KIND", "kind of attention") for kind in _several(kinds) or [""]]


def one_of(valid: Collection[str], name: object, code: str, what: str) -> str:
    """`name`, if it is one of the `valid` ones. Raises `UsageError` that says of `what` there is no such."""
    if str(name) not in valid:
        raise UsageError(code, f'no {what} "{name}"', nearest(str(name), valid))
    return str(name)


def not_negative(name: str, value: object) -> float:
    """A finite number, 0 or more. Raises `UsageError` for anything else."""
    if not _is_number(value) or not math.isfinite(value) or value < 0:
        raise UsageError("E-OPTION", f"{name} {value!r} makes no sense", "Give a number, 0 or more.")
    return float(value)


def distance(name: str, value: object) -> float:
    """A number above 0, which may be infinite. Raises `UsageError` for anything else."""
    if not _is_number(value) or not value > 0:
        raise UsageError("E-OPTION", f"{name} {value!r} is no distance", "Give a number above 0.")
    return float(value)


def check_model(model: object) -> None:
    """Raise `UsageError` for what is no model."""
    if not isinstance(model, nn.Module):
        raise UsageError("E-MODEL", f"{type(model).__name__} is no model", "Give the model itself, a torch module.")


def _several(given: object) -> list[object]:
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)
