"""The encoder of the sparse route on a CPU where full precision is as fast as any: z some rows at a time.

A piece of W_enc x is looked at soon after it is made, in the same room as the last, and nothing but what is chosen of
it is kept. The offset is added where it is looked at: a product that adds a vector would write z twice.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Entries, above, joined, largest_of_rows
from sae_sweep.kernels.selection import SAMPLE, sampled_cut
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
        return self._listed(
            self._found(lambda z_RF: largest_of_rows(z_RF, self._layout.widths, counts, self._offset_F))
        )

    def largest_of_all(self, counts: Sequence[int], layout: Layout | None = None) -> tuple[Codes, Tensor]:
        """The first piece gives likely cuts."""
        cuts: list[Tensor] = []

        def above_cuts(z_RF: Tensor) -> Entries:
            if not cuts:
                cuts.append(self._likely_cuts(z_RF, counts))
            return above(z_RF, cuts[0].index_select(0, self._layout.member_F), self._offset_F)

        candidates = self._found(above_cuts)
        largest = self._largest_of_members(candidates, cuts[0], lambda: self._above(0.0), counts)
        return self._listed(largest, layout)

    def _above(self, floor_F: Tensor | float) -> Entries:
        return self._found(lambda z_RF: above(z_RF, floor_F, self._offset_F))

    def _likely_cuts(self, z_RF: Tensor, counts: Sequence[int]) -> Tensor:
        """[M]: what rather more than each member's `count` of z are likely to be above, given a piece of it."""
        guesses = []
        for latents, count in zip(self._layout.slices, counts, strict=True):
            some_RF = z_RF[:: max(1, len(z_RF) * (latents.stop - latents.start) // SAMPLE), latents]
            share = -(-count * len(some_RF) // self.tokens)
            guesses.append(sampled_cut((some_RF + self._offset_F[latents]).view(-1), share))
        return torch.stack([z_RF.new_zeros(()) if guess is None else guess.clamp(min=0) for guess in guesses])

    def _found(self, chosen: Callable[[Tensor], Entries]) -> Entries:
        """What `chosen` says of each piece of W_enc x, as entries of the whole."""
        return joined([chosen(z_RF) for z_RF in self._pieces()])

    def _pieces(self) -> Iterator[Tensor]:
        """W_enc x, some tokens at a time; a piece is gone when the next one comes."""
        x_BD, W_DF = self._x_BD.detach(), self._W_enc.detach().T
        z_RF = x_BD.new_empty(min(PIECE_ROWS, self.tokens), W_DF.shape[1])
        for x_RD in x_BD.split(PIECE_ROWS):
            yield torch.mm(x_RD, W_DF, out=z_RF[: len(x_RD)])
