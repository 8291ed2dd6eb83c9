"""An attention module's query, key and value projections, and which of their numbers are one head's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from headprobe.capture.layout import head_count
from headprobe.capture.naming import key_value_heads
from headprobe.errors import InputError

SEPARATE = (
    ("q_proj", "k_proj", "v_proj"),
    ("query", "key", "value"),
    ("q_lin", "k_lin", "v_lin"),
    ("q", "k", "v"),
    ("query_proj", "key_proj", "value_proj"),
)
# One projection for all three. Its shape doesn't tell whether all queries come first or each head's query, key and
# value together, so it is read only in classes of which that is known.
ALL_QUERIES_FIRST = {
    "GPT2Attention": "c_attn",
    "ModernBertAttention": "Wqkv",
    "MptAttention": "Wqkv",
    "Phi3Attention": "qkv_proj",
}
HEAD_BY_HEAD = {
    "BloomAttention": "query_key_value",
    "GPTNeoXAttention": "query_key_value",
    "PersimmonAttention": "query_key_value",
}
HEAD_SIZES = ("head_dim", "attention_head_size", "key_value_proj_dim", "head_size")
HEAD_COUNTS = ("num_attention_heads", "n_head", "n_heads")


@dataclass(frozen=True, eq=False)
class Block:
    """A parameter of which each head, or each group of heads that shares it, owns some indices along one axis.

    `rows` [unit, index]: the indices of each unit.
    """

    parameter: nn.Parameter
    axis: int
    rows: Tensor

    @property
    def units(self) -> int:
        """How many heads or groups it is cut into."""
        return self.rows.shape[0]

    @property
    def key(self) -> tuple[int, int, tuple[int, ...]]:
        """The same for blocks that are the same numbers."""
        return id(self.parameter), self.axis, tuple(self.rows.flatten().tolist())

    def read(self, tensor: Tensor) -> Tensor:
        """[unit, number]: what each unit owns of a tensor shaped like the parameter."""
        rows = self.rows.flatten().to(tensor.device)
        return tensor.index_select(self.axis, rows).movedim(self.axis, 0).reshape(self.units, -1)

    def write(self, tensor: Tensor, values: Tensor) -> None:
        """The inverse of `read`, in place."""
        others = [size for axis, size in enumerate(tensor.shape) if axis != self.axis]
        shaped = values.reshape(-1, *others).movedim(0, self.axis)
        tensor.index_copy_(self.axis, self.rows.flatten().to(tensor.device), shaped.to(tensor.dtype))


Parts = tuple[tuple[Block, ...], tuple[Block, ...], tuple[Block, ...]]


def heads_of(path: str, module: nn.Module) -> tuple[int, Parts]:
    """How many heads an attention module has, and their blocks of queries, keys and values.

    Raises `InputError` where they can't be told apart.
    """
    heads = head_count([module]) or _configured(module)
    if not heads:
        raise _unknown(path, module, "it doesn't say how many heads it has")
    parts = _parts(path, module, heads)
    if parts is None:
        raise _unknown(path, module, "it has no query, key and value projections that are known")
    _agree(path, module, heads, parts)
    return heads, parts


def _parts(path: str, module: nn.Module, heads: int) -> Parts | None:
    for names in SEPARATE:
        if all(hasattr(module, name) for name in names):
            return _separate(path, module, heads, names)
    name = type(module).__name__
    if name in HEAD_BY_HEAD:
        return _head_by_head(path, module, heads, HEAD_BY_HEAD[name])
    if name in ALL_QUERIES_FIRST:
        return _all_queries_first(path, module, heads, ALL_QUERIES_FIRST[name])
    return None


def _separate(path: str, module: nn.Module, heads: int, names: tuple[str, str, str]) -> Parts:
    query, key, value = (_Projection.of(path, module, name) for name in names)
    shared = _kv_heads(path, module, heads, (query.size, key.size))
    return query.cut(0, query.size, heads), key.cut(0, key.size, shared), value.cut(0, value.size, shared)


def _all_queries_first(path: str, module: nn.Module, heads: int, name: str) -> Parts:
    fused = _Projection.of(path, module, name)
    if getattr(module, "is_cross_attention", False):  # GPT-2's: queries are made of another input
        query, shared, first = _Projection.of(path, module, "q_attn"), heads, 0
        width, keys = query.size, fused.size // 2
    else:
        shared = _declared(module, heads)
        keys = fused.size // (heads + 2 * shared) * shared
        query, first = fused, fused.size - 2 * keys
        width = first
    return (
        query.cut(0, width, heads),
        fused.cut(first, first + keys, shared),
        fused.cut(first + keys, fused.size, shared),
    )


def _head_by_head(path: str, module: nn.Module, heads: int, name: str) -> Parts:
    fused = _Projection.of(path, module, name)
    rows = torch.arange(fused.size).reshape(heads, 3, -1)
    query, key, value = (fused.blocks(rows[:, i]) for i in range(3))
    return query, key, value


def _kv_heads(path: str, module: nn.Module, heads: int, sizes: tuple[int, int]) -> int:
    """How many heads the keys have: their features over those of a query head."""
    queries, keys = sizes
    shared = keys * heads // queries if queries else 0
    if not shared or heads % shared or shared * queries != keys * heads:
        raise _unknown(path, module, f"{queries} features of queries and {keys} of keys are not {heads} heads'")
    return shared


def _declared(module: nn.Module, heads: int) -> int:
    told = getattr(getattr(module, "config", None), "num_key_value_heads", None)
    by_module = key_value_heads(module, heads)
    return told if by_module == heads and isinstance(told, int) else by_module


def _configured(module: nn.Module) -> int | None:
    """The number of heads in the module's own configuration."""
    config = getattr(module, "config", None)
    counts = (getattr(config, name, None) for name in HEAD_COUNTS)
    return next((count for count in counts if isinstance(count, int) and count > 0), None)


