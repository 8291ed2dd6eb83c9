"""The only shape in which attention travels: a site and some of its query rows."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from headprobe import devices
from headprobe.errors import InputError
from headprobe.masks import NOTHING, Hides, Known, positions
from headprobe.outputs import Found, cut_outputs, select_outputs
from headprobe.tokens import Tokens

Kind = Literal["encoder", "decoder", "cross"]
Shared = TypeVar("Shared")


@dataclass(frozen=True)
class Site:
    """One attention call of a forward pass.

    `index` counts the sites of a pass in order of execution; a shared layer that is visited twice is two sites.
    `path` is the module's, `layer` its 0-based index within its stack. `heads` query heads share `kv_heads` key-value
    heads, in contiguous groups of equal size. With `sink` the last key column is virtual: the mass that a learned
    sink takes, which belongs to no token. `tower` is the part of the model that its stack belongs to, and `window` how
    many keys a query sees at most where the call says so.
    """

    index: int
    path: str
    kind: Kind
    layer: int
    heads: int
    kv_heads: int
    sink: bool = False
    tower: str = ""
    window: int | None = None

    def kv_group(self, head: int) -> int:
        """The key-value head that query head `head` reads."""
        return head * self.kv_heads // self.heads


@dataclass(frozen=True)
class Source:
    """Computes rows of a site's attention anew, which a tile does not hold.

    `read(first, last)` gives the tile of those of the site's query rows, as long as the inputs of the forward pass are
    what they were: while the receiver of a tile runs, and after the pass until the next. `rows` of them fit a tile,
    `few` stay in a CPU's cache; `bytes` are kept alive for it.
    """

    read: Callable[[int, int], "AttentionTile"]
    rows: int
    few: int
    bytes: int = 0

    def then(self, change: Callable[["AttentionTile"], "AttentionTile"]) -> "Source":
        """The same, with every tile changed in the same way."""
        return replace(self, read=lambda first, last: change(self.read(first, last)))


@dataclass(frozen=True, eq=False)
class AttentionTile:
    """Some query rows of one site, all keys that they see: attention probabilities after softmax.

    `probs` is [batch, head, query, key], float32 or float64. `query_mask` [batch, query] and `key_mask` [batch, key]
    are False at padding. `structure` [batch or 1, query, key] is False where the model's own mask (causal, window)
    hides a key; None means that it hides none. `start` is the position of the first row among the `queries` rows that
    the site has in this forward pass: a tile with `start == 0` and `probs.shape[2] == queries` is whole.
    `query_positions` and `key_positions` are ranks among the valid tokens of their sequence, -1 at padding. `sequences`
    numbers the sequence of each row of the batch axis: the same for windows or frames of an image, whose queries and
    keys count within them. `special_keys` and `special_queries` mark special tokens where the caller knows them,
    `tokens` says more of the keys. A tile that is not whole has a `source` of the site's other rows where they can be
    computed again, and may lack keys at the end that none of its queries sees. `hides` stands for the mask that
    `structure` is a part of; `known` is certain of the masks: who replaces one replaces that too. `outputs` are what
    the model's heads give for these rows, where the observer was asked for it, whatever keys were dropped since.
    """

    site: Site
    probs: Tensor
    query_mask: Tensor
    key_mask: Tensor
    start: int
    queries: int
    query_positions: Tensor
    key_positions: Tensor
    sequences: tuple[int, ...]
    structure: Tensor | None = None
    special_keys: Tensor | None = None
    special_queries: Tensor | None = None
    source: Source | None = None
    hides: Hides | None = None
    known: Known = NOTHING
    tokens: Tokens | None = None
    outputs: Found = None
    _memo: dict[Callable[..., Any], Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        probs: Tensor,
        *,
        site: Site | None = None,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        structure: Tensor | None = None,
        special_keys: Tensor | None = None,
        sequences: tuple[int, ...] | None = None,
    ) -> "AttentionTile":
        """A whole tile from probabilities alone: the door for tests, notebooks and metric authors."""
        batch, heads, queries, keys = probs.shape
        site = site or Site(0, "site", "encoder", 0, heads, heads)
        every = torch.ones(batch, max(queries, keys), dtype=torch.bool, device=probs.device)
        query_mask = every[:, :queries] if query_mask is None else query_mask
        key_mask = every[:, :keys] if key_mask is None else key_mask
        return cls(
            site=site,
            probs=probs,
            query_mask=query_mask,
            key_mask=key_mask,
            start=0,
            queries=queries,
            query_positions=positions(query_mask),
            key_positions=positions(key_mask),
            sequences=tuple(range(batch)) if sequences is None else sequences,
            structure=structure,
            special_keys=special_keys,
        )

    def once(self, derive: Callable[["AttentionTile"], Shared]) -> Shared:
        """`derive(self)`, computed at most once a tile: how metrics share logarithms, Grams and row sums."""
        if derive not in self._memo:
            self._memo[derive] = derive(self)
        return cast(Shared, self._memo[derive])

    @property
    def whole(self) -> bool:
        """True if the tile holds every query row of its site in this forward pass."""
        return self.start == 0 and self.probs.shape[2] == self.queries

    @property
    def ends(self) -> bool:
        """True if the tile holds the last query row of its site in this forward pass."""
        return self.start + self.probs.shape[2] == self.queries

    @property
    def step(self) -> int:
        """As many rows of the site as fit a tile."""
        return self.probs.shape[2] if self.source is None else self.source.rows

    @property
    def few(self) -> int:
        """As many rows of the site as stay in a CPU's cache."""
        return self.probs.shape[2] if self.source is None else self.source.few

    def part(self, first: int, last: int) -> "AttentionTile":
        """The site's rows `first` to `last`: the tile's own, or computed anew.

        Raises `InputError` where they are not the tile's and can't be computed.
        """
        if self.start <= first and last <= self.start + self.probs.shape[2]:
            return self.cut(first - self.start, last - self.start)
        if self.source is None:
            raise InputError("E-ROWS", f"{self.site.path} was cut into tiles, and its rows can't be computed again")
        return self.source.read(first, last)

    @cached_property
    def support(self) -> Tensor:
        """[batch, query, key] bool: the keys that each query may see (METRICS: S). Rows of padding are all False."""
        seen = self.key_mask[:, None, :] & self.query_mask[:, :, None]
        return seen if self.structure is None else seen & self.structure

    @cached_property
    def support_size(self) -> Tensor:
        """[batch, query] int64: number of keys that each query may see, 0 at padding."""
        if self.structure is None:
            return self.key_mask.sum(-1)[:, None] * self.query_mask
        return self.support.sum(-1)

    @cached_property
    def reached(self) -> Tensor:
        """[batch, key] bool: the keys that any of the tile's queries may see."""
        if self.structure is None:
            return self.key_mask & self.query_mask.any(-1, keepdim=True)
        return self.support.any(1)

    def sees(self, sequence: Tensor, row: Tensor, key: Tensor) -> Tensor:
        """`support` at places given by three index tensors of one shape."""
        seen = self.key_mask[sequence, key] & self.query_mask[sequence, row]
        if self.structure is None:
            return seen
        batch, rows = self.structure.shape[:2]
        return seen & self.structure[sequence if batch > 1 else 0, row if rows > 1 else 0, key]

    def same_support(self, other: "AttentionTile") -> bool:
        """True if the queries of both see the same keys, place by place."""
        if self.probs.shape[2:] != other.probs.shape[2:] or len(self.probs) != len(other.probs):
            return False
        alike = self.structure is other.structure or (self.hides is not None and self.hides is other.hides)
        alike = alike and self.start == other.start
        masks = ((self.key_mask, other.key_mask), (self.query_mask, other.query_mask))
        if alike and all(devices.same_memory(*pair) for pair in masks):
            return True
        return torch.equal(self.support, other.support.to(self.support.device))

    @cached_property
    def rows(self) -> Tensor:
        """`probs` with the rows of padding set to zero, so that sums over queries need no mask."""
        full = bool(self.query_mask.all()) if devices.at_hand(self.probs) else self.known.full
        if full:
            return self.probs
        return self.probs.masked_fill(~self.query_mask[:, None, :, None], 0.0)

    @property
    def aligned(self) -> bool:
        """True where query and key positions mean the same tokens: not in cross-attention, nor for a learned probe."""
        keys = self.probs.shape[3] - self.site.sink
        return self.site.kind == "decoder" or (self.site.kind == "encoder" and self.queries == keys)

    def cut(self, first: int, last: int) -> "AttentionTile":
        """The tile's rows `first` to `last`, counted from its own first, as a tile of their own."""
        rows = slice(first, last)
        structure = self.structure
        if structure is not None and structure.shape[1] > 1:
            structure = structure[:, rows]
        return replace(
            self,
            probs=self.probs[:, :, rows],
            query_mask=self.query_mask[:, rows],
            query_positions=self.query_positions[:, rows],
            special_queries=None if self.special_queries is None else self.special_queries[:, rows],
            structure=structure,
            start=self.start + first,
            outputs=cut_outputs(self.outputs, rows),
            source=Source(self.cut, max(1, last - first), max(1, last - first)) if self.whole else self.source,
        )

    def select(self, first: int, last: int) -> "AttentionTile":
        """The sequences `first` to `last` of the tile's batch, as a tile of their own."""
        part = slice(first, last)
        structure, keys, queries = self.structure, self.special_keys, self.special_queries
        return replace(
            self,
            probs=self.probs[part],
            query_mask=self.query_mask[part],
            key_mask=self.key_mask[part],
            query_positions=self.query_positions[part],
            key_positions=self.key_positions[part],
            sequences=self.sequences[part],
            structure=structure if structure is None or len(structure) == 1 else structure[part],
            special_keys=None if keys is None else keys[part],
            special_queries=None if queries is None else queries[part],
            tokens=None if self.tokens is None else self.tokens.map(lambda known: known[part]),
            outputs=select_outputs(self.outputs, part),
            source=None if self.source is None else self.source.then(lambda tile: tile.select(first, last)),
        )

    def uniform(self) -> "AttentionTile":
        """Uniform attention under the same mask, as one head: what every metric's baseline is computed from."""
        size = self.support_size.clamp(min=1).to(self.probs.dtype)
        probs = (self.support.to(self.probs.dtype) / size[..., None])[:, None]
        return replace(self, probs=probs, site=replace(self.site, heads=1, kv_heads=1), source=None, outputs=None)

    def without_special_queries(self) -> "AttentionTile":
        """The same attention, special tokens left out as queries."""
        if self.special_queries is None:
            return self
        return replace(
            self,
            query_mask=self.query_mask & ~self.special_queries,
            known=replace(self.known, full=False),
            source=None if self.source is None else self.source.then(AttentionTile.without_special_queries),
        )

    def without_special_keys(self) -> "AttentionTile":
        """The same attention, special tokens left out as keys and the rest of each row scaled to sum to one.

        A row whose mass is all on special tokens has no rest: the query is left out for every head of the site.
        """
        if self.special_keys is None:
            return self
        kept = self.probs.masked_fill(self.special_keys[:, None, None, :], 0.0)
        mass = kept.sum(-1, keepdim=True)
        tiny = torch.finfo(kept.dtype).tiny
        query_mask = self.query_mask & (mass[..., 0] > tiny).all(1)
        return replace(
            self,
            probs=kept / mass.clamp(min=tiny),
            query_mask=query_mask,
            key_mask=self.key_mask & ~self.special_keys,
            special_keys=None,
            known=replace(self.known, full=False),
            source=None if self.source is None else self.source.then(AttentionTile.without_special_keys),
        )
