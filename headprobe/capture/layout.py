"""A table of facts on softmaxes outside transformers' interface: which are attention, and in which layout.

What a softmax means can't be read off its numbers. Most come as [batch, head, query, key]; windows and heads folded
into other axes are unfolded by shape; what no shape tells stands here by the name of the class, each with its reason.
"""

import re
from dataclasses import dataclass

from torch import Tensor, nn

from headprobe.capture.frames import Frame, is_attention
from headprobe.errors import InputError

Shape = tuple[int, ...]
Table = tuple[tuple[re.Pattern[str], str], ...]
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads", "num_attn_heads", "attention_heads")

# A softmax of such a class is no attention over positions: it is left out, and the report says so.
EXPERTS = "experts"
UNKNOWN = "modules that neither call themselves attention nor have heads"
ROUTERS = ((re.compile(r"router|gate|gating|expert|moe", re.IGNORECASE), EXPERTS),)
CHANNELS = ((re.compile(r"channelattn|channelattention", re.IGNORECASE), "channels"),)
NO_ATTENTION = (
    (re.compile(r"deformable", re.IGNORECASE), "sampling points"),
    (re.compile(r"attentionresidual", re.IGNORECASE), "residual streams"),
    (re.compile(r"^patchtsmixergated", re.IGNORECASE), "gates on features"),
    (re.compile(r"indexer", re.IGNORECASE), "choices of keys"),
)
# The same, but of such a class only a softmax over another axis than the last.
NO_KEYS = (
    (re.compile(r"^convbert", re.IGNORECASE), "convolutions"),
    (re.compile(r"^groupvitassign", re.IGNORECASE), "choices of a group"),
)
# The same, but of such a class only a softmax outside the interface: heads of one position, computed and not used.
UNUSED = ((re.compile(r"^sam2\w*multiscaleattention$", re.IGNORECASE), "heads"),)
# Attention over positions by a module that doesn't call itself attention, heads folded or one.
ATTENTION = ((re.compile(r"^mgpstra3module", re.IGNORECASE), "characters that look at patches"),)
# One softmax over the decoder's own keys and the encoder's.
MERGED = ((re.compile(r"mergedattention", re.IGNORECASE), "self- and cross-attention in one"),)
# Attention that no tile can hold yet: the whole model is refused.
REFUSED = (
    (re.compile(r"^longformer|^led", re.IGNORECASE), "a band of keys for each query"),
    (re.compile(r"^bigbird\w*blocksparse", re.IGNORECASE), "five kinds of blocks in one layer"),
    (
        re.compile(r"^pegasusxgloballocal|^longt5transientglobal", re.IGNORECASE),
        "global tokens and blocks in one layer",
    ),
    (re.compile(r"^\w+netngram", re.IGNORECASE), "several streams in one layer"),
    (re.compile(r"probsparse", re.IGNORECASE), "a sample of the queries"),
    (re.compile(r"nystrom", re.IGNORECASE), "a product of three softmaxes"),
)


@dataclass(frozen=True)
class Layout:
    """How a softmax's axes become [batch, head, query, key]: an order of axes, then the shape to take."""

    order: Shape
    shape: Shape

    def apply(self, tensor: Tensor) -> Tensor:
        """The tensor as [batch, head, query, key]; blocks of a sequence follow each other in the batch axis."""
        return tensor.permute(self.order).reshape(self.shape)


def excluded(module: nn.Module, shape: Shape = (1,), dim: int = -1, *, by_interface: bool = False) -> str | None:
    """Why a softmax of this module is no attention, or None."""
    if by_interface:
        return _reason(CHANNELS, module)
    if not is_attention(module) and _reason(ROUTERS, module):  # a model of experts has its name on its attention too
        return EXPERTS
    other_axis = dim % len(shape) != len(shape) - 1
    return _reason(NO_ATTENTION + CHANNELS + UNUSED, module) or (_reason(NO_KEYS, module) if other_axis else None)


def included(modules: list[nn.Module], found: Layout) -> bool:
    """True if a softmax of the innermost of nested modules is attention though its class doesn't say so.

    It knows how many heads there are, or does this for an attention module that does.
    """
    if _reason(ATTENTION, modules[-1]) is not None:
        return True
    helps = len(modules) > 1 and is_attention(modules[-2])
    return any(head_count([module]) == found.shape[1] for module in modules[-2 if helps else -1 :])


def merged(module: nn.Module) -> bool:
    """True if this module's queries look at keys of their own and of another sequence at once."""
    return _reason(MERGED, module) is not None


def refused(module: nn.Module) -> str | None:
    """Why attention of this module can't be brought to tiles, or None."""
    return _reason(REFUSED, module)


def _reason(table: Table, module: nn.Module) -> str | None:
    name = type(module).__name__
    return next((reason for pattern, reason in table if pattern.search(name)), None)


def head_count(modules: list[nn.Module]) -> int | None:
    """The number of heads that the innermost of nested modules to know it declares."""
    for module in reversed(modules):
        for name in HEADS:
            count = getattr(module, name, None)
            if isinstance(count, int) and count > 0:
                return count
    return None


def layout(shape: Shape, dim: int, batch: int, heads: int | None) -> Layout | None:
    """How scores of this shape are to be read, or None if they can't be attention over keys of `batch` sequences."""
    if dim % len(shape) != len(shape) - 1 or not 3 <= len(shape) <= 5 or shape[0] == 0:
        return None
    return {3: _folded_heads, 4: _plain, 5: _blocks}[len(shape)](shape, batch, heads)


def _plain(shape: Shape, batch: int, heads: int | None) -> Layout | None:
    """[batch · blocks, head, query, key]; with the number of heads known, the axis that has it is theirs."""
    first, second, queries, keys = shape
    if first % batch and first != 1:
        return None
    if heads is not None and second != heads and first != batch:
        return None
    return Layout((0, 1, 2, 3), (first, second, queries, keys))


def _folded_heads(shape: Shape, batch: int, heads: int | None) -> Layout | None:
    """[batch · blocks · head, query, key]."""
    first, queries, keys = shape
    if heads is None:
        heads = first // batch if first % batch == 0 else 0
    if not heads or first % heads or (first // heads % batch and first != heads):
        return None
    return Layout((0, 1, 2), (first // heads, heads, queries, keys))


def _blocks(shape: Shape, batch: int, heads: int | None) -> Layout | None:
    """[batch, block, head, query, key] or [batch, head, block, query, key]: blocks go to the batch axis."""
    first, second, third, queries, keys = shape
    if first % batch or heads not in (second, third):
        return None
    if third == heads:
        return Layout((0, 1, 2, 3, 4), (first * second, third, queries, keys))
    return Layout((0, 2, 1, 3, 4), (first * third, second, queries, keys))


def unsupported(code: str, frame: Frame, what: str) -> InputError:
    """The error for attention that can't be brought to tiles."""
    return InputError(
        code, f"{frame.path} ({type(frame.module).__name__}) {what}", "This architecture is not supported."
    )
