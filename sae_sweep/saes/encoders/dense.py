"""The encoder of the dense route: all of z."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.kernels.selection import row_largest
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.dense_codes import DenseCodes
from sae_sweep.saes.encoders.base import Encoder, largest_mask


class DenseEncoder(Encoder):
    """Every pre-activation of every member, by one matrix product, and zeros where they are not chosen."""

    def above(self, floor_F: Tensor | None = None) -> tuple[Codes, Tensor]:
        z_BF = self.product()
        if floor_F is not None:
            return self._masked(z_BF > floor_F, z_BF)
        z_BF.clamp_(min=0)
        return self._encoded(DenseCodes(z_BF.sign(), self._layout), z_BF)

    def largest_of_rows(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        z_BF = self.product()
        own = zip(self._layout.slices, counts, strict=True)
        largest_BF = torch.cat([row_largest(z_BF[:, latents], count) for latents, count in own], dim=1)
        return self._encoded(DenseCodes(largest_BF.sign(), self._layout), largest_BF)

    def largest_of_all(self, counts: Sequence[int]) -> tuple[Codes, Tensor]:
        z_BF = self.product()
        return self._masked(largest_mask(z_BF, counts, self._layout), z_BF)

    def _masked(self, support_BF: Tensor, z_BF: Tensor) -> tuple[Codes, Tensor]:
        support_BF = support_BF.to(z_BF.dtype)
        return self._encoded(DenseCodes(support_BF, self._layout), z_BF.mul_(support_BF))
