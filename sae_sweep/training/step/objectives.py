"""Objectives that judge a reconstruction by what the rest of the model makes of it (`training.objective`).

With y the clean model's predictions and y_hat those with the reconstruction x_hat spliced in at the site:

    e2e             k KL(y || y_hat)
    e2e_downstream  k KL(y || y_hat) + b / n sum_j mean_d (a_hat_j - a_j)^2     a_j: n later residual sites, clean
    kl_mse          (||x - x_hat||^2 + k m KL(y || y_hat)) / (1 + k)            m = sg(||x - x_hat||^2 / KL)

e2e and e2e_downstream are Braun et al. 2024 (arXiv 2405.12241) as their code has them; k is `training.kl_coefficient`
and b `training.downstream_coefficient`. kl_mse is for fine-tuning (Karvonen 2025, arXiv 2503.17272): m keeps both terms
equally large, so that the rest of the loss needs no other coefficients. KL is averaged over the positions where
evaluation compares predictions, squared errors over the counted positions, which are the spliced ones.

A reconstruction's gradient comes back from the model as numbers; what is below it goes on as if the loss were local.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.sequences import Sequences
from sae_sweep.config.schema import TrainingConfig
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.tiles import kl_and_gradient
from sae_sweep.kernels.device import moved
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.suffix import Suffix
from sae_sweep.saes.base import squared_error
from sae_sweep.saes.taking import taken

CALIBRATION_ROWS = 32
"""Of the first block: those on which it is measured what predicting the mean costs."""


class Splicing:
    """One model whose suffix passes banks take turns in: a pass changes modules for as long as it lasts."""

    def __init__(self, model: LanguageModel, hooks: Sequence[str], rows_at_once: int, read: Sequence[str] = ()) -> None:
        """`hooks`: every site that is spliced or looked at. Raises ConfigError for one that cannot be. Clean passes
        record the hooks of `read` too."""
        self.model, self.suffix, self.rows_at_once = model, Suffix(model, hooks, read), rows_at_once
        self.turn = Lock()


@dataclass(frozen=True)
class Terms:
    """What splicing costs, and the gradients [B, d] in what was spliced in."""

    kl: Tensor
    """Nats, averaged over target positions."""
    downstream: Tensor
    """Averaged over later sites, counted positions and d; 0 without later sites."""
    gradient_BD: Tensor
    """Of k KL + b downstream; zeros where none was asked for."""


class EndToEnd:
    """The objective of one bank; `batch` binds it to the rows of a step."""

    def __init__(self, splicing: Splicing, hook: str, later: Sequence[str], config: TrainingConfig, rows: int) -> None:
        """`rows` of a step, and `later` the hooks where e2e_downstream compares."""
        self._splicing, self.hook, self._later, self._rows = splicing, hook, tuple(later), rows
        self._balanced = config.objective == "kl_mse"
        self._kl, self._downstream = config.kl_coefficient, config.downstream_coefficient
        self._name = config.objective
        self._mean_loss: float | None = None

    def calibrate(self, block: Block, mean_D: Tensor) -> None:
        """Measure what reconstructing the mean costs, which is what `worth` is in units of."""
        if self._balanced:
            return
        sequences = self._sequences(block).rows(slice(0, CALIBRATION_ROWS))
        x_BD = _counted(sequences, self.hook)[0]
        terms = self.terms(sequences, mean_D.to(x_BD).expand_as(x_BD), differentiate=False)
        self._mean_loss = float(self._kl * terms.kl + self._downstream * terms.downstream)
        if not self._mean_loss > 0:
            raise ConfigError(
                f"training.objective={self._name}: the model predicts the same whether {self.hook} holds its activation"
                " or their mean; take another site"
            )

    def worth(self, variance: float) -> float:
        """What a squared error of 1 costs where reconstructions are the mean of inputs with this variance."""
        return 1.0 if self._mean_loss is None else self._mean_loss / variance

    def steps_in(self, block: Block) -> int:
        """Batches of whole rows in a block, without those in which nothing counts: a batch of them would be none."""
        counting_N = self._sequences(block).counting(self.hook)
        return len(self._sequences(block) if counting_N is None else counting_N) // self._rows

    def batch(self, block: Block, number: int) -> tuple[Sequences, Tensor, Tensor]:
        """The rows of a step, and their counted activations [B, d] and tokens [B]."""
        own = slice(number * self._rows, (number + 1) * self._rows)
        counting_N = self._sequences(block).counting(self.hook)
        rows = self._sequences(block).rows(own if counting_N is None else counting_N[own])
        return rows, *_counted(rows, self.hook)

    @staticmethod
    def _sequences(block: Block) -> Sequences:
        assert block.sequences is not None
        return block.sequences

    def loss(self, sequences: Sequences, error_BD: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """What one member's error, at `scale` times the activations, costs; and the gradient in it."""
        x_BD = _counted(sequences, self.hook)[0].to(error_BD.dtype)
        terms = self.terms(sequences, x_BD + error_BD / scale)
        value = self._kl * terms.kl + self._downstream * terms.downstream
        gradient_BD = terms.gradient_BD / scale
        if not self._balanced:
            return value, gradient_BD
        tokens = max(1, len(error_BD))
        squared = error_BD.square().sum() / tokens
        multiple = torch.where(terms.kl > 0, squared / terms.kl, 0.0)
        share = 1 / (1 + self._kl)
        return share * (squared + multiple * value), share * (2 / tokens * error_BD + multiple * gradient_BD)

    def terms(self, sequences: Sequences, spliced_BD: Tensor, *, differentiate: bool = True) -> Terms:
        """Splice these activations in at the counted positions of some rows, a few rows at a time."""
        targets, counts = max(1, int(sequences.targets(self.hook).sum())), max(1, len(spliced_BD))
        kl = downstream = spliced_BD.new_zeros(())
        gradients, done = [], 0
        for first in range(0, len(sequences), self._splicing.rows_at_once):
            rows = sequences.rows(slice(first, first + self._splicing.rows_at_once))
            count = int(rows.counted(self.hook).sum())
            own_bD = spliced_BD[done : done + count].detach()
            with self._splicing.turn, torch.set_grad_enabled(differentiate):
                spliced = _SplicedRows(self, rows, own_bD.requires_grad_(differentiate))
                kl, downstream = kl + spliced.kl, downstream + spliced.downstream
                gradients.append(spliced.gradient(self._kl / targets, self._downstream / counts))
            done += count
        return Terms(kl / targets, downstream / counts, torch.cat(gradients))

    def run(self, sequences: Sequences, spliced_RTd: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Final hidden states [R, T, D], and activations [R, T, d] at the later sites, by hook."""
        return self._splicing.suffix.run_watching(self.hook, sequences.clean, spliced_RTd, self._later)

    @property
    def model(self) -> LanguageModel:
        """The one that is spliced."""
        return self._splicing.model


class _SplicedRows:
    """Some rows with a reconstruction in place: sums over their positions, and the way back."""

    def __init__(self, of: EndToEnd, rows: Sequences, own_bD: Tensor) -> None:
        self._own_bD = own_bD
        own_RTd = rows.clean.activations[of.hook]
        places_b = _places(rows.counted(of.hook), own_RTd.device)
        flat_PD = own_RTd.flatten(0, 1).index_copy(0, places_b, own_bD.to(own_RTd.dtype))
        final_RTD, later = of.run(rows, flat_PD.view_as(own_RTd))
        targets_N = _places(rows.targets(of.hook), own_RTd.device)
        clean_ND = rows.clean.final_RTD.flatten(0, 1).index_select(0, targets_N)
        self._final_ND = taken(final_RTD.flatten(0, 1), targets_N, once=True)
        kl, self._kl_gradient_ND = kl_and_gradient(of.model, clean_ND, self._final_ND.detach())
        self.kl = kl.to(own_bD.dtype)
        self._changes = [
            taken((after_RTd - rows.clean.activations[hook]).flatten(0, 1), places_b, once=True)
            for hook, after_RTd in later.items()
        ]
        means = [change_bD.detach().to(own_bD.dtype).square().mean(1).sum() for change_bD in self._changes]
        self.downstream = torch.stack(means).mean() if means else own_bD.new_zeros(())

    def gradient(self, kl: float, downstream: float) -> Tensor:
        """[b, d]: of both sums with these coefficients; zeros where no gradient was asked for."""
        if not self._own_bD.requires_grad:
            return torch.zeros_like(self._own_bD)
        # Coefficients come last: divided by the number of positions first, a half-precision number would vanish.
        ratio = downstream / kl
        pulls = [
            2 * ratio / (len(self._changes) * change_bD.shape[1]) * change_bD.detach() for change_bD in self._changes
        ]
        outputs, pulls = [self._final_ND, *self._changes], [self._kl_gradient_ND.to(self._final_ND.dtype), *pulls]
        (gradient_bD,) = torch.autograd.grad(outputs, [self._own_bD], pulls)
        return kl * gradient_bD


@dataclass
class SplicedLoss:
    """The objective of one step of a bank, on its rows."""

    of: EndToEnd
    sequences: Sequences
    scale: float
    """Inputs are this times the activations."""
    worth: float
    squared_M: Tensor | None = field(default=None, init=False)
    """[M]: the squared errors of the members that were last asked about."""

    def loss(self, error_BMD: Tensor) -> Tensor:
        """[M]: a suffix pass forth and back for each member."""
        self.squared_M = squared_error(error_BMD.detach())
        found = [self.of.loss(self.sequences, error_BD, self.scale) for error_BD in error_BMD.detach().unbind(1)]
        values, gradients = zip(*found, strict=True)
        loss_M: Tensor = _Known.apply(error_BMD, torch.stack(values), torch.stack(gradients, dim=1))
        return loss_M


class _Known(torch.autograd.Function):
    """Losses [M] whose gradients are there already."""

    @staticmethod
    def forward(ctx: Any, error_BMD: Tensor, loss_M: Tensor, gradient_BMD: Tensor) -> Tensor:
        ctx.save_for_backward(gradient_BMD)
        return loss_M.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (g_M,) = gradients
        (gradient_BMD,) = ctx.saved_tensors
        return g_M[:, None] * gradient_BMD, None, None


def _counted(sequences: Sequences, hook: str) -> tuple[Tensor, Tensor]:
    """Activations [B, d] and tokens [B] of the counted positions."""
    own_RTd = sequences.clean.activations[hook]
    places_B = _places(sequences.counted(hook), own_RTd.device)
    tokens_B = sequences.clean.tokens_RT.flatten().index_select(0, places_B)
    return own_RTd.flatten(0, 1).index_select(0, places_B), tokens_B


def _places(mask_RT: Tensor, device: torch.device) -> Tensor:
    """Where a mask is true, in the flattened rows. Found on the CPU: no device has to wait for the number."""
    return moved(mask_RT.flatten().nonzero().squeeze(1), device)