def _agree(path: str, module: nn.Module, heads: int, parts: Parts) -> None:
    """Refuse a module that says its heads have another size: what lies between their rows is something else."""
    size = parts[0][0].rows.shape[1]
    said = next((getattr(module, name) for name in HEAD_SIZES if isinstance(getattr(module, name, None), int)), size)
    if said != size:
        raise _unknown(path, module, f"its {heads} heads would have {size} features, and it says {said}")
    shared = parts[1][0].units
    if heads % shared or parts[2][0].units != shared:
        raise _unknown(path, module, f"{heads} heads can't share {shared} keys")


def _unknown(path: str, module: nn.Module, why: str) -> InputError:
    return InputError(
        "E-SLICE",
        f"{path} ({type(module).__name__}) can't be cut into heads: {why}",
        "Leave it out with layers or kinds.",
    )


def _is_plain(weight: object) -> TypeGuard[nn.Parameter]:
    """False for weights that are packed, sharded over processes, or computed from others."""
    return type(weight) is nn.Parameter and weight.is_floating_point() and weight.dim() == 2


@dataclass(frozen=True, eq=False)
class _Projection:
    """A linear map by its parameters, and the axis of its weight that holds the output features."""

    path: str
    module: nn.Module
    weight: nn.Parameter
    bias: nn.Parameter | None
    axis: int

    @classmethod
    def of(cls, path: str, module: nn.Module, name: str) -> _Projection:
        child = getattr(module, name)
        weight = getattr(child, "weight", None)
        if not isinstance(child, nn.Linear | Conv1D):
            raise _unknown(path, module, f"its {name} is a {type(child).__name__}, no plain linear map")
        if not _is_plain(weight):
            raise _unknown(path, module, f"the weight of its {name} is a {type(weight).__name__}, no plain matrix")
        return cls(path, module, weight, child.bias, 1 if isinstance(child, Conv1D) else 0)

    @property
    def size(self) -> int:
        """Output features."""
        return self.weight.shape[self.axis]

    def cut(self, first: int, last: int, units: int) -> tuple[Block, ...]:
        """Output features from `first` to `last`, in as many equal parts that follow each other."""
        if (last - first) % units:
            raise _unknown(self.path, self.module, f"{last - first} features are not those of {units} heads")
        return self.blocks(torch.arange(first, last).reshape(units, -1))

    def blocks(self, rows: Tensor) -> tuple[Block, ...]:
        """The weight's and the bias's."""
        weight = Block(self.weight, self.axis, rows)
        return (weight,) if self.bias is None else (weight, Block(self.bias, 0, rows))
