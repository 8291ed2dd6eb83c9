"""What a model's softmaxes really gave, seen from outside and without a line of the package under test."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

SOFTMAX = (torch.ops.aten._softmax.default, torch.ops.aten._safe_softmax.default, torch.ops.aten.softmax.int)
SDPA = (
    torch.ops.aten.scaled_dot_product_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
)
OPAQUE = ("aten::_native_multi_head_attention", "aten::_transformer_encoder_layer_fwd")


@dataclass
class Softmax:
    """One softmax of a forward pass: which module ran, and the rows it gave, the last axis being the keys."""

    path: str
    kind: str
    probs: Tensor
    dim: int
    fused: bool = False
    heads: int | None = None

    @property
    def excluded(self) -> str | None:
        """Why this is no attention over positions, or None if it is."""
        if self.kind.endswith("MultiScaleAttention") and tuple(self.probs.shape[2:]) == (self.heads, self.heads):
            return "heads of one position, computed and not used"
        last = self.dim in (-1, self.probs.dim() - 1)
        where = f"{self.path} {self.kind}"
        return next((reason for pattern, reason in EXCLUDED if re.search(pattern, where)), None) or (
            None if last else next((reason for pattern, reason in OTHER_AXIS if re.search(pattern, where)), None)
        )


# (pattern of the module's path and class, why its softmax is none of attention over positions)
EXCLUDED: tuple[tuple[str, str], ...] = (
    (
        r"(?i)router|gating|expert|DbrxFFN|MoE\b|topk_?gate|moe_?gate|SparseMoeBlock|MoeMLP|\S*gate \w*(Gate|Linear)$",
        "router over experts",
    ),
    (r"^(vision_tower)? Ovis2Vision\w*", "choice of a visual token from a vocabulary"),
    (r"(?i)duration_predictor", "bins of the splines that predict durations"),
    (r"(?i)\S*entropy|^ BltPatcher$|patcher Blt", "next-byte distribution, whose entropy cuts patches"),
    (r"^(encoder)? GraniteSpeech\w*", "distribution over the vocabulary halfway up"),
    (r"_hc \w*", "mixing of parallel residual streams"),
    (r"(?i)keypoint_decoder", "place of a keypoint in its cell"),
    (r"(?i)indexer", "indexer that selects keys"),
    (r"ChannelAttention$", "over channels"),
    (r"(?i)deformable", "sampling weights of deformable attention, not over positions"),
)
OTHER_AXIS: tuple[tuple[str, str], ...] = (
    (r"ConvBertSelfAttention$", "weights of a convolution's kernel"),
    (r"GroupViTAssignAttention$", "choice of a group for each token"),
    (r"(?i)compressor", "weights per channel with which keys are pooled"),
)


class Recorder(TorchDispatchMode):
    """Keeps every softmax with the innermost running module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves its modes unannotated
        self.found: list[Softmax] = []
        self.opaque: list[str] = []
        self._running: list[tuple[str, nn.Module]] = []
        self._paths = {module: path for path, module in model.named_modules()}

    def enter(self, module: nn.Module, args: Any) -> None:
        """A module begins."""
        self._running.append((self._paths[module], module))

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        """A module ends, perhaps by an exception."""
        if self._running and self._running[-1][1] is module:
            self._running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in SOFTMAX:
            self._keep(result, args[1] if len(args) > 1 else kwargs["dim"], fused=False)
        elif func in SDPA:
            self._keep(fused_probabilities(func, args, kwargs), -1, fused=True)
        elif func.name().startswith(OPAQUE) or ("scaled_dot_product" in func.name()):
            self.opaque.append(f"{self._where()[0]} {func.name()}")
        return result

    def _where(self) -> tuple[str, nn.Module | None]:
        running = [(p, m) for p, m in self._running if not isinstance(m, nn.Softmax | nn.Dropout)]
        return running[-1] if running else ("", None)

    def _keep(self, probs: Tensor, dim: int, *, fused: bool) -> None:
        if probs.dim():
            path, module = self._where()
            heads = getattr(module, "num_attention_heads", None)
            kept = probs.detach().clone()
            self.found.append(Softmax(path, type(module).__name__, kept, dim, fused, heads))


def fused_probabilities(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """The probabilities that a fused attention call never shows, in float64 from its arguments."""
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    query, key = named["query"].double(), named["key"].double()
    if key.shape[-3] != query.shape[-3]:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    scores = query @ key.mT * (named.get("scale") or 1 / math.sqrt(query.shape[-1]))
    mask = named.get("attn_mask")
    if named.get("is_causal"):
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    probs: Tensor = scores.softmax(-1).nan_to_num()
    return probs


@contextmanager
def recording(model: nn.Module) -> Iterator[Recorder]:
    """Record every softmax of `model` while the context is open."""
    recorder = Recorder(model)
    handles = []
    for module in model.modules():
        handles.append(module.register_forward_pre_hook(recorder.enter, prepend=True))
        handles.append(module.register_forward_hook(recorder.leave, always_call=True))
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # which would hide nn.MultiheadAttention's softmax
    try:
        with recorder:
            yield recorder
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for handle in handles:
            handle.remove()
