"""observing(): show every attention call of a model's forward passes to a function, tile by tile."""

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from headprobe import devices
from headprobe.capture.calls import Call, pieces
from headprobe.capture.frames import Frame, Frames, anchor
from headprobe.capture.fused import FusedCall
from headprobe.capture.interface import EagerCall, listening, probabilities
from headprobe.capture.layout import UNKNOWN, Layout, excluded, head_count, included, layout, refused, unsupported
from headprobe.capture.lazy import lazy_masks
from headprobe.capture.masks import Inputs, named
from headprobe.capture.memory import Memory
from headprobe.capture.naming import key_value_heads, unhidden, without_filling
from headprobe.capture.shown import Room, Shown
from headprobe.capture.sites import Run, Sites, part_of
from headprobe.capture.softmax import SoftmaxTap
from headprobe.capture.structure import Structure, visible
from headprobe.capture.structures import Structures
from headprobe.capture.wiring import Wiring
from headprobe.errors import UsageError
from headprobe.tile import AttentionTile, Site

Receive = Callable[[AttentionTile], object]  # what it returns is not looked at


@contextmanager
def observing(
    model: nn.Module,
    receive: Receive,
    *,
    tile_bytes: int = 2**28,
    cached_bytes: int = 2**28,
    whole_sequences: bool = True,
    allow_invalid: bool = False,
    outputs: bool = False,
) -> Iterator["Observer"]:
    """Show every attention call of `model`'s forward passes to `receive`, as `AttentionTile`s in order of execution.

    The model must be a transformers model in eval mode with eager attention, and computes what it would compute
    unwatched, to rounding where a call is cut. A sequence whose probabilities take more than `tile_bytes` (in float32)
    is run some query rows at a time, so that no more of them ever exists. On a CPU a call of more than `cached_bytes`
    is run some sequences at a time, and without `whole_sequences` some rows: that is faster in its cache.

    Padding is read from the masks that the model is called with. A tile is the receiver's to read while it runs; keep
    what you compute from it, not the tile. With `outputs` tiles also have what their heads give; then the first forward
    pass is run twice, the first time to see which module reads it.

    Raises `InputError` when a site's first tile is not a distribution over the visible keys (not with
    `allow_invalid`), when attention is computed in a way that shows no probabilities, and at the end of the first
    forward pass when an attention module was not seen; `UsageError` for a model in training mode, one that is not
    eager, or one that is being observed already.
    """
    room = Room(tile_bytes, min(cached_bytes, tile_bytes), whole_sequences)
    observer = Observer(model, receive, room, allow_invalid, outputs)
    with ExitStack() as stack:
        stack.enter_context(listening(model.modules(), observer))
        for handle in observer.hooks():
            stack.callback(handle.remove)
        stack.enter_context(lazy_masks(tile_bytes))
        stack.callback(observer.memory.close)
        stack.enter_context(observer.tap)
        yield observer


