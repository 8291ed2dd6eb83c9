"""observing(): show every attention call of a model's forward passes to a function, tile by tile."""

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from headprobe.capture.interface import AttentionFunction, listening, probabilities, run_tiled
from headprobe.capture.masks import InputMasks
from headprobe.capture.naming import HIDDEN, Frame, Layers, attention_modules, one_directional, visible
from headprobe.capture.softmax import SoftmaxTap
from headprobe.capture.tiles import make_tile
from headprobe.capture.validate import validate
from headprobe.errors import InputError, UsageError
from headprobe.tile import AttentionTile, Kind, Site

Receive = Callable[[AttentionTile], None]
ROUTERS = re.compile("router|gate|gating|expert|moe", re.IGNORECASE)  # a softmax over experts is no attention


@contextmanager
def observing(
    model: nn.Module, receive: Receive, *, tile_bytes: int = 2**28, allow_invalid: bool = False
) -> Iterator["Observer"]:
    """Show every attention call of `model`'s forward passes to `receive`, as `AttentionTile`s in order of execution.

    The model must be a transformers model in eval mode with eager attention, and computes what it would compute
    unwatched. A call whose probabilities take more than `tile_bytes` (in float32) is run some query rows at a time,
    so that no more of them ever exists. Padding is read from the masks that the model is called with. A tile is the
    receiver's to read while it runs; keep what you compute from it, not the tile.

    Raises `InputError` when a site's first tile is not a distribution over the visible keys (not with
    `allow_invalid`), when attention is computed in a way that shows no probabilities, and at the end of the first
    forward pass when an attention module was not seen; `UsageError` for a model in training mode, one that is not
    eager, or one that is being observed already.
    """
    observer = Observer(model, receive, tile_bytes, allow_invalid)
    with ExitStack() as stack:
        stack.enter_context(listening(model.modules(), observer))
        for handle in observer.hooks():
            stack.callback(handle.remove)
        stack.enter_context(observer.tap)
        yield observer


