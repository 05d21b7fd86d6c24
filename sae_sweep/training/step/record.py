"""What a logged step of a member looked like."""

from dataclasses import dataclass, field
from math import nan
from time import time

from torch import Tensor

from sae_sweep.saes.base import Losses
from sae_sweep.training.step.bank import TrainedBank
from sae_sweep.training.step.divergence import divergence
from sae_sweep.training.step.member import TrainedMember


@dataclass(frozen=True)
class StepRecord:
    """What one logged step of one member looked like."""

    label: str
    step: int
    tokens: int
    values: dict[str, float]
    moment: float = field(default_factory=time, compare=False)
    """When it was taken, by the wall clock: no part of a result."""


def recorded(
    own: TrainedBank,
    member: TrainedMember,
    i: int,
    losses: Losses,
    silent_F: Tensor,
    coefficient_M: Tensor,
    l0_M: Tensor,
) -> tuple[StepRecord, str | None]:
    """The step that a member takes, the `i`-th of those whose losses these are and whose latents are silent for so many
    steps after it; and why it has diverged, if it has. It waits for the device."""
    reconstruction, variance = losses.reconstruction_M[i].item(), own.variance
    squared = reconstruction if losses.squared_M is None else losses.squared_M[i].item()
    mean = own.worth * variance  # what it costs that the mean is in the place of activations
    values = {
        "loss": losses.total(coefficient_M)[i].item(),
        "reconstruction": reconstruction,
        "fvu": squared / variance if variance > 0 else nan,
        **({} if losses.squared_M is None else {"unrecovered": reconstruction / mean if mean > 0 else nan}),
        "sparsity": losses.sparsity_M[i].item() if losses.sparsity_M is not None else 0.0,
        "auxiliary": losses.auxiliary_M[i].item() if losses.auxiliary_M is not None else 0.0,
        "l0": l0_M[i].item(),
        "lr": member.schedule.lr_at(member.step),
        "coefficient": coefficient_M[i].item() / member.coefficient_unit,
        "coefficient_optimised": coefficient_M[i].item(),
        "dead_fraction": member.dead_share(silent_F),
    }
    tokens = member.tokens + member.plan.config.training.batch_size
    return StepRecord(member.plan.label, member.step, tokens, values), divergence(values, mean, member.step)