class Observer:
    """Both taps' listener: knows which module is running, names sites, makes tiles and hands them on."""

    passive = False

    def __init__(self, model: nn.Module, receive: Receive, room: Room, allow_invalid: bool, outputs: bool) -> None:
        self.model = model
        self.receive = receive
        self.room = room
        self.allow_invalid = allow_invalid
        self.wiring = Wiring(wanted=outputs)
        self.receiving = False
        self.memory = Memory(room.tile)
        self.tap = SoftmaxTap(self)
        self._sites = Sites(model)
        self._paths = {module: path for path, module in model.named_modules()}
        self._signature = inspect.signature(model.forward)
        configs = (each.config for each in model.modules() if hasattr(each, "config"))  # a wrapper may have none
        self._decodes = bool(getattr(next(configs, None), "is_encoder_decoder", False))
        self._thread = threading.get_ident()
        self._frames = Frames()
        self.inputs = Inputs({})
        self.arithmetic = devices.Arithmetic.now()
        self.structures = Structures()
        self.passes = 0
        self.sequences = 0
        self._inside_interface = False

    @property
    def sites(self) -> list[Site]:
        """The sites seen so far, in order of execution."""
        return self._sites.found

    @property
    def notes(self) -> list[str]:
        """What a reader of a report must know about layers that are not in it."""
        return self._sites.notes()

    # --- the forward pass ---------------------------------------------------------------------------------------

    def hooks(self) -> Iterator[Any]:
        """Register the hooks that follow the running module; the caller removes the handles."""
        yield self.model.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True)
        for module in self._paths:
            yield module.register_forward_pre_hook(self._enter, with_kwargs=True)
            yield module.register_forward_hook(self._leave, prepend=True, with_kwargs=True, always_call=True)
        yield self.model.register_forward_hook(self._end)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._check_ready()
        self.wiring.look(module, args, kwargs)
        self.inputs = Inputs(named(self._signature, args, kwargs), decodes=self._decodes)
        self.arithmetic = devices.Arithmetic.now()
        self.receiving = False
        self._frames.clear()
        self._sites.begin()
        self.structures.clear()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        self._frames.enter(module, self._paths[module], given, kwargs.get("cu_seqlens"))

    def _leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        path = self._frames.leave(module)
        if path is not None:
            self._sites.ran.add(path)
            if self.wiring.looking:
                with self.tap.paused():
                    self.wiring.ran(path, module, (*args, *kwargs.values()), output)

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.wiring.looking:
            return
        self.passes += 1
        self.sequences += self.inputs.batch
        if self.passes == 1:
            self._sites.refuse_unseen()

    # --- the taps -----------------------------------------------------------------------------------------------

    def attend(self, eager: EagerCall) -> tuple[Tensor, Tensor | None]:
        """The interface tap: run the call, whole where it fits the tile, and show what its softmax gave."""
        module = eager.module
        self._check_running(module)
        if self._sites.leave_out(self._paths[module], excluded(module, by_interface=True)):
            with self._inside():
                return eager.whole()
        kept = eager if self.wiring.wanted else eager.without_values()
        shown = self._show(self._call(eager, kept))
        with self._inside():
            output, probs = eager.whole() if shown.whole else (shown.run(eager), None)
        if shown.whole:
            shown.see(0, probabilities(module, probs), kept.made(output))
        shown.give(kept.made(output))
        return output, probs

    def _call(self, eager: EagerCall, anew: EagerCall | None) -> Call:
        """A call through the interface, as sites see it."""
        module, query, key, options = eager.module, eager.query, eager.key, eager.options
        heads, keys = query.shape[1], key.shape[2]
        window = options.get("sliding_window")
        return Call(
            path=self._paths[module],
            module=module,
            shape=(*query.shape[:3], keys),
            structure=self.structures.of(eager.mask, keys, self._frames.origin(eager.mask)),
            kv_heads=key.shape[1] if key.shape[1] < heads else key_value_heads(module, heads),
            sink=any(options.get(name) is not None for name in ("s_aux", "sinks")),
            window=window if isinstance(window, int) else None,
            source=(query, key),
            anew=anew,
        )

    def softmax(self, scores: Tensor, dim: int, probs: Tensor) -> None:
        """The softmax tap: a softmax outside the interface, if its module and shape make it attention."""
        frame = self._running()
        if frame is None or self._sites.leave_out(frame.path, excluded(frame.module, tuple(scores.shape), dim)):
            return
        near = [each.module for each in self._frames.running[-3:]]
        found = layout(tuple(scores.shape), dim, self.inputs.batch, head_count(near))
        reason = refused(frame.module)
        if frame.calls_itself_attention and (found is None or reason):
            which = reason or "not [batch, head, query, key]"
            raise unsupported("E-LAYOUT", frame, f"has a softmax of shape {list(scores.shape)}, which is {which}")
        if found is not None and (frame.calls_itself_attention or included(near, found)):
            self._see_softmax(frame, found, scores, probs)
        elif scores.dim() >= 3:
            self._sites.left_out[frame.path] = UNKNOWN

    def _see_softmax(self, frame: Frame, found: Layout, scores: Tensor, probs: Tensor) -> None:
        shown, probs = self._softmax_shown(frame, found, scores, probs)
        shown.see(0, probs)

    def _softmax_shown(self, frame: Frame, found: Layout, scores: Tensor, probs: Tensor) -> tuple[Shown, Tensor]:
        """Whose attention a softmax is, and what it gave as [row, head, query, key]."""
        with self.tap.paused():
            in_blocks = scores.dim() == 5
            scores, probs = found.apply(scores), found.apply(probs)
            shown = visible(unhidden(scores))
            if in_blocks:
                shown = without_filling(shown, self.inputs.batch, anchor(self._frames.running).size)
            # what a site is, is told from its first pass; after that nobody waits for a device to know if any is hidden
            known = not shown.is_meta and (devices.at_hand(shown) or not self.passes)
            structure = None if known and bool(shown.all()) else Structure(shown, of_one_call=True)
        kv_heads = key_value_heads(frame.module, probs.shape[1])
        rows, heads, queries, keys = probs.shape
        return self._show(Call(frame.path, frame.module, (rows, heads, queries, keys), structure, kv_heads)), probs

    def fused(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """The softmax tap: torch computed attention without holding its probabilities, so they are computed again."""
        frame = self._running()
        if frame is None:
            return
        if "scaled_dot_product" not in operator.name():
            name = operator.name().removeprefix("aten::")
            raise unsupported(
                "E-CAPTURE", frame, f"computes attention in one call ({name}), which shows no probabilities"
            )
        with self.tap.paused():
            fused = FusedCall(operator, args, kwargs, result if self.wiring.wanted else None)
            shown = self._show(
                Call(
                    frame.path,
                    frame.module,
                    fused.shape,
                    self.structures.of(fused.bias, fused.shape[3]),
                    fused.kv_heads,
                    source=(fused.query, fused.key),
                    anew=fused,
                )
            )
            shown.compute(fused)
            shown.give(fused.made)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """The interface tap is at work: the softmaxes in it are its own."""
        self._inside_interface = True
        try:
            yield
        finally:
            self._inside_interface = False

    def _check_ready(self) -> None:
        training = next((path or "the model" for module, path in self._paths.items() if module.training), None)
        if training is not None:
            raise UsageError(
                "E-TRAINING", f"{training} is in training mode: dropout changes attention", "Call .eval()."
            )
        if threading.get_ident() != self._thread:  # where the softmax tap, which torch keeps by thread, sees nothing
            raise UsageError("E-OBSERVED", "the model runs in another thread than the one that observes it")

    def _check_running(self, module: nn.Module) -> None:
        if self.receiving or self._frames.outermost is not self.model:
            raise UsageError(
                "E-OBSERVED",
                f"{self._paths[module]} runs outside a forward pass of the observed {type(self.model).__name__}",
                "Call the model itself, not a part of it or its generate().",
            )

    def _running(self) -> Frame | None:
        """The module at work, None while its attention is being taken otherwise."""
        if self._inside_interface or self.receiving:
            return None
        frames = self._frames.running
        return frames[-1] if frames else None

    # --- sites and tiles ----------------------------------------------------------------------------------------

    def _show(self, call: Call) -> Shown:
        """Whose attention a call is, and what takes its probabilities to the receiver."""
        batch, heads, queries, _ = call.shape
        frames = self._frames.running
        layer = anchor(frames)
        run = part_of(layer, frames[-1], call.path, batch * queries, heads, call.source)
        if run is not None and run.repeats(call.source):
            return Shown(self, run.site, call, [])
        if run is None:
            run = layer.runs[call.path] = Run(self._sites.begun(call, frames[-1], self.inputs), frames[-1])
        first = run.covered
        run.covered += batch * queries
        run.seen += [] if call.source is None else [call.source]
        lengths = next((frame.lengths for frame in reversed(frames) if frame.lengths is not None), None)
        return Shown(self, run.site, call, pieces(call, self.inputs, first, layer.size, lengths))
