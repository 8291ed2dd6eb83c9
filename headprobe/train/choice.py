"""Which layers and kinds of attention are trained, as penalties and repulsive heads take them."""

from collections.abc import Iterable

from headprobe.errors import UsageError, nearest
from headprobe.settings import SITE_KINDS, parse_layers

ChosenLayers = str | int | Iterable[int] | None
ChosenKinds = str | Iterable[str] | None


def chosen_layers(layers: ChosenLayers) -> list[int] | None:
    """The numbers of layers in "0-3,7", a number or several; None for all. Raises `UsageError` for what is none."""
    if layers is None:
        return None
    several = isinstance(layers, Iterable) and not isinstance(layers, str)
    return parse_layers(",".join(map(str, layers)) if several else str(layers))  # type: ignore[arg-type]  # told above


def chosen_kinds(kinds: ChosenKinds) -> list[str] | None:
    """One kind of attention or several; None for all. Raises `UsageError` for what is none."""
    if kinds is None:
        return None
    chosen = [kinds] if isinstance(kinds, str) else list(kinds)
    for kind in chosen or [""]:
        if kind not in SITE_KINDS:
            raise UsageError("E-KIND", f'no kind of attention "{kind}"', nearest(str(kind), SITE_KINDS))
    return chosen
