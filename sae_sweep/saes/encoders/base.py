"""The encoder of one step: z = W_enc (x - b_pre) + bias, and the choice of the pre-activations that matter.

A choice gives *codes* and the pre-activations at them, the one part of z that is differentiable. All encoders make the
same choices: `dense.py` and `whole.py` have all of z, `pieces.py` makes it some rows at a time, and `screened.py`
computes only what may be chosen.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Entries, Room, kept
from sae_sweep.kernels.selection import smallest_of_largest
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.layout import Layout
from sae_sweep.saes.sparse_codes import SparseCodes


class Encoder(ABC):
    """W_enc [F, D], bias [F] or None, and b_pre [M, D] or None, of M members; and the inputs x [B, D] of a step."""

    def __init__(
        self,
        x_BD: Tensor,
        W_enc: Tensor,
        bias_F: Tensor | None,
        b_pre_MD: Tensor | None,
        layout: Layout,
        room: Room | None = None,
    ) -> None:
        """With room, lists are as long as that is, and it is told what they would have needed."""
        self._room = room
        self._x_BD, self._W_enc, self._bias_F, self._b_pre_MD, self._layout = x_BD, W_enc, bias_F, b_pre_MD, layout
        own = None if room is None else room.inputs
        self._scaled = own if own is not None and own.whole_BD is x_BD else None

    @cached_property
    def _offset_F(self) -> Tensor:
        return _offset(self._W_enc, self._bias_F, self._b_pre_MD, self._layout)

    @property
    def tokens(self) -> int:
        """B."""
        return len(self._x_BD)

    @abstractmethod
    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        """Where z is above a floor, which is 0 unless it is given."""

    @abstractmethod
    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        """Each member's `count` largest z of each token. On a CPU only those above 0 among them."""

    @abstractmethod
    def largest_of_all(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        """Each member's `count` largest z over all tokens, with all that equal the smallest of them, but none that is
        not above 0."""

    def at_least(self, codes: Codes, z: Tensor, smallest: Tensor) -> tuple[Codes, Tensor]:
        """Of a choice, the entries whose z is not below a number, []."""
        return self._encoded(*codes.at_least(z.detach(), smallest, self._room))

    def product(self) -> Tensor:
        """All of z [B, F], without gradient."""
        with torch.no_grad():
            return torch.addmm(self._offset_F, self._x_BD, self._W_enc.T)

    def _listed(self, entries: Entries, padded: bool = False) -> tuple[Codes, Tensor]:
        """Codes of some entries of z."""
        late = None if self._room is None else self._room.rows
        codes = SparseCodes(entries.offsets, entries.column_N, self._layout, padded, late)
        codes.scaled, codes.rows_in = self._scaled, None if self._room is None else self._room.rows_in
        return self._encoded(codes, entries.value_N)

    def _largest_of_members(
        self, candidates: Entries, left_out_M: Tensor, positive: Callable[[], Entries], counts: Sequence[int]
    ) -> Entries:
        """Each member's `count` largest z above 0, and all that equal the smallest of them. They are among candidates,
        but where others, of at most `left_out_M`, may belong to them; then all that are `positive` are met."""
        smallest_M = self._smallest(candidates, counts)
        if ((smallest_M <= left_out_M) & (left_out_M > 0)).any():
            candidates = positive()
            smallest_M = self._smallest(candidates, counts)
        above_0 = torch.nextafter(smallest_M.new_zeros(()), smallest_M.new_ones(()))
        floor_F = smallest_M.clamp(min=above_0.item()).index_select(0, self._layout.member_F)
        return kept(candidates, floor_F, inclusive=True)

    def _smallest(self, entries: Entries, counts: Sequence[int]) -> Tensor:
        """[M]: each member's `count`-th largest of some entries; minus infinity where it has not so many."""
        own = [entries.value_N]
        if self._layout.members > 1:
            inside = ((entries.column_N >= each.start) & (entries.column_N < each.stop) for each in self._layout.slices)
            own = [entries.value_N[mask_N] for mask_N in inside]
        return torch.stack([smallest_of_largest(z_N, count) for z_N, count in zip(own, counts, strict=True)])

    def _encoded(self, codes: Codes, z: Tensor) -> tuple[Codes, Tensor]:
        return codes, codes.encode(z, self._x_BD, self._W_enc, self._bias_F, self._b_pre_MD)


def _offset(W_enc: Tensor, bias_F: Tensor | None, b_pre_MD: Tensor | None, layout: Layout) -> Tensor:
    """[F]: bias - W_enc b_pre, without gradient."""
    with torch.no_grad():
        offset_F = torch.zeros_like(W_enc[:, 0]) if bias_F is None else bias_F.clone()
        if b_pre_MD is not None:
            for member, latents in enumerate(layout.slices):
                offset_F[latents] -= W_enc[latents] @ b_pre_MD[member]
        return offset_F


def largest_mask(z_BF: Tensor, counts: Sequence[int], layout: Layout) -> Tensor:
    """[B, F] bool: where each member's `count` largest z over all tokens are, and all that equal the smallest of them,
    as far as they are above 0."""
    parts = [(z_BF[:, latents], count) for latents, count in zip(layout.slices, counts, strict=True)]
    return torch.cat([(own_BF >= smallest_of_largest(own_BF, count)) & (own_BF > 0) for own_BF, count in parts], dim=1)
