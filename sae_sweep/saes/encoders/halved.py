"""The encoder of the sparse route on a GPU that multiplies 16-bit numbers faster.

A bound on every pre-activation (`kernels/halved.py`) leaves a few candidates; these are computed in full precision, and
the choice is made among them: it is the one that the whole matrix would give. Lists are as long as there is room for
(`kernels/entries.py`), those of candidates longer; where either is too short the step is lost.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Entries, Room, above_within, kept_within
from sae_sweep.kernels.halved import ROUNDOFF, Bounds, bounds
from sae_sweep.kernels.selection import row_smallest, row_top, smallest_of_largest
from sae_sweep.kernels.sparse import bag_of_each, sampled_products, sorted_offsets
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder

CANDIDATES = 2
"""Times the entries: room for candidates."""
ROW_CANDIDATES, MORE = 4, 64
"""Times the latents that fire, and so many more: room for the candidates of a token and member."""


class HalvedEncoder(Encoder):
    """Only those pre-activations of the members that may be chosen."""

    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        floor = self._offset_F.new_zeros(self._layout.latents) if floor_F is None else floor_F
        candidates, z_N = self._at(self._bounds(floor_F), None)
        return self._listed_above(candidates, z_N, floor.index_select(0, candidates.column_N))

    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        found, own = self._bounds(), self._layout.slices
        cuts = [row_smallest(found.bound_BF[:, latents], count) for latents, count in zip(own, counts, strict=True)]
        cut_BM = torch.stack(cuts, dim=1).float()
        candidates, z_N = self._at(found, _below(cut_BM, found.slack_B[:, None], self._half))
        return self._listed_where(candidates, z_N, self._largest_of_rows(candidates, z_N, counts))

    def largest_of_all(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        found, own = self._bounds(), zip(self._layout.slices, counts, strict=True)
        cut_M = torch.stack([smallest_of_largest(found.bound_BF[:, latents], count) for latents, count in own]).float()
        candidates, z_N = self._at(found, _below(cut_M, found.slack_B.amax(), self._half)[None])
        member_N = self._layout.member_F.index_select(0, candidates.column_N)
        smallest = [
            smallest_of_largest(torch.where(member_N == member, z_N, -torch.inf), min(count, len(z_N)))
            for member, count in enumerate(counts)
        ]
        return self._listed_above(candidates, z_N, _before(torch.stack(smallest)).index_select(0, member_N))

    @property
    def _own_room(self) -> Room:
        assert self._room is not None
        return self._room

    @property
    def _half(self) -> torch.dtype:
        half = self._own_room.half
        assert half is not None
        return half

    def _bounds(self, floor_F: Tensor | None = None) -> Bounds:
        with torch.no_grad():
            return bounds(self._x_BD, self._W_enc, self._offset_F, floor_F, self._half)

    def _at(self, found: Bounds, cut: Tensor | None) -> tuple[Entries, Tensor]:
        """The entries whose bounds are not below 0, nor below a cut [B or 1, M] where there is one; and z at them, of
        padding minus infinity."""
        bits_BF = found.bound_BF.view(torch.int16)  # above 0 ordered as the numbers are
        floor = bits_BF.new_full((), -1)
        if cut is not None:
            cut = cut.clamp(min=0).to(self._half).view(torch.int16) - 1
            floor = cut if self._layout.members == 1 else cut.index_select(1, self._layout.member_F)
        room = self._own_room.wider(CANDIDATES)
        offsets, latent_N, _ = above_within(bits_BF, floor, room)
        with torch.no_grad():
            z_N = sampled_products(self._x_BD, self._W_enc, latent_N, offsets)
            z_N = z_N.add_(self._offset_F.index_select(0, latent_N))
            there_N = torch.arange(len(z_N), device=z_N.device) < offsets[-1]
            return Entries(offsets, latent_N, z_N), torch.where(there_N, z_N, -torch.inf)

    def _listed_above(self, candidates: Entries, z_N: Tensor, floor_N: Tensor) -> tuple[Codes, Tensor]:
        return self._listed_where(candidates, z_N, z_N > floor_N)

    def _listed_where(self, candidates: Entries, z_N: Tensor, kept_N: Tensor) -> tuple[Codes, Tensor]:
        entries = Entries(candidates.offsets, candidates.column_N, z_N)
        return self._listed(kept_within(entries, kept_N, self._own_room, self._layout.latents - 1), padded=True)

    def _largest_of_rows(self, candidates: Entries, z_N: Tensor, counts: Sequence[int]) -> Tensor:
        """[N] bool: where the `count` largest z of each token and member are, those above 0."""
        members, room = len(counts), self._own_room
        most = ROW_CANDIDATES * room.crowd * max(counts) + MORE
        row_N = bag_of_each(candidates.offsets, len(z_N), padded=True).long()
        if members > 1:
            row_N = row_N * members + self._layout.member_F.index_select(0, candidates.column_N)
        rows = self.tokens * members
        begins = torch.minimum(sorted_offsets(row_N.int(), rows), candidates.offsets[-1]).long()
        place_N = torch.arange(len(z_N), device=z_N.device) - begins.index_select(0, row_N)
        room.lose(begins.diff().amax() > most)
        out = rows * most  # the last place, of what is left out
        place_N = torch.where((place_N < most) & z_N.isfinite(), row_N * most + place_N, out)
        table = z_N.new_full((out + 1,), -torch.inf).index_copy_(0, place_N, z_N)
        table_RMK, chosen = table[:-1].view(self.tokens, members, most), torch.zeros_like(table, dtype=torch.bool)
        for member, count in enumerate(counts):
            top_BK = row_top(table_RMK[:, member], count)
            chosen[:-1].view(self.tokens, members, most)[:, member].scatter_(1, top_BK, True)
        chosen[-1:].zero_()
        return chosen.index_select(0, place_N) & (z_N > 0)


def _before(smallest: Tensor) -> Tensor:
    """What the smallest numbers that are chosen are above: the number before them, and 0."""
    return torch.nextafter(smallest, torch.full_like(smallest, -torch.inf)).clamp(min=0)


def _below(cut: Tensor, slack: Tensor, half: torch.dtype) -> Tensor:
    """Bounds below this are of numbers that are less than as many as are wanted."""
    cut = cut.clamp(max=torch.finfo(half).max)
    return cut - cut.abs() * (4 * ROUNDOFF[half]) - slack
