"""The encoder of the sparse route on a GPU that multiplies 16-bit numbers faster.

A bound on every pre-activation (`kernels/halved.py`) leaves a few candidates; these are computed in full precision, and
the choice is made among them: it is the one that the whole matrix would give. Lists are as long as there is room for
(`kernels/entries.py`), those of candidates longer; where either is too short the step is lost.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Entries, Room, above_within, kept_within
from sae_sweep.kernels.halved import ROUNDOFF, Added, Bounds, bounds
from sae_sweep.kernels.rows import CROWDED
from sae_sweep.kernels.selection import largest_of_lists, row_smallest, smallest_of_largest
from sae_sweep.kernels.sparse import sampled_products, transposed
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder

CANDIDATES = 2
"""Times the entries: room for candidates."""


class HalvedEncoder(Encoder):
    """Only those pre-activations of the members that may be chosen."""

    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        candidates = self._at(self._bounds(floor_F), None)
        floor_N = 0 if floor_F is None else floor_F.index_select(0, candidates.column_N)
        return self._listed_where(candidates, candidates.value_N > floor_N)

    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        found, own = self._bounds(), self._layout.slices
        cuts = [row_smallest(found.bound_BF[:, latents], count) for latents, count in zip(own, counts, strict=True)]
        cut_BM = torch.stack(cuts, dim=1).float()
        candidates = self._at(found, _below(cut_BM, found.slack_B[:, None], self._half))
        return self._listed_where(candidates, largest_of_lists(candidates, own, counts))

    def largest_of_all(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        found, own = self._bounds(), zip(self._layout.slices, counts, strict=True)
        cut_M = torch.stack([smallest_of_largest(found.bound_BF[:, latents], count) for latents, count in own]).float()
        candidates = self._at(found, _below(cut_M, found.slack_B.amax(), self._half)[None])
        z_N = _without_padding(candidates)
        member_N = self._layout.member_F.index_select(0, candidates.column_N)
        smallest = [
            smallest_of_largest(torch.where(member_N == member, z_N, -torch.inf), min(count, len(z_N)))
            for member, count in enumerate(counts)
        ]
        return self._listed_where(candidates, z_N > _before(torch.stack(smallest)).index_select(0, member_N))

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
        """Of z over what inputs are times their numbers of 16 bits, where they are such."""
        own, x_BD, scale = self._scaled, self._x_BD, 1.0
        if own is not None:
            x_BD, scale = own.table_BD, own.scale
        added = Added(self._bias_F, self._b_pre_MD, self._layout.member_F, floor_F, scale)
        with torch.no_grad():
            return bounds(x_BD, self._W_enc, added, self._half)

    def _at(self, found: Bounds, cut: Tensor | None) -> Entries:
        """z where bounds are not below 0, nor below a cut [B or 1, M] where there is one; anything in padding."""
        bits_BF = found.bound_BF.view(torch.int16)  # above 0 ordered as the numbers are
        floor = bits_BF.new_full((), -1)
        if cut is not None:
            cut = cut.clamp(min=0).to(self._half).view(torch.int16) - 1
            floor = cut if self._layout.members == 1 else cut.index_select(1, self._layout.member_F)
        room = self._own_room.wider(CANDIDATES)
        offsets, latent_N, _ = above_within(bits_BF, floor, room)
        with torch.no_grad():
            z_N = self._products(offsets, latent_N).add_(found.offset_F.index_select(0, latent_N))
        return Entries(offsets, latent_N, z_N)

    def _products(self, offsets: Tensor, latent_N: Tensor) -> Tensor:
        """W_enc x at entries. Where latents have many, each reads its own row once and inputs in 16 bits."""
        own, latents = self._scaled, self._layout.latents
        if own is None or len(latent_N) < CROWDED * latents:
            return sampled_products(self._x_BD, self._W_enc, latent_N, offsets)
        begins, order_N, token_N = transposed(offsets, latent_N, latents)
        begins = torch.minimum(begins, offsets[-1])  # padding comes last
        ordered_N = sampled_products(self._W_enc, own.table_BD, token_N, begins)
        return torch.empty_like(ordered_N).index_copy_(0, order_N, ordered_N).mul_(own.scale)

    def _listed_where(self, candidates: Entries, kept_N: Tensor) -> tuple[Codes, Tensor]:
        return self._listed(kept_within(candidates, kept_N, self._own_room, self._layout.latents - 1), padded=True)


def _without_padding(entries: Entries) -> Tensor:
    """[N]: z, and minus infinity in padding."""
    z_N = entries.value_N
    there_N = torch.arange(len(z_N), device=z_N.device) < entries.offsets[-1]
    return torch.where(there_N, z_N, -torch.inf)


def _before(smallest: Tensor) -> Tensor:
    """What the smallest numbers that are chosen are above: the number before them, and 0."""
    return torch.nextafter(smallest, torch.full_like(smallest, -torch.inf)).clamp(min=0)


def _below(cut: Tensor, slack: Tensor, half: torch.dtype) -> Tensor:
    """Bounds below this are of numbers that are less than as many as are wanted."""
    cut = cut.clamp(max=torch.finfo(half).max)
    return cut - cut.abs() * (4 * ROUNDOFF[half]) - slack
