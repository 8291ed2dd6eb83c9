"""Sites by their calls: which call of which module, in which part of the model, is which site."""

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from headprobe.capture.calls import Call
from headprobe.capture.frames import Frame, is_attention
from headprobe.capture.layout import EXPERTS
from headprobe.capture.masks import Inputs
from headprobe.capture.naming import Layers, attention_modules, kind_of, tower
from headprobe.errors import InputError
from headprobe.tile import Site


@dataclass
class Run:
    """What a module has shown since its layer began to run: a site, and how many positions were its queries.

    The queries and keys seen are kept while the layer runs, so that other ones can't come to stand in their place.
    """

    site: Site
    frame: Frame
    covered: int = 0
    seen: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def shares(self, source: tuple[Tensor, Tensor] | None) -> bool:
        """True if the queries are another part of the same tensor as those before."""
        if source is None or not self.seen or source[0].is_meta:
            return False
        return source[0].untyped_storage().data_ptr() == self.seen[-1][0].untyped_storage().data_ptr()

    def repeats(self, source: tuple[Tensor, Tensor] | None) -> bool:
        """True if the very same queries and keys were here before: their attention is the same."""
        return source is not None and any(
            all(_same(a, b) for a, b in zip(source, other, strict=True)) for other in self.seen
        )


def _same(a: Tensor, b: Tensor) -> bool:
    if a is b or a.is_meta:
        return a is b
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


class Sites:
    """The sites of a model in order of execution, and which attention modules were none."""

    def __init__(self, model: nn.Module) -> None:
        self.found: list[Site] = []
        self.left_out: dict[str, str] = {}
        self.ran: set[str] = set()
        self._model = model
        self._modules = attention_modules(model)
        self._known: dict[tuple[str, int], Site] = {}
        self._layers = Layers()
        self._calls: Counter[str] = Counter()

    def begin(self) -> None:
        """A forward pass begins: calls are counted anew."""
        self._calls.clear()

    def leave_out(self, path: str, reason: str | None) -> bool:
        """True if there is a reason why a softmax of this module is no attention; the report will say so."""
        if reason is not None:
            self.left_out[path] = reason
        return reason is not None

    def begun(self, call: Call, frame: Frame, inputs: Inputs) -> Site:
        """The site of a call that begins one: known from an earlier pass, or new."""
        key = call.path, self._calls[call.path]
        self._calls[call.path] += 1
        if key not in self._known:
            self._known[key] = self._new(call, frame, inputs)
            self.found.append(self._known[key])
        site = self._known[key]
        if site.heads != call.shape[1]:
            raise InputError(
                "E-CAPTURE", f"{call.path} had {site.heads} heads in one forward pass and {call.shape[1]} in another"
            )
        return site

    def _new(self, call: Call, frame: Frame, inputs: Inputs) -> Site:
        rows, heads, queries, keys = call.shape
        structure = call.structure
        device = structure.device if structure is not None else torch.device("cpu")
        kind = kind_of(frame, structure, (rows, queries, keys), lambda: inputs.text_mask(queries, device))
        widest = None if structure is None else structure.widest
        return Site(
            len(self.found),
            call.path,
            kind,
            self._layers.number(call.path, kind),
            heads,
            call.kv_heads,
            call.sink,
            tower=tower(call.path),
            window=call.window or widest or (keys if rows > inputs.batch else None),
        )

    @property
    def complete(self) -> bool:
        """True if every attention module was seen at work."""
        return not self._unseen()

    def without_softmax(self) -> list[str]:
        """Attention modules that ran and took no softmax: linear attention and its like, which has no such rows."""
        return [path for path in self._unseen() if path in self.ran]

    def unfed(self) -> dict[str, list[str]]:
        """Parts of the model that did not run at all, by path, with their attention modules: towers without an input.

        A single layer or attention module is no such part: that one of a stack was passed over is not normal.
        """
        parts: dict[str, list[str]] = {}
        for path in self._unseen():
            names = path.split(".")
            ancestors = [".".join(names[:end]) for end in range(1, len(names) + 1)]
            part = next((each for each in ancestors if not any(_within(ran, each) for ran in self.ran)), path)
            if part != path and not part.split(".")[-1].isdigit() and not is_attention(self._model.get_submodule(part)):
                parts.setdefault(part, []).append(path)
        return parts

    def refuse_unseen(self) -> None:
        """After the first forward pass: raise `InputError` if an attention module did not run, or none was seen."""
        unfed = [path for paths in self.unfed().values() for path in paths]
        unseen = [path for path in self._unseen() if path not in self.ran and path not in unfed]
        if unseen:
            raise InputError(
                "E-CAPTURE",
                f"{len(unseen)} attention layers of {type(self._model).__name__} were not seen: {', '.join(unseen)}",
                "Nothing was measured, since a report without them would mislead.",
            )
        if not self.found:
            without = self.without_softmax()
            why = f": {without[0]} and its like take no softmax" if without else ""
            raise InputError("E-NOATTN", f"{type(self._model).__name__} has no softmax attention layers{why}")

    def notes(self) -> list[str]:
        """What a reader of a report must know about layers that are not in it."""
        notes = [
            f"{part} ({len(paths)} attention layers) did not run on these inputs and is not in the report"
            for part, paths in self.unfed().items()
        ]
        for stack, numbers in self._layers_without().items():
            several = "layers " if len(numbers) > 1 else "layer "
            which = several + ", ".join(map(str, numbers)) + (f" of {stack}" if stack else "")
            notes.append(f"{which} {'have' if len(numbers) > 1 else 'has'} no softmax attention")
        reasons: dict[str, list[str]] = {}
        for path, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(path)
        notes += [
            f"softmaxes of {reason} are no attention and were left out: {_some(paths)}"
            for reason, paths in reasons.items()
            if reason != EXPERTS  # which nobody would look for here
        ]
        return notes

    def _layers_without(self) -> dict[str, list[int]]:
        """By stack the numbers of its layers that have no site."""
        stacks: dict[str, set[int]] = {}
        for site in self.found:
            parts = site.path.split(".")
            at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
            if at is not None:
                stacks.setdefault(".".join(parts[:at]), set()).add(int(parts[at]))
        lengths = {stack: len(list(self._model.get_submodule(stack).children())) for stack in stacks}
        without = {stack: sorted({*range(lengths[stack])} - numbers) for stack, numbers in stacks.items()}
        return {stack: numbers for stack, numbers in without.items() if numbers}

    def _unseen(self) -> list[str]:
        seen = [*{site.path for site in self.found}, *self.left_out]
        return [path for path in self._modules if not any(_within(s, path) or _within(path, s) for s in seen)]


def _within(path: str, other: str) -> bool:
    return f"{path}.".startswith(f"{other}.")


def _some(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")


def part_of(
    layer: Frame, frame: Frame, path: str, size: int, heads: int, source: tuple[Tensor, Tensor] | None
) -> Run | None:
    """The run in `layer` that a call of `size` queries goes on with, or repeats; None for a call that begins a site.

    A call goes on if its queries were split off those of the calls before, or its module `frame` was called again by
    the attention layer it is part of, while they had not covered the layer's positions.
    """
    run: Run | None = layer.runs.get(path)
    if run is None or run.site.heads != heads:
        return None
    if run.repeats(source):
        return run
    together = run.frame is not frame or run.shares(source)
    return run if together and run.covered + size <= layer.size else None
