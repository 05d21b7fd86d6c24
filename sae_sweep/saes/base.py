"""What an architecture's maths must say, in its paper's own notation, and what it is given to say it with."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from sae_sweep.architectures.base import SaeConfig
from sae_sweep.kernels.entries import Room
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders.base import Encoder
from sae_sweep.saes.encoders.choose import encoder_of
from sae_sweep.saes.encoders.layered import LayeredEncoder
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.saes.initial import Start
from sae_sweep.saes.layout import Layout
from sae_sweep.saes.spaces import AUTOENCODER, Spaces

Parameters = dict[str, Tensor]
"""Tensors by name. W_enc and W_dec are [F, D], a latent a row (of several layers: `Spaces.layers`); b_dec is [M, D];
the rest are [F]."""


class Objective(Protocol):
    """How far reconstructions are from what they should be: the term of the loss that sparsity is weighed against."""

    @property
    def worth(self) -> float:
        """What it makes of a squared error of 1, on average, where reconstructions are the mean input. Auxiliary
        terms, which are squared errors, are multiplied by it."""

    @property
    def squared_M(self) -> Tensor | None:
        """[M]: the squared errors of what it was last asked about; None where they are what it gave."""

    def loss(self, error_BMD: Tensor) -> Tensor:
        """[M], given reconstruction - target; differentiable in it."""


class SquaredError:
    """Summed over d, averaged over tokens: the objective of every paper whose SAE sees one activation at a time."""

    worth = 1.0
    squared_M = None

    def loss(self, error_BMD: Tensor) -> Tensor:
        """[M]"""
        return squared_error(error_BMD)


@dataclass(frozen=True)
class Clock:
    """Where one member is in its run."""

    step: int
    """From 0."""
    total_steps: int
    seed: int
    sparsity: float = 1.0
    """How far the sparsity warm-up is, from 0 to 1."""


@dataclass(frozen=True)
class Before:
    """The tokens before those of a step, one for each."""

    x_BD: Tensor
    """Inputs as the members see them; of any token where there is none."""
    there_B: Tensor
    """Bool: where there is one that counts."""


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
    """E||y - mean||^2 of the targets, from the calibration block."""
    clocks: tuple[Clock, ...]
    buffers: Parameters
    """Each member's buffers, [M, ...] by name, as the step before left them."""
    spaces: Spaces = AUTOENCODER
    objective: Objective = field(default_factory=SquaredError)
    before: Before | None = None
    """Where the members are trained on pairs (`SaeConfig.pairs`)."""
    room: Room | None = None
    """For the lists of a sparse step on a device that is not to be waited for; None where their lengths are asked."""
    most_dead: tuple[int, ...] | None = None
    """As many latents as can be dead in each member, where that is known without asking the device."""

    def encoder(self, x_BD: Tensor, W_enc: Tensor, bias_F: Tensor | None, b_pre_MD: Tensor | None) -> Encoder:
        """W_enc (x - b_pre) + bias of these members; W_enc x + bias where their spaces have no b_pre; of each layer's
        own x where they have several."""
        if self.spaces.layers > 1:
            return LayeredEncoder(x_BD, W_enc, bias_F, self.layout, self.spaces, self.dense, self.room)
        b_pre_MD = b_pre_MD if self.spaces.pre_bias else None
        return encoder_of(x_BD, W_enc, bias_F, b_pre_MD, self.layout, self.dense, self.room)


@dataclass(frozen=True)
class Losses:
    """Each member's loss terms [M]; what a member minimises is reconstruction + coefficient x sparsity + auxiliary."""

    reconstruction_M: Tensor
    """What the step's objective makes of the error."""
    sparsity_M: Tensor | None
    """The penalty that the coefficient multiplies, averaged over tokens; None where there is none."""
    auxiliary_M: Tensor | None
    fired_F: Tensor
    """[F]: on how many tokens each latent fired."""
    support_F: Tensor
    """[F]: on how many tokens each latent had a gradient; what a sparse step costs."""
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    """The buffers [M, ...] that changed, as this step leaves them."""
    squared_M: Tensor | None = None
    """[M]: the squared errors, where reconstruction_M is something else."""

    def total(self, coefficient_M: Tensor) -> Tensor:
        """[M]"""
        total_M = self.reconstruction_M
        if self.sparsity_M is not None:
            total_M = total_M + coefficient_M * self.sparsity_M
        return total_M if self.auxiliary_M is None else total_M + self.auxiliary_M


