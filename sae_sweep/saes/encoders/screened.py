"""The encoder of the sparse route where the hardware multiplies bfloat16 faster.

A bound on every pre-activation (`kernels/cpu/screening.py`) leaves a few candidates; these are computed in full
precision, and the choice is made among them. The bound is above every pre-activation, so the choice is the one that
the whole matrix would give.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.cpu.screening import Bounds, highest_of, likely_cut, likely_largest, upper_bounds
from sae_sweep.kernels.entries import Entries, above, kept, largest_of_entries
from sae_sweep.kernels.sparse import sampled_products
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder


class ScreenedEncoder(Encoder):
    """Only those pre-activations of the members that may be chosen."""

    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        floor = self._offset_F.new_zeros(self._layout.latents) if floor_F is None else floor_F
        return self._listed(kept(self._at(above(self._bounds(floor_F).bits_BF, -1)), floor))

    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        entries = self._at(likely_largest(self._bounds(), self._layout.widths, counts))
        return self._listed(largest_of_entries(entries, self._layout.widths, counts))

    def largest_of_all(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        bits_BF = self._bounds().bits_BF
        own = zip(self._layout.slices, counts, strict=True)
        cuts = [likely_cut(bits_BF[:, latents], count) for latents, count in own]
        cut_F = torch.tensor(cuts, dtype=torch.int16).index_select(0, self._layout.member_F)
        left_out_M = self._offset_F.new_tensor([highest_of(cut) for cut in cuts])
        candidates = self._at(above(bits_BF, cut_F))
        largest = self._largest_of_members(candidates, left_out_M, lambda: self._at(above(bits_BF)), counts)
        return self._listed(largest)

    def _bounds(self, floor_F: Tensor | None = None) -> Bounds:
        with torch.no_grad():
            return upper_bounds(self._x_BD, self._W_enc, self._offset_F, floor_F)

    def _at(self, places: Entries) -> Entries:
        """z where some entries are, without gradient."""
        offsets, latent_N, _ = places
        with torch.no_grad():
            z_N = sampled_products(self._x_BD, self._W_enc, latent_N, offsets)
            return Entries(offsets, latent_N, z_N.add_(self._offset_F.index_select(0, latent_N)))
