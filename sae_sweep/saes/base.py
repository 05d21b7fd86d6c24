"""What an architecture's maths must say, in its paper's own notation, and what it is given to say it with."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.saes.codes import Codes, DenseCodes, SparseCodes
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.saes.layout import Layout

Parameters = dict[str, Tensor]
"""Tensors by name. W_enc and W_dec are [F, D], a latent a row; b_dec is [M, D]; the rest are [F]."""


@dataclass(frozen=True)
class Step:
    """What the M members of one step are given beside parameters and inputs."""

    configs: tuple[SaeConfig, ...]
    layout: Layout
    dense: bool
    """Which route the codes take; it changes no result, only what it costs."""
    dead_F: Tensor
    """[F] bool: latents that count as dead."""
    variance: float
    """E||x - mean||^2 of the inputs, from the calibration block."""

    def codes(self, support_BF: Tensor) -> Codes:
        if self.dense:
            return DenseCodes(support_BF, self.layout)
        return SparseCodes.where(support_BF, self.layout)


@dataclass(frozen=True)
class Losses:
    """Each member's loss terms [M]; what a member minimises is reconstruction + coefficient x sparsity + auxiliary."""

    reconstruction_M: Tensor
    """Squared error, summed over d, averaged over tokens."""
    sparsity_M: Tensor | None
    """The penalty that the coefficient multiplies, averaged over tokens; None where there is none."""
    auxiliary_M: Tensor | None
    fired_F: Tensor
    """[F]: on how many tokens each latent fired."""

    def total(self, coefficient_M: Tensor) -> Tensor:
        """[M]"""
        total_M = self.reconstruction_M
        if self.sparsity_M is not None:
            total_M = total_M + coefficient_M * self.sparsity_M
        return total_M if self.auxiliary_M is None else total_M + self.auxiliary_M


class SaeMaths(ABC):
    """One architecture's equations. Stateless: parameters come in, losses go out."""

    unit_decoder: bool
    """Whether decoder rows are kept at unit norm (projected gradients, then renormalised)."""

    @abstractmethod
    def __init__(self, config: SaeConfig):
        """Takes from the config what its bank's members share (`SaeConfig.structure`)."""

    @abstractmethod
    def initialise(self, config: SaeConfig, centre_D: Tensor, width: int, generator: torch.Generator) -> Parameters:
        """One member's first parameters, float32 on the CPU; `centre_D` is the mean of the (scaled) inputs."""

    @abstractmethod
    def losses(self, p: Parameters, x_BD: Tensor, step: Step) -> Losses:
        """The loss terms, differentiable in the parameters."""

    @abstractmethod
    def fold(self, config: SaeConfig, p: Parameters, scale: float) -> InferenceSae:
        """One member as it is used and saved: for raw activations, with unit decoder rows.

        `p` holds that member's tensors alone (b_dec is [D]); it was trained on `scale` x activations.
        """

    @abstractmethod
    def revive(self, p: Parameters, latents: Tensor, directions_KD: Tensor, encoder_norm: Tensor) -> tuple[str, ...]:
        """Set K dead latents of one member anew, in place; the names of the tensors whose rows changed."""


def unit_rows(rows_FD: Tensor) -> Tensor:
    return rows_FD / rows_FD.norm(dim=1, keepdim=True)


def random_unit_rows(width: int, d: int, generator: torch.Generator) -> Tensor:
    return unit_rows(torch.randn(width, d, generator=generator))


def encoder_start(W_dec: Tensor) -> Tensor:
    """W_dec's transpose, scaled so that the first reconstructions are about as large as the inputs.

    F random unit rows d wide, half of them firing, reconstruct F / 2d times a centred input. Papers that start from
    the bare transpose spend their first steps shrinking that; short runs never recover.
    """
    width, d = W_dec.shape
    return min(1.0, 2 * d / width) * W_dec


def squared_error(error_BMD: Tensor) -> Tensor:
    """[M]: summed over d, averaged over tokens."""
    return error_BMD.square().sum(dim=(0, 2)) / error_BMD.shape[0]