class SaeMaths(ABC):
    """One architecture's equations. Stateless: parameters and buffers come in, losses and new buffers go out."""

    unit_decoder: bool
    """Whether decoder rows are kept at unit norm (projected gradients, then renormalised)."""
    threshold_mode: str | None = None
    """How the inference form's threshold was found, where that is not by training: what metrics.json says."""

    @abstractmethod
    def __init__(self, config: SaeConfig):
        """Takes from the config what its bank's members share (`SaeConfig.structure`)."""

    @abstractmethod
    def initialise(self, config: SaeConfig, start: Start, width: int, generator: torch.Generator) -> Parameters:
        """One member's first parameters, float32 on the CPU."""

    def buffers(self, config: SaeConfig) -> Parameters:
        """One member's first buffers: what a step must remember and no gradient trains."""
        return {}

    def measured(self, config: SaeConfig, first: Parameters | None, variance: float) -> dict[str, float]:
        """What keys that are null stand for where inputs say it, by key: of one member that begins with these
        parameters, or where that is None as another ended, on targets of this variance (`Step.variance`)."""
        return {}

    @abstractmethod
    def losses(self, p: Parameters, x_BD: Tensor, target_BMD: Tensor, step: Step) -> Losses:
        """The loss terms of reconstructing the target, [B, M or 1, D], from x; differentiable in the parameters."""

    @abstractmethod
    def fold(self, config: SaeConfig, p: Parameters, buffers: Parameters, scale: float) -> InferenceSae:
        """One member as it is used and saved: for raw activations, with unit decoder rows.

        `p` and `buffers` hold that member's tensors alone (b_dec is [D]); it was trained on `scale` x activations.
        What its spaces add (`Spaces`, a skip) is the bank's to say.
        """

    def unfold(self, sae: InferenceSae, scale: float) -> Parameters:
        """The parameters [F, ...] of a member that `fold` makes this SAE of. Its decoder rows stay at unit norm."""
        p = dict(sae.form.scaled(sae.tensors, scale))
        return {"W_enc": p.pop("W_enc").T.contiguous(), **p}

    @abstractmethod
    def revive(self, p: Parameters, latents: Tensor, directions_KD: Tensor, encoder_norm: Tensor) -> tuple[str, ...]:
        """Set K dead latents of one member anew, in place; the names of the tensors whose rows changed."""

    def row_penalty(self, f_BF: Tensor) -> Tensor:
        """[B]: what the coefficient multiplies, for choosing the inputs that dead latents are set on."""
        return f_BF.sum(1)


def squared_error(error_BMD: Tensor) -> Tensor:
    """[M]: summed over d, averaged over tokens."""
    loss_M: Tensor = _SquaredError.apply(error_BMD)
    return loss_M


def l1_penalty(values: Tensor, codes: Codes, norms_F: Tensor | None, step: Step) -> Tensor:
    """[M]: values, each times the norm of its latent's decoder rows where that is given, summed over latents and
    averaged over tokens."""
    sums_F = codes.latent_sums(values)
    return step.layout.sums(sums_F if norms_F is None else sums_F * norms_F) / codes.tokens


class _SquaredError(torch.autograd.Function):
    """One pass over the errors each way, where `square` and `sum` take six."""

    @staticmethod
    def forward(ctx: Any, error_BMD: Tensor) -> Tensor:
        ctx.save_for_backward(error_BMD)
        return torch.linalg.vector_norm(error_BMD, dim=2).square().sum(0) / len(error_BMD)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g_M,) = gradients
        (error_BMD,) = ctx.saved_tensors
        return (2 / len(error_BMD) * g_M)[:, None] * error_BMD
