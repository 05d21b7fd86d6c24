"""The encoder of the sparse route on a GPU: all of z at once, since pieces would be too small to keep it busy."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Entries, above, above_within, where
from sae_sweep.kernels.selection import row_top, smallest_of_largest
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder, largest_mask


class WholeEncoder(Encoder):
    """Every pre-activation of every member, by one matrix product, and lists of those that are chosen."""

    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        z_BF = self.product()
        if self._room is None:
            return self._listed(above(z_BF, 0.0 if floor_F is None else floor_F))
        floor_F = z_BF.new_zeros(()) if floor_F is None else floor_F
        return self._listed(above_within(z_BF, floor_F, self._room), padded=True)

    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        """Those not above 0 too, so that how many there are is known without waiting for the device."""
        z_BF = self.product()
        tops = [  # ordered, so that they are by prefixes of the latents too
            row_top(z_BF[:, latents], count).sort(dim=1).values + latents.start
            for latents, count in zip(self._layout.slices, counts, strict=True)
        ]
        top_BK = torch.cat(tops, dim=1)
        offsets = sum(counts) * torch.arange(len(z_BF) + 1, device=z_BF.device)
        return self._listed(Entries(offsets, top_BK.view(-1), z_BF.gather(1, top_BK).view(-1)))

    def largest_of_all(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        z_BF = self.product()
        if self._room is None:
            return self._listed(where(largest_mask(z_BF, counts, self._layout), z_BF))
        own = zip(self._layout.slices, counts, strict=True)
        smallest_M = torch.stack([smallest_of_largest(z_BF[:, latents], count) for latents, count in own])
        below_M = torch.nextafter(smallest_M, torch.full_like(smallest_M, -torch.inf)).clamp(min=0)
        floor_F = below_M.index_select(0, self._layout.member_F)  # all that equal the smallest are above it
        return self._listed(above_within(z_BF, floor_F, self._room), padded=True)
