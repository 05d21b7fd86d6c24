"""Gradients of weights that are never made: each row is a sum of a few rows of a table, and is summed where it is used.

A latent that fires on a few tokens has a gradient that is a sum of as many rows. Written down, [F, D], it would be read
again by everything that an update does; `cuda/updating.py` does all of it to a row while that is at hand.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

WIDEST = 8_192
"""Numbers of a row, at most: a program holds all of it."""
CROWDED = 4
"""Entries of a latent, on average, from which on they are gone through by latent: its own row is then read once, and a
gradient is made, which costs as much as reading two rows."""


@dataclass(frozen=True)
class Scaled:
    """Inputs that are `scale` times numbers of 16 bits: these are read in half the time, and nothing is lost."""

    whole_BD: Tensor
    table_BD: Tensor
    scale: float


@dataclass(frozen=True)
class RowSums:
    """[F, D]: row f is the sum of weight[n] * table[index[n]] over bag f of `offsets` [F + 1]; less factor[f] times
    `subtracted` where they are given, and more row f of `added`."""

    table_KD: Tensor
    index_N: Tensor
    weight_N: Tensor
    offsets: Tensor
    factor_F: Tensor | None = None
    subtracted_MD: Tensor | None = None
    """A row for each member."""
    added_FD: Tensor | None = None

    @staticmethod
    def made(gradient_FD: Tensor) -> "RowSums":
        """A gradient that is there, and no sums."""
        index_N = torch.empty(0, dtype=torch.int32, device=gradient_FD.device)
        offsets = torch.zeros(len(gradient_FD) + 1, dtype=torch.int32, device=gradient_FD.device)
        return RowSums(gradient_FD, index_N, gradient_FD[0, :0], offsets, added_FD=gradient_FD)

    def contiguous(self) -> "RowSums":
        """The same, as kernels read it."""
        table_KD = self.table_KD
        return replace(
            self,
            table_KD=table_KD if table_KD.stride(1) == 1 else table_KD.contiguous(),
            index_N=self.index_N.contiguous(),
            weight_N=self.weight_N.contiguous(),
            subtracted_MD=None if self.subtracted_MD is None else self.subtracted_MD.contiguous(),
            added_FD=None if self.added_FD is None else self.added_FD.contiguous(),
        )

    def of(self, member: int, latents: slice, added_FD: Tensor | None) -> "RowSums":
        """The rows of one member, with a gradient that came another way."""
        added = [each_FD[latents] for each_FD in (self.added_FD, added_FD) if each_FD is not None]
        return replace(
            self,
            offsets=self.offsets[latents.start : latents.stop + 1],
            factor_F=None if self.factor_F is None else self.factor_F[latents],
            subtracted_MD=None if self.subtracted_MD is None else self.subtracted_MD[member : member + 1],
            added_FD=added[0] + added[1] if len(added) == 2 else added[0] if added else None,
        )


@dataclass(frozen=True)
class AdamStep:
    """The numbers of one update, as Adam's paper has them; `rate` is over one less the first moment's decay."""

    rate: float
    beta1: float
    beta2: float
    eps: float
    root: float
    """The square root of one less the second moment's decay."""


def adam_step(lr: float, beta1: float, beta2: float, eps: float, step: int) -> AdamStep:
    """At a step from 0 on."""
    return AdamStep(lr / (1 - beta1 ** (step + 1)), beta1, beta2, eps, (1 - beta2 ** (step + 1)) ** 0.5)
