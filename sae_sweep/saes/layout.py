"""Where each member's latents lie in a bank: end to end, in one axis of F latents."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from sae_sweep.kernels.device import beside


@dataclass(frozen=True)
class Layout:
    """The latents of M members, F in all."""

    widths: tuple[int, ...]
    device: torch.device

    @property
    def members(self) -> int:
        """How many members the bank has."""
        return len(self.widths)

    @property
    def latents(self) -> int:
        """How many latents all of them have."""
        return sum(self.widths)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """The latents of each member."""
        ends = tuple(accumulate(self.widths))
        return tuple(slice(end - width, end) for end, width in zip(ends, self.widths, strict=True))

    def sums(self, vector_F: Tensor) -> Tensor:
        """[M]: a vector's numbers, summed over each member's latents."""
        return torch.stack([vector_F[latents].sum() for latents in self.slices])

    @cached_property
    def member_F(self) -> Tensor:
        """[F]: the member each latent belongs to."""
        ids = torch.arange(self.members, device=self.device, dtype=torch.int32)
        return torch.repeat_interleave(ids, beside(ids, self.widths, torch.int64), output_size=self.latents)


@lru_cache(64)
def layout_of(widths: tuple[int, ...], device: torch.device) -> Layout:
    """The layout of members of these widths; the same object each time, with what was made of it."""
    return Layout(widths, device)