class Observer:
    """Both taps' listener: knows which module is running, names sites, makes tiles and hands them on."""

    def __init__(self, model: nn.Module, receive: Receive, tile_bytes: int, allow_invalid: bool) -> None:
        self.model = model
        self.receive = receive
        self.tile_bytes = tile_bytes
        self.allow_invalid = allow_invalid
        self.sites: list[Site] = []
        self.receiving = False
        self.tap = SoftmaxTap(self)
        self._known: dict[tuple[str, int], Site] = {}
        self._layers = Layers()
        self._paths = {module: path for path, module in model.named_modules()}
        self._signature = inspect.signature(model.forward)
        self._frames: list[Frame] = []
        self._calls: Counter[str] = Counter()
        self._masks = InputMasks({})
        self._structures: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._full: dict[tuple[int, Kind], bool] = {}
        self._passes = 0
        self._sequences = 0
        self._inside_interface = False

    # --- the forward pass ---------------------------------------------------------------------------------------

    def hooks(self) -> Iterator[Any]:
        """Register the hooks that follow the running module; the caller removes the handles."""
        yield self.model.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True)
        for module in self._paths:
            yield module.register_forward_pre_hook(self._enter, with_kwargs=True)
            yield module.register_forward_hook(self._leave, prepend=True, always_call=True)
        yield self.model.register_forward_hook(self._end)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.model.training:
            raise UsageError("E-TRAINING", "the model is in training mode: dropout changes attention", "Call .eval().")
        arguments = dict(self._signature.bind_partial(*args, **kwargs).arguments)
        arguments.update(arguments.pop("kwargs", {}))
        decodes = bool(getattr(getattr(self.model, "config", None), "is_encoder_decoder", False))
        self._masks = InputMasks(arguments, decodes=decodes)
        self.receiving = False
        self._frames.clear()
        self._calls.clear()
        self._structures.clear()
        self._full.clear()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if self._frames and given:
            frame, above = self._frames[-1], self._frames[:-1]
            source = given[0]
            if frame.was_given(source) and any(f.was_given(source) for f in above if not f.calls_itself_attention):
                frame.read.append(source)
        others = [value for value in given[1:] if value is not given[0]]
        self._frames.append(Frame(module, self._paths[module], others, []))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._frames and self._frames[-1].module is module:  # not so if the pass was refused before it began
            self._frames.pop()

    def _end(self, module: nn.Module, args: Any, output: Any) -> None:
        self._passes += 1
        self._sequences += self._masks.batch
        if self._passes == 1:
            self._refuse_unseen()

    def _refuse_unseen(self) -> None:
        seen = {site.path for site in self.sites}
        unseen = [
            path
            for path in attention_modules(self.model)
            if not any(f"{s}.".startswith(f"{path}.") or f"{path}.".startswith(f"{s}.") for s in seen)
        ]
        if unseen:
            raise InputError(
                "E-CAPTURE",
                f"{len(unseen)} attention layers of {type(self.model).__name__} were not seen: {', '.join(unseen)}",
                "Nothing was measured, since a report without them would mislead.",
            )
        if not self.sites:
            raise InputError("E-NOATTN", f"{type(self.model).__name__} has no attention layers")

    # --- the taps -----------------------------------------------------------------------------------------------

    def attend(
        self,
        function: AttentionFunction,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The interface tap: run the call, whole where it fits the tile, and show what its softmax gave."""
        self._check_running(module)
        batch, heads, queries = query.shape[:3]
        keys = key.shape[2]
        if batch != self._masks.batch:
            raise InputError(
                "E-LAYOUT",
                f"{self._paths[module]} ({type(module).__name__}) folds something into its batch axis:"
                f" {batch} for {self._masks.batch} sequences",
                "This architecture is not supported.",
            )
        mask = attention_mask if attention_mask is None else attention_mask[..., :keys]
        structure = self._structure(attention_mask, keys)
        groups = getattr(module, "num_key_value_groups", 1)
        kv_heads = key.shape[1] if key.shape[1] < heads or not isinstance(groups, int) else heads // groups
        sink = options.get("s_aux") is not None
        call = (batch, heads, queries, keys)
        site = self._site(self._paths[module], call, structure, kv_heads, sink)
        structure = self._beyond_padding(site, structure, queries)

        def see(start: int, probs: Tensor) -> None:
            self._deliver(site, probs, structure, start, queries)

        rows = max(1, self.tile_bytes // (batch * heads * keys * 4))
        self._inside_interface = True
        try:
            if rows < queries:
                return run_tiled(function, module, query, (key, value, mask), options, rows, see), None
            output, probs = function(module, query, key, value, attention_mask, **options)
        finally:
            self._inside_interface = False
        see(0, probabilities(module, probs))
        return output, probs

    def softmax(self, scores: Tensor, dim: int, probs: Tensor) -> None:
        """The softmax tap: a softmax outside the interface, if its module and shape make it attention."""
        frame = self._running()
        if frame is None or self._inside_interface or self.receiving or ROUTERS.search(type(frame.module).__name__):
            return
        batch = self._masks.batch
        named = frame.calls_itself_attention
        if scores.dim() == 3 and named and scores.shape[0] % batch == 0:  # heads folded into the batch axis
            scores, probs = (x.unflatten(0, (batch, x.shape[0] // batch)) for x in (scores, probs))
        if scores.dim() != 4 or dim not in (-1, 3) or scores.shape[0] != batch:
            if named:
                raise InputError(
                    "E-LAYOUT",
                    f"{frame.path} ({type(frame.module).__name__}) has a softmax of shape {list(scores.shape)},"
                    " which is not [batch, head, query, key]",
                    "This architecture is not supported.",
                )
            return
        shown = visible((scores > HIDDEN) | (probs > 0))
        heads, queries = scores.shape[1:3]
        groups = getattr(frame.module, "num_key_value_groups", 1)
        kv_heads = heads // groups if isinstance(groups, int) else heads
        site = self._site(frame.path, (batch, heads, queries, scores.shape[3]), shown, kv_heads, False)
        self._structures[id(shown)] = (shown, shown)  # kept, so that its id stays its own
        self._deliver(site, probs, self._beyond_padding(site, shown, queries), 0, queries)

    def fused(self, operator: str) -> None:
        """The softmax tap: torch computed attention without ever holding its probabilities."""
        frame = self._running()
        if frame is not None and not self._inside_interface and not self.receiving:
            raise InputError(
                "E-CAPTURE",
                f"{frame.path} ({type(frame.module).__name__}) computes attention in one call"
                f" ({operator.removeprefix('aten::')}), which shows no probabilities",
                "This architecture is not supported.",
            )

    def _check_running(self, module: nn.Module) -> None:
        if self.receiving or not self._frames or self._frames[0].module is not self.model:
            raise UsageError(
                "E-OBSERVED",
                f"{self._paths[module]} runs outside a forward pass of the observed {type(self.model).__name__}",
                "Call the model itself, not a part of it or its generate().",
            )

    def _running(self) -> Frame | None:
        frames = [frame for frame in self._frames if not isinstance(frame.module, nn.Softmax | nn.Dropout)]
        return frames[-1] if frames else None

    # --- sites and tiles ----------------------------------------------------------------------------------------

    def _structure(self, mask: Tensor | None, keys: int) -> Tensor | None:
        """What a mask shows, made once a forward pass: its layers are mostly given the same mask."""
        if mask is None:
            return None
        if id(mask) not in self._structures:
            # the mask is kept, so that its id stays its own
            self._structures[id(mask)] = (mask, visible(mask[..., :keys]))
        return self._structures[id(mask)][1]

    def _beyond_padding(self, site: Site, structure: Tensor | None, queries: int) -> Tensor | None:
        """The structure, or None where it hides nothing but padding: full attention, known by heart."""
        if structure is None or structure.is_meta:
            return structure
        key = (id(structure), site.kind)
        if key not in self._full:
            query_mask, key_mask = self._masks.of(site, queries, structure.shape[2], structure.device)
            hidden = query_mask[:, :, None] & key_mask[:, None, :] & ~structure
            self._full[key] = not bool(hidden.any())
        return None if self._full[key] else structure

    def _site(
        self, path: str, call: tuple[int, int, int, int], structure: Tensor | None, kv_heads: int, sink: bool
    ) -> Site:
        visit = self._calls[path]
        self._calls[path] += 1
        if (path, visit) not in self._known:
            kind = self._kind(call, structure)
            site = Site(len(self.sites), path, kind, self._layers.number(path, kind), call[1], kv_heads, sink)
            self._known[path, visit] = site
            self.sites.append(site)
        site = self._known[path, visit]
        if site.heads != call[1]:
            raise InputError("E-CAPTURE", f"{path} had {site.heads} heads in one forward pass and {call[1]} in another")
        return site

    def _kind(self, call: tuple[int, int, int, int], structure: Tensor | None) -> Kind:
        batch, _, queries, keys = call
        frame = self._running()
        if frame is not None and frame.reads_elsewhere(batch, keys):
            return "cross"
        declared = getattr(frame.module, "is_causal", None) if frame else None
        if structure is not None and structure.is_meta and declared is None:
            raise NotImplementedError("whether attention is masked can't be told from shapes")
        if structure is None or structure.is_meta or queries != keys or queries == 1:
            return "decoder" if declared and (structure is not None or queries == 1) else "encoder"
        valid = self._masks.for_self_attention(queries, structure.device)
        if int(valid.sum(-1).max()) < 2:  # single tokens: no mask shows in them
            return "decoder" if declared else "encoder"
        return "decoder" if one_directional(structure, valid) else "encoder"

    def _deliver(self, site: Site, probs: Tensor, structure: Tensor | None, start: int, queries: int) -> None:
        with self.tap.paused():
            self.receiving = True  # and stays so if something of ours fails
            keys = probs.shape[3]
            masks = self._masks.of(site, queries, keys, probs.device)
            sequences = tuple(range(self._sequences, self._sequences + self._masks.batch))
            tile = make_tile(site, probs, structure, start, masks, sequences)
            if self._passes == 0 and not probs.is_meta and not self.allow_invalid:
                validate(tile, probs.dtype)
            self.receive(tile)
            self.receiving = False
