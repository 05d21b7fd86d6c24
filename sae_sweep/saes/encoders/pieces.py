"""The encoder of the sparse route on a CPU where full precision is as fast as any: z some rows at a time.

A piece of z is looked at soon after it is made, in the same room as the last, and nothing but what is chosen of it is
kept. The offset is one more column of the product, which is free; a product that adds a vector writes z twice.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Entries, above, joined, largest_of_rows
from sae_sweep.kernels.selection import sampled_cut
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder
from sae_sweep.saes.layout import Layout

PIECE_ROWS = 1024
"""Tokens at a time. A product packs W_enc anew for each piece, which a few hundred rows do not make up for."""


class PiecewiseEncoder(Encoder):
    """Pre-activations of the members, a piece after the other."""

    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        return self._listed(self._above(0.0 if floor_F is None else floor_F))

    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        return self._listed(self._found(lambda z_RF: largest_of_rows(z_RF, self._layout.widths, counts)))

    def largest_of_all(self, counts: Sequence[int], layout: Layout | None = None) -> tuple[Codes, Tensor]:
        """The first piece gives likely cuts."""
        cuts: list[Tensor] = []

        def above_cuts(z_RF: Tensor) -> Entries:
            if not cuts:
                cuts.append(self._likely_cuts(z_RF, counts))
            return above(z_RF, cuts[0].index_select(0, self._layout.member_F))

        candidates = self._found(above_cuts)
        largest = self._largest_of_members(candidates, cuts[0], lambda: self._above(0.0), counts)
        return self._listed(largest, layout)

    def _above(self, floor_F: Tensor | float) -> Entries:
        return self._found(lambda z_RF: above(z_RF, floor_F))

    def _likely_cuts(self, z_RF: Tensor, counts: Sequence[int]) -> Tensor:
        """[M]: what rather more than each member's `count` of z are likely to be above, given some rows of it."""
        guesses = [
            sampled_cut(z_RF[:, latents].reshape(-1), -(-count * len(z_RF) // self.tokens))
            for latents, count in zip(self._layout.slices, counts, strict=True)
        ]
        return torch.stack([z_RF.new_zeros(()) if guess is None else guess.clamp(min=0) for guess in guesses])

    def _found(self, chosen: Callable[[Tensor], Entries]) -> Entries:
        """What `chosen` says of each piece of z, as entries of the whole."""
        return joined([chosen(z_RF) for z_RF in self._pieces()])

    def _pieces(self) -> Iterator[Tensor]:
        """z some rows at a time; a piece is gone when the next one comes."""
        with torch.no_grad():
            x_BK = torch.cat([self._x_BD, self._x_BD.new_ones(self.tokens, 1)], dim=1)
            W_KF = torch.cat([self._W_enc, self._offset_F[:, None]], dim=1).T
        z_RF = x_BK.new_empty(min(PIECE_ROWS, self.tokens), W_KF.shape[1])
        for x_RK in x_BK.split(PIECE_ROWS):
            yield torch.mm(x_RK, W_KF, out=z_RF[: len(x_RK)])
