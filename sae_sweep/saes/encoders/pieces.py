"""The encoder of the sparse route on a CPU where full precision is as fast as any: z some rows at a time.

Rows of W_enc x are looked at soon after they are made, and nothing but what is chosen of them is kept
(`kernels/cpu/products.py`). The offset is added where they are looked at: a product that adds one would write z twice.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.kernels import cpu
from sae_sweep.kernels.entries import Entries
from sae_sweep.kernels.selection import SAMPLE, sampled_cut
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder


class PiecewiseEncoder(Encoder):
    """Pre-activations of the members, a piece after the other."""

    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        return self._listed(self._above(0.0 if floor_F is None else floor_F))

    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        x_BD, W_enc = self._x_BD.detach(), self._W_enc.detach()
        return self._listed(cpu.products.largest_products(x_BD, W_enc, self._layout.widths, counts, self._offset_F))

    def largest_of_all(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        cut_M = self._likely_cuts(counts)
        candidates = self._above(cut_M.index_select(0, self._layout.member_F))
        largest = self._largest_of_members(candidates, cut_M, lambda: self._above(0.0), counts)
        return self._listed(largest)

    def _above(self, floor_F: Tensor | float) -> Entries:
        return cpu.products.products_above(self._x_BD.detach(), self._W_enc.detach(), floor_F, self._offset_F)

    def _likely_cuts(self, counts: Sequence[int]) -> Tensor:
        """[M]: what rather more than each member's `count` of z are likely to be above, given some tokens."""
        rows = max(1, SAMPLE * self._layout.members // self._layout.latents)
        with torch.no_grad():
            some_RF = torch.addmm(self._offset_F, self._x_BD[:: max(1, self.tokens // rows)], self._W_enc.T)
        guesses = []
        for latents, count in zip(self._layout.slices, counts, strict=True):
            share = -(-count * len(some_RF) // self.tokens)
            guesses.append(sampled_cut(some_RF[:, latents].reshape(-1), share))
        return torch.stack([some_RF.new_zeros(()) if guess is None else guess.clamp(min=0) for guess in guesses])
