"""Inputs by hand for the types whose forward takes what nothing else takes."""

from collections.abc import Callable
from typing import Any

from tests.zoo.facts import Facts

Values = dict[str, Any]
SPECIAL: dict[str, Callable[[Facts], list[Values]]] = {}
