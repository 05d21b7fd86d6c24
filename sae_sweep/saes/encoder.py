"""The encoder of one step: z = W_enc (x - b_pre) + bias, and the choice of the pre-activations that matter.

A choice gives *codes* and the pre-activations at them, the one part of z that is differentiable. On the dense route z
is a whole matrix. On the sparse route it need not be: where the hardware multiplies bfloat16 faster, a bound on every
pre-activation (`kernels/screening.py`) leaves a few candidates, those are computed in full precision, and the choice
is made among them. The bound is above every pre-activation, so the choice is the one that the whole matrix would give.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.places import positive_places, true_places
from sae_sweep.kernels.screening import Bounds, highest_of, likely_cut, row_cuts, screens, upper_bounds
from sae_sweep.kernels.selection import row_largest, row_top, smallest_of_largest
from sae_sweep.kernels.sparse import located, sampled_products
from sae_sweep.saes.codes import Codes, DenseCodes, SparseCodes
from sae_sweep.saes.layout import Layout


class Encoder:
    """W_enc [F, D], bias [F] or None, and b_pre [M, D] or None, of M members; and the inputs x [B, D] of a step."""

    def __init__(
        self, x_BD: Tensor, W_enc: Tensor, bias_F: Tensor | None, b_pre_MD: Tensor | None, layout: Layout, dense: bool
    ):
        self._x_BD, self._W_enc, self._bias_F, self._b_pre_MD = x_BD, W_enc, bias_F, b_pre_MD
        self._layout, self._dense = layout, dense
        self._screened = not dense and screens(x_BD)
        self._offset_F = _offset(W_enc, bias_F, b_pre_MD, layout)

    @property
    def tokens(self) -> int:
        return len(self._x_BD)

    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        """Where z is above a floor, which is 0 unless it is given."""
        if not self._screened:
            z_BF = self.product()
            return self._where(z_BF > (0 if floor_F is None else floor_F), z_BF, None)
        flat_N, latent_N, z_N = self._at(positive_places(self._bounds(floor_F).bits_BF))
        above_N = z_N > (0 if floor_F is None else floor_F.index_select(0, latent_N))
        return self._sparse(*_picked(flat_N, z_N, above_N), None)

    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        """Each member's `count` largest z of each token. On the sparse route only those above 0 among them."""
        if not self._screened:
            return self._row_tops(self.product(), counts)
        bounds = self._bounds()
        found = []
        for count, latents in zip(counts, self._layout.slices, strict=True):
            own_BF = bounds.bits_BF[:, latents]
            cut_B = row_cuts(own_BF, count, bounds.slack_B)
            flat_N, _, z_N = self._at(self._flat(own_BF >= cut_B[:, None], latents))
            found.append(_picked(flat_N, z_N, row_largest(flat_N, self._layout.latents, z_N, count, len(own_BF))))
        return self._merged(found, None)

    def largest_of_all(self, counts: Sequence[int], layout: Layout | None = None) -> tuple[Codes, Tensor]:
        """Each member's `count` largest z over all tokens, with all that equal the smallest of them, but none that is
        not above 0. `layout` is that of the codes, where their rows are to be finer than members."""
        if not self._screened:
            z_BF = self.product()
            parts = [z_BF[:, latents] for latents in self._layout.slices]
            kept = [
                (own_BF >= smallest_of_largest(own_BF, count)) & (own_BF > 0)
                for own_BF, count in zip(parts, counts, strict=True)
            ]
            return self._where(torch.cat(kept, dim=1) if len(kept) > 1 else kept[0], z_BF, layout)
        bits_BF = self._bounds().bits_BF
        found = [
            self._largest_of_member(bits_BF[:, latents], latents, count)
            for count, latents in zip(counts, self._layout.slices, strict=True)
        ]
        return self._merged(found, layout)

    def product(self) -> Tensor:
        """All of z [B, F], without gradient: one matrix product for all members."""
        with torch.no_grad():
            return torch.addmm(self._offset_F, self._x_BD, self._W_enc.T)

    def _bounds(self, floor_F: Tensor | None = None) -> Bounds:
        with torch.no_grad():
            return upper_bounds(self._x_BD, self._W_enc, self._offset_F, floor_F)

    def _at(self, flat_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Entries of the flattened matrix, ordered by token; their latents; and z at them, without gradient."""
        offsets, _, latent_N = located(flat_N, len(self._x_BD), self._layout.latents)
        with torch.no_grad():
            z_N = sampled_products(self._x_BD, self._W_enc, latent_N, offsets)
            return flat_N, latent_N, z_N.add_(self._offset_F.index_select(0, latent_N))

    def _largest_of_member(self, bits_BF: Tensor, latents: slice, count: int) -> tuple[Tensor, Tensor]:
        """One member's entries and z. A likely cut leaves candidates; if the smallest that is taken turns out to be
        above whatever the cut may have left out, no other belongs to them. If not, all that may be above 0 are met."""
        cut = likely_cut(bits_BF, count)
        flat_N, _, z_N = self._at(self._flat(bits_BF > cut, latents))
        smallest = smallest_of_largest(z_N, count)
        if cut > 0 and smallest <= highest_of(cut):
            flat_N, _, z_N = self._at(self._flat(bits_BF > 0, latents))
            smallest = smallest_of_largest(z_N, count)
        return _picked(flat_N, z_N, (z_N >= smallest) & (z_N > 0))

    def _flat(self, mask_BF: Tensor, latents: slice) -> Tensor:
        """Where a member's part of the matrix is true, as entries of the whole."""
        flat_N, width = true_places(mask_BF), mask_BF.shape[1]
        if width == self._layout.latents:
            return flat_N
        _, token_N, latent_N = located(flat_N, len(mask_BF), width)
        return token_N * self._layout.latents + (latent_N + latents.start)

    def _where(self, support_BF: Tensor, z_BF: Tensor, layout: Layout | None) -> tuple[Codes, Tensor]:
        """The codes of a support, and z at them."""
        if self._dense:
            return self._encoded(DenseCodes(support_BF, layout or self._layout), z_BF)
        flat_N = true_places(support_BF)
        return self._sparse(flat_N, z_BF.view(-1).index_select(0, flat_N), layout)

    def _row_tops(self, z_BF: Tensor, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        tops = [
            row_top(z_BF[:, latents], count) + latents.start
            for count, latents in zip(counts, self._layout.slices, strict=True)
        ]
        top_BK = torch.cat(tops, dim=1)
        if self._dense:
            return self._where(torch.zeros_like(z_BF, dtype=torch.bool).scatter_(1, top_BK, True), z_BF, None)
        row_B = torch.arange(len(z_BF), device=z_BF.device)
        return self._sparse((top_BK + z_BF.shape[1] * row_B[:, None]).view(-1), z_BF.gather(1, top_BK).view(-1), None)

    def _merged(self, found: Sequence[tuple[Tensor, Tensor]], layout: Layout | None) -> tuple[Codes, Tensor]:
        """Each member's entries and z, as codes of them all."""
        if len(found) == 1:
            return self._sparse(*found[0], layout)
        flat_N, order_N = torch.cat([flat_N for flat_N, _ in found]).sort()
        return self._sparse(flat_N, torch.cat([z_N for _, z_N in found]).index_select(0, order_N), layout)

    def _sparse(self, flat_N: Tensor, z_N: Tensor, layout: Layout | None) -> tuple[Codes, Tensor]:
        return self._encoded(SparseCodes(flat_N, len(self._x_BD), layout or self._layout), z_N)

    def _encoded(self, codes: Codes, z: Tensor) -> tuple[Codes, Tensor]:
        return codes, codes.encode(z, self._x_BD, self._W_enc, self._bias_F, self._b_pre_MD, self._layout)


def _offset(W_enc: Tensor, bias_F: Tensor | None, b_pre_MD: Tensor | None, layout: Layout) -> Tensor:
    """[F]: bias - W_enc b_pre, without gradient."""
    with torch.no_grad():
        offset_F = torch.zeros_like(W_enc[:, 0]) if bias_F is None else bias_F.clone()
        if b_pre_MD is not None:
            for member, latents in enumerate(layout.slices):
                offset_F[latents] -= W_enc[latents] @ b_pre_MD[member]
        return offset_F


def _picked(flat_N: Tensor, z_N: Tensor, picked_N: Tensor) -> tuple[Tensor, Tensor]:
    """The entries, and their z, where the mask is true."""
    index_K = true_places(picked_N)
    return flat_N.index_select(0, index_K), z_N.index_select(0, index_K)
