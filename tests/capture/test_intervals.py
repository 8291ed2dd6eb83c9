"""What two numbers a query say of a mask is what the mask itself says."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from headprobe.capture.lazy import LazyMask
from headprobe.capture.structure import Structure

N = 9


def mask(kind: str, width: int) -> Tensor:
    """[query, key] bool."""
    at = torch.arange(N)
    back = at[:, None] - at
    return {
        "causal": back >= 0,
        "sliding": (back >= 0) & (back < width),
        "window": back.abs() < width,
        "prefix": (back >= 0) | (at < width),
        "chunked": (back >= 0) & (at[:, None] // width == at // width),
        "documents": at[:, None] // width == at // width,
        "full": torch.ones(N, N, dtype=torch.bool),
        "forward": back <= 0,
        "lopsided": (back < width) & (back > -2),
        "holes": (back >= 0) & (back % 3 != 1),
    }[kind]


KINDS = ("causal", "sliding", "window", "prefix", "chunked", "documents", "full", "forward", "lopsided", "holes")


@given(st.sampled_from(KINDS), st.integers(1, N), st.lists(st.integers(1, N), min_size=1, max_size=3), st.booleans())
def test_a_mask_that_is_made_anew_says_what_a_held_one_does(
    kind: str, width: int, lengths: list[int], left: bool
) -> None:
    places = torch.arange(N).flip(0) if left else torch.arange(N)
    valid = places < torch.tensor(lengths)[:, None]
    seen = mask(kind, width) & valid[:, None, :]
    lazy = Structure(LazyMask(lambda q, k: seen[:, None, q, k], torch.empty(0, dtype=torch.bool), (len(seen), 1, N, N)))
    held = Structure(seen)
    held.__dict__["_intervals"] = None  # which it then does without
    assert torch.equal(lazy.seen_keys, held.seen_keys)
    assert torch.equal(lazy.seeing, held.seeing)
    assert lazy.widest == held.widest
    for first, last in ((0, N), (2, 5), (N - 1, N)):
        assert lazy.reach(first, last) == held.reach(first, last)
        assert torch.equal(lazy.rows(first, last, last), held.rows(first, last, last))
        rows = lazy.rows_within(first, 2)
        assert held.rows_within(first, 2) == 2
        if rows > 2:
            some = seen[:, first : first + rows]
            reached = int((torch.arange(1, N + 1) * some.any(1).any(0)).max()) if bool(some.any(2).all()) else N
            assert rows * reached <= 2 * N
    for queries in (valid, torch.ones_like(valid), torch.ones_like(valid[:1])):
        assert lazy.hides(queries, valid) == held.hides(queries, valid)
        assert not lazy.follows(queries, valid) or held.follows(queries, valid)
        assert lazy.one_directional(queries) == held.one_directional(queries)
    assert lazy.follows(valid, valid) or kind == "holes"
