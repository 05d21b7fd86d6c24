"""The encoder of the sparse route on a CPU where full precision is as fast as any: z some rows at a time.

A piece of z is looked at soon after it is made, in the same room as the last, and nothing but what is chosen of it is
kept. The offset is one more column of the product, which is free; a product that adds a vector writes z twice.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.places import exceeding, place_dtype, reaching, true_places
from sae_sweep.kernels.selection import row_floor, row_largest, sampled_cut, smallest_of_largest
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder, Found, picked
from sae_sweep.saes.layout import Layout

PIECE_ROWS = 1024
"""Tokens at a time. A product packs W_enc anew for each piece, which a few hundred rows do not make up for."""


class PiecewiseEncoder(Encoder):
    """Pre-activations of the members, a piece after the other."""

    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        floor = 0.0 if floor_F is None else floor_F
        return self._sparse(self._found(slice(0, self._layout.latents), lambda z_RF: exceeding(z_RF, floor)))

    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        return self._merged([self._row_largest(*own) for own in zip(self._layout.slices, counts, strict=True)])

    def largest_of_all(self, counts: Sequence[int], layout: Layout | None = None) -> tuple[Codes, Tensor]:
        found = [self._all_largest(*own) for own in zip(self._layout.slices, counts, strict=True)]
        return self._merged(found, layout)

    def _row_largest(self, latents: slice, count: int) -> Found:
        flat_N, z_N = self._found(latents, lambda z_RF: reaching(z_RF, row_floor(z_RF, count).clamp(min=0)[:, None]))
        picked_N = row_largest(flat_N, self._layout.latents, z_N, count, self.tokens)
        return picked(flat_N, z_N, picked_N)

    def _all_largest(self, latents: slice, count: int) -> Found:
        """One member's. The first piece gives a likely cut; where fewer than `count` turn out to be above it, all that
        are above 0 are met."""
        cuts: list[float] = []

        def above_cut(z_RF: Tensor) -> Tensor:
            if not cuts:
                guess = sampled_cut(z_RF.reshape(-1), -(-count * len(z_RF) // self.tokens))
                cuts.append(0.0 if guess is None else max(0.0, guess.item()))
            return exceeding(z_RF, cuts[0])

        flat_N, z_N = self._found(latents, above_cut)
        if cuts[0] > 0 and len(z_N) < count:
            flat_N, z_N = self._found(latents, lambda z_RF: exceeding(z_RF, 0.0))
        return picked(flat_N, z_N, z_N >= smallest_of_largest(z_N, count))

    def _found(self, latents: slice, chosen: Callable[[Tensor], Tensor]) -> Found:
        """What `chosen` says of each piece of some latents' z, as entries of the whole z."""
        width, whole = latents.stop - latents.start, self._layout.latents
        flat, values, dtype = [], [], place_dtype(self.tokens * whole)  # a piece's own places may be narrower
        for first, z_RF in self._pieces(latents):
            flat_N = true_places(chosen(z_RF)).to(dtype)
            values.append(z_RF.view(-1).index_select(0, flat_N))
            if width < whole:
                flat_N = flat_N + flat_N.div(width, rounding_mode="floor").mul_(whole - width)
            flat.append(flat_N.add_(first * whole + latents.start))
        return torch.cat(flat), torch.cat(values)

    def _pieces(self, latents: slice) -> Iterator[tuple[int, Tensor]]:
        """Some latents' z, and the first token of each piece; a piece is gone when the next one comes."""
        with torch.no_grad():
            x_BK = torch.cat([self._x_BD, self._x_BD.new_ones(self.tokens, 1)], dim=1)
            W_KF = torch.cat([self._W_enc[latents], self._offset_F[latents, None]], dim=1).T
        z_RF = x_BK.new_empty(min(PIECE_ROWS, self.tokens), W_KF.shape[1])
        for first in range(0, self.tokens, PIECE_ROWS):
            x_RK = x_BK[first : first + PIECE_ROWS]
            yield first, torch.mm(x_RK, W_KF, out=z_RF[: len(x_RK)])
