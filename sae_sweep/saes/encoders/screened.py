"""The encoder of the sparse route where the hardware multiplies bfloat16 faster.

A bound on every pre-activation (`kernels/screening.py`) leaves a few candidates, those are computed in full precision,
and the choice is made among them. The bound is above every pre-activation, so the choice is the one that the whole
matrix would give.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.places import positive_places, true_places
from sae_sweep.kernels.screening import Bounds, highest_of, likely_cut, row_cuts, upper_bounds
from sae_sweep.kernels.selection import row_largest, smallest_of_largest
from sae_sweep.kernels.sparse import located, sampled_products
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder, Found, picked
from sae_sweep.saes.layout import Layout


class ScreenedEncoder(Encoder):
    """Only those pre-activations of the members that may be chosen."""

    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        flat_N, latent_N, z_N = self._at(positive_places(self._bounds(floor_F).bits_BF))
        above_N = z_N > (0 if floor_F is None else floor_F.index_select(0, latent_N))
        return self._sparse(picked(flat_N, z_N, above_N))

    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        bounds = self._bounds()
        found = []
        for count, latents in zip(counts, self._layout.slices, strict=True):
            own_BF = bounds.bits_BF[:, latents]
            cut_B = row_cuts(own_BF, count, bounds.slack_B)
            flat_N, _, z_N = self._at(self._flat(own_BF >= cut_B[:, None], latents))
            found.append(picked(flat_N, z_N, row_largest(flat_N, self._layout.latents, z_N, count, self.tokens)))
        return self._merged(found)

    def largest_of_all(self, counts: Sequence[int], layout: Layout | None = None) -> tuple[Codes, Tensor]:
        bits_BF = self._bounds().bits_BF
        found = [
            self._largest_of_member(bits_BF[:, latents], latents, count)
            for count, latents in zip(counts, self._layout.slices, strict=True)
        ]
        return self._merged(found, layout)

    def _bounds(self, floor_F: Tensor | None = None) -> Bounds:
        with torch.no_grad():
            return upper_bounds(self._x_BD, self._W_enc, self._offset_F, floor_F)

    def _at(self, flat_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Entries of the flattened matrix, ordered by token; their latents; and z at them, without gradient."""
        offsets, _, latent_N = located(flat_N, self.tokens, self._layout.latents)
        with torch.no_grad():
            z_N = sampled_products(self._x_BD, self._W_enc, latent_N, offsets)
            return flat_N, latent_N, z_N.add_(self._offset_F.index_select(0, latent_N))

    def _largest_of_member(self, bits_BF: Tensor, latents: slice, count: int) -> Found:
        """One member's entries and z. A likely cut leaves candidates; if the smallest that is taken turns out to be
        above whatever the cut may have left out, no other belongs to them. If not, all that may be above 0 are met."""
        cut = likely_cut(bits_BF, count)
        flat_N, _, z_N = self._at(self._flat(bits_BF > cut, latents))
        smallest = smallest_of_largest(z_N, count)
        if cut > 0 and smallest <= highest_of(cut):
            flat_N, _, z_N = self._at(self._flat(bits_BF > 0, latents))
            smallest = smallest_of_largest(z_N, count)
        return picked(flat_N, z_N, (z_N >= smallest) & (z_N > 0))

    def _flat(self, mask_BF: Tensor, latents: slice) -> Tensor:
        """Where a member's part of the matrix is true, as entries of the whole."""
        flat_N, width = true_places(mask_BF), mask_BF.shape[1]
        if width == self._layout.latents:
            return flat_N
        _, token_N, latent_N = located(flat_N, len(mask_BF), width)
        return token_N * self._layout.latents + (latent_N + latents.start)
