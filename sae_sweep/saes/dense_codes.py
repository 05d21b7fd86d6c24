"""Codes as a whole matrix with zeros outside the support. Letters and words are those of `codes.py`."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sae_sweep.kernels.entries import Room
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.layout import Layout


class DenseCodes(Codes):
    """Every pair is an entry; 1 or 0 at each says whether it is in the support."""

    def __init__(self, support_BF: Tensor, layout: Layout):
        """The support in the dtype of values: a number times a boolean is converted first, one at a time."""
        self.layout, self.tokens, self._support_BF = layout, support_BF.shape[0], support_BF

    def inside(self, values: Tensor) -> Tensor:
        return values * self._support_BF

    def at_least(self, values: Tensor, smallest: Tensor, room: Room | None) -> tuple[Codes, Tensor]:
        support_BF = (values >= smallest).to(values.dtype)
        return DenseCodes(support_BF, self.layout), values * support_BF

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        if self.layout.members == 1:
            return (values @ W_dec)[:, None]
        return torch.stack([values[:, latents] @ W_dec[latents] for latents in self.layout.slices], dim=1)

    def relaid(self, layout: Layout) -> Codes:
        return DenseCodes(self._support_BF, layout)

    def ranked(self, values: Tensor, ends: Sequence[Sequence[int]]) -> tuple[Codes, Tensor]:
        return RankedDenseCodes(self._support_BF, self.layout, values.detach(), ends), values

    def dense(self, values: Tensor, latents: slice) -> Tensor:
        return values[:, latents]

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


class RankedDenseCodes(DenseCodes):
    """Entries in parts by their rank in a token and member: each knows its part."""

    def __init__(self, support_BF: Tensor, layout: Layout, values_BF: Tensor, ends: Sequence[Sequence[int]]):
        super().__init__(support_BF, layout)
        self._parts = [len(own) for own in ends]
        self._part_BF = torch.empty_like(values_BF, dtype=torch.int16)
        """Within the member. What is not among a member's largest is 0, and may be of any."""
        for latents, own in zip(layout.slices, ends, strict=True):
            top_BK = values_BF[:, latents].topk(own[-1], dim=1).indices
            ranks_K = torch.arange(own[-1], device=values_BF.device)
            parts_K = torch.bucketize(ranks_K, torch.tensor(own[:-1], device=values_BF.device), right=True)
            part_Bf = torch.zeros_like(self._part_BF[:, latents])
            self._part_BF[:, latents] = part_Bf.scatter_(1, top_BK, parts_K.to(torch.int16).expand_as(top_BK))

    def decode(self, values: Tensor, W_dec: Tensor) -> Tensor:
        decoded_BGD: Tensor = _DecodeParts.apply(values, W_dec, self)
        return decoded_BGD

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """The latents of each part's member, and where in them [B, f] it is."""
        for latents, count in zip(self.layout.slices, self._parts, strict=True):
            for part in range(count):
                yield latents, self._part_BF[:, latents] == part


class _DecodeParts(torch.autograd.Function):
    """A product for each part, of which no masked values are kept for the way back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, codes: RankedDenseCodes) -> Tensor:
        ctx.save_for_backward(values, W_dec)
        ctx.codes = codes
        return torch.stack([(values[:, own] * mask_Bf) @ W_dec[own] for own, mask_Bf in codes.parts()], dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g_BGD,) = gradients
        values, W_dec = ctx.saved_tensors
        g_values, g_W = torch.zeros_like(values), torch.zeros_like(W_dec)
        for part, (own, mask_Bf) in enumerate(ctx.codes.parts()):
            g_W[own] += (values[:, own] * mask_Bf).T @ g_BGD[:, part]
            g_values[:, own] += (g_BGD[:, part] @ W_dec[own].T) * mask_Bf
        return g_values, g_W, None
