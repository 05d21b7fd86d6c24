"""Codes as a whole matrix with zeros outside the support. Letters and words are those of `codes.py`."""

from functools import cached_property

import torch
from torch import Tensor

from sae_sweep.saes.codes import Codes
from sae_sweep.saes.layout import Layout


class DenseCodes(Codes):
    """Every pair is an entry; 1 or 0 at each says whether it is in the support."""

    def __init__(self, support_BF: Tensor, layout: Layout):
        """The support in the dtype of values: a number times a boolean is converted first, one at a time."""
        self.layout, self.tokens, self._support_BF = layout, support_BF.shape[0], support_BF

    def inside(self, values: Tensor) -> Tensor:
        return values * self._support_BF

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        if self.layout.members == 1:
            return (values @ W_dec)[:, None]
        return torch.stack([values[:, latents] @ W_dec[latents] for latents in self.layout.slices], dim=1)

    def transposed_times(self, values: Tensor, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        return values.T @ x_BD, self._column_sums(values)

    def times(self, values: Tensor, rows_FD: Tensor) -> Tensor:
        return values @ rows_FD

    def at_latent(self, vector_F: Tensor) -> Tensor:
        return vector_F

    def member_sums(self, values: Tensor) -> Tensor:
        return torch.stack([values[:, latents].sum() for latents in self.layout.slices])

    def latent_sums(self, values: Tensor) -> Tensor:
        return self._column_sums(values)

    def member_minima(self, values: Tensor) -> Tensor:
        positive = torch.where(values > 0, values, torch.inf)
        return torch.stack([positive[:, latents].amin() for latents in self.layout.slices])

    def support(self) -> Tensor:
        return self._support_F

    def fired(self, values: Tensor) -> Tensor:
        return self._counts((values.detach() > 0).to(values.dtype))

    @cached_property
    def _support_F(self) -> Tensor:
        return self._counts(self._support_BF)

    def _counts(self, ones_BF: Tensor) -> Tensor:
        """[F] int64: in fp32 whole numbers up to 2^24 are exact; booleans would be added up ten times as slowly."""
        return self._column_sums(ones_BF).round().long()

    @staticmethod
    def _column_sums(numbers_BF: Tensor) -> Tensor:
        """[F]: a product with ones; it takes half as long as `sum`."""
        return numbers_BF.new_ones(len(numbers_BF)) @ numbers_BF
