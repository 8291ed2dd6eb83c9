"""What the masks of a forward pass show, made once: its layers are mostly given the same mask."""

from torch import Tensor

from headprobe.capture.masks import Masks
from headprobe.capture.naming import visible
from headprobe.tile import Kind


class Structures:
    """The structure [row or 1, query, key] of each mask of one forward pass."""

    def __init__(self) -> None:
        # the tensors are kept beside what was found, so that their ids stay their own
        self._of: dict[int, tuple[Tensor, Tensor]] = {}
        self._full: dict[tuple[int, Kind, int], tuple[Tensor, bool]] = {}

    def clear(self) -> None:
        """A forward pass begins."""
        self._of.clear()
        self._full.clear()

    def of(self, mask: Tensor | None, keys: int) -> Tensor | None:
        """What a mask shows; None for no mask."""
        if mask is None:
            return None
        if id(mask) not in self._of:
            self._of[id(mask)] = (mask, visible(mask[..., :keys]))
        return self._of[id(mask)][1]

    def beyond_padding(self, kind: Kind, structure: Tensor | None, masks: Masks) -> Tensor | None:
        """The structure, or None where it hides nothing but padding: full attention, known by heart."""
        if structure is None or structure.is_meta:
            return structure
        key = (id(structure), kind, masks[0].shape[0])
        if key not in self._full:
            query_mask, key_mask = masks
            hidden = query_mask[:, :, None] & key_mask[:, None, :] & ~structure
            self._full[key] = (structure, not bool(hidden.any()))
        return None if self._full[key][1] else structure
