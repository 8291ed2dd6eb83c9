"""Sequences packed into one row, and sequences cut into blocks: which row is whose, and which is none's."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from headprobe.errors import InputError
from tests.capture.watching import make, watch

SIZE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 4,
}  # fmt: skip


@pytest.mark.parametrize("tile_bytes", [2**28, 1])
def test_images_with_tokens_of_their_own_are_told_apart(tile_bytes: int) -> None:
    """RADIO puts tokens before the patches of each image: sizes alone don't say where it ends, lengths do."""
    grid = torch.tensor([[4, 4], [2, 4]])
    model = make(hf.AutoConfig.for_model("radio", **SIZE))
    tiles, _ = watch(model, tile_bytes, pixel_values=torch.randn(24, 48), image_grid_hw=grid)
    before = model.config.num_summary_tokens
    for parts in tiles.values():
        shown = [(tile.sequences, tile.probs.shape[3]) for tile in parts if tile.start == 0]
        assert shown == [((0,), before + 16), ((1,), before + 8)]


def test_windows_of_packed_images_are_their_images() -> None:
    config = hf.AutoConfig.for_model("minicpmv4_7_vision", **SIZE, image_size=32, insert_layer_id=0)
    sizes = torch.tensor([[4, 4], [4, 8]])
    tiles, notes = watch(make(config), pixel_values=torch.randn(1, 3, 4, 4 * 48), target_sizes=sizes)
    parts = {site.path: [tile.sequences for tile in parts] for site, parts in tiles.items()}
    assert parts["vit_merger.self_attn"] == [(0,)] * 4 + [(1,)] * 8
    assert (parts["encoder.layers.1.self_attn"], notes) == ([(0,), (1,)], [])


def long_t5(kind: str) -> Any:
    size: dict[str, Any] = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, "vocab_size": 97}
    return make(hf.LongT5Config(**size, encoder_attention_type=kind, local_radius=3)).get_encoder()


def ids(length: int) -> Tensor:
    return torch.randint(3, 97, (2, length))


def test_blocks_hold_no_more_queries_than_their_sequence() -> None:
    """Blocks of 4 queries, each with the blocks beside it as keys; the last is filled up."""
    mask = torch.ones(2, 10, dtype=torch.long)
    mask[1, 7:] = 0
    tiles, _ = watch(long_t5("local"), input_ids=ids(10), attention_mask=mask)
    ((site, (tile,)),) = tiles.items()
    assert (site.kind, site.window, tile.probs.shape) == ("encoder", 7, (6, 4, 4, 12))
    assert tile.query_mask.view(2, 12).sum(1).tolist() == [10, 7]
    assert not tile.aligned
    assert tile.sequences == (0, 0, 0, 1, 1, 1)


def test_queries_that_only_fill_a_block_are_padding() -> None:
    """Of sounds no mask says so: what fills the last block sees the keys before it."""
    config = hf.AutoConfig.for_model("gemma3n_audio", hidden_size=32, conf_num_hidden_layers=1)
    model, frames = make(config), 52
    silent = torch.zeros(2, frames, dtype=torch.bool)
    tiles, _ = watch(model, audio_mel=torch.randn(2, frames, 128), audio_mel_mask=silent)
    ((_, (tile,)),) = tiles.items()
    assert tile.query_mask.view(2, -1).sum(1).tolist() == [13, 13]


def test_blocks_beside_global_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="global tokens and blocks in one layer"):
        watch(long_t5("transient-global"), input_ids=ids(10))
