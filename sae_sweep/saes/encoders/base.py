"""The encoder of one step: z = W_enc (x - b_pre) + bias, and the choice of the pre-activations that matter.

A choice gives *codes* and the pre-activations at them, the one part of z that is differentiable. All encoders make the
same choices: `dense.py` and `whole.py` have all of z, `pieces.py` makes it some rows at a time, and `screened.py`
computes only what may be chosen.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.places import true_places
from sae_sweep.kernels.selection import smallest_of_largest
from sae_sweep.saes.codes import Codes, SparseCodes
from sae_sweep.saes.layout import Layout

Found = tuple[Tensor, Tensor]
"""Entries of the flattened z [B, F], in its order, and z at them."""


class Encoder(ABC):
    """W_enc [F, D], bias [F] or None, and b_pre [M, D] or None, of M members; and the inputs x [B, D] of a step."""

    def __init__(
        self, x_BD: Tensor, W_enc: Tensor, bias_F: Tensor | None, b_pre_MD: Tensor | None, layout: Layout
    ) -> None:
        self._x_BD, self._W_enc, self._bias_F, self._b_pre_MD, self._layout = x_BD, W_enc, bias_F, b_pre_MD, layout
        self._offset_F = _offset(W_enc, bias_F, b_pre_MD, layout)

    @property
    def tokens(self) -> int:
        """B."""
        return len(self._x_BD)

    @abstractmethod
    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        """Where z is above a floor, which is 0 unless it is given."""

    @abstractmethod
    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        """Each member's `count` largest z of each token. On the sparse route only those above 0 among them."""

    @abstractmethod
    def largest_of_all(self, counts: Sequence[int], layout: Layout | None = None) -> tuple[Codes, Tensor]:
        """Each member's `count` largest z over all tokens, with all that equal the smallest of them, but none that is
        not above 0. `layout` is that of the codes, where their rows are to be finer than members."""

    def product(self) -> Tensor:
        """All of z [B, F], without gradient."""
        with torch.no_grad():
            return torch.addmm(self._offset_F, self._x_BD, self._W_enc.T)

    def _sparse(self, found: Found, layout: Layout | None = None) -> tuple[Codes, Tensor]:
        flat_N, z_N = found
        return self._encoded(SparseCodes(flat_N, self.tokens, layout or self._layout), z_N)

    def _merged(self, found: Sequence[Found], layout: Layout | None = None) -> tuple[Codes, Tensor]:
        """Each member's entries, as codes of them all."""
        if len(found) == 1:
            return self._sparse(found[0], layout)
        flat_N, order_N = torch.cat([flat_N for flat_N, _ in found]).sort()
        return self._sparse((flat_N, torch.cat([z_N for _, z_N in found]).index_select(0, order_N)), layout)

    def _encoded(self, codes: Codes, z: Tensor) -> tuple[Codes, Tensor]:
        return codes, codes.encode(z, self._x_BD, self._W_enc, self._bias_F, self._b_pre_MD, self._layout)


def picked(flat_N: Tensor, z_N: Tensor, picked_N: Tensor) -> Found:
    """The entries, and their z, where the mask is true."""
    index_K = true_places(picked_N)
    return flat_N.index_select(0, index_K), z_N.index_select(0, index_K)


def _offset(W_enc: Tensor, bias_F: Tensor | None, b_pre_MD: Tensor | None, layout: Layout) -> Tensor:
    """[F]: bias - W_enc b_pre, without gradient."""
    with torch.no_grad():
        offset_F = torch.zeros_like(W_enc[:, 0]) if bias_F is None else bias_F.clone()
        if b_pre_MD is not None:
            for member, latents in enumerate(layout.slices):
                offset_F[latents] -= W_enc[latents] @ b_pre_MD[member]
        return offset_F


def largest_mask(z_BF: Tensor, counts: Sequence[int], layout: Layout) -> Tensor:
    """[B, F] bool: where each member's `count` largest z over all tokens are, and all that equal the smallest of them,
    as far as they are above 0."""
    parts = [(z_BF[:, latents], count) for latents, count in zip(layout.slices, counts, strict=True)]
    return torch.cat([(own_BF >= smallest_of_largest(own_BF, count)) & (own_BF > 0) for own_BF, count in parts], dim=1)
