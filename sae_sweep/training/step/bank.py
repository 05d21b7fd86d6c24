"""All that training changes of a bank's members: each tensor with who owns it, under one name for all."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sae_sweep.activations.scaling import SiteStatistics, coefficient_scale
from sae_sweep.architectures.maths import maths_of
from sae_sweep.plan.groups import BankPlan
from sae_sweep.plan.members import Member
from sae_sweep.plan.origin import last_coefficient
from sae_sweep.saes.bank import Bank
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.saes.initial import Start
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.initial import beginning
from sae_sweep.training.step.inputs import Inputs
from sae_sweep.training.step.optimizer import Adam
from sae_sweep.training.step.steering import Coefficients


class TrainedBank:
    """A bank's parameters and buffers, their moments, sparsity coefficients, and how long each latent was silent."""

    def __init__(self, plan: BankPlan, calibration: Calibration) -> None:
        """Members as they begin. Raises ConfigError where what one is to begin from cannot be read."""
        first = plan.members[0]
        self.device, self.dtype = calibration.device, calibration.dtype
        self.inputs = Inputs(first, calibration)
        read, written = self.inputs.measured(calibration)
        self.variance = self.inputs.target_scale**2 * written.variance
        """E||y - mean||^2 of what members reconstruct."""
        self.worth = calibration.end_to_end.worth(self.variance) if calibration.end_to_end else 1.0
        """What a squared error of 1 is to the objective."""
        self.units = [_unit(member, written, self.inputs.target_scale) for member in plan.members]
        """Coefficients optimised are the config's times these."""
        self.measured: list[Mapping[str, float]] = []
        """Of each member, what keys of its config that are null stand for where its inputs say it."""
        unigrams = calibration.unigrams_VD
        unigrams_VD = None if unigrams is None else self.inputs.scaled(unigrams).cpu()
        self.bank = self._begun(plan.members, self.inputs.start(read, written), unigrams_VD)
        self.adam = Adam(self.bank)
        penalty = first.config.sae.coefficient()
        self.coefficients = Coefficients(
            [_fixed_coefficient(member, unit) for member, unit in zip(plan.members, self.units, strict=True)],
            [_steered_l0(member) for member in plan.members],
            penalty.degree if penalty else 1.0,
            self.variance,
            self.device,
            self.worth,
            [member.width for member in plan.members],
            penalty.first_share if penalty else 1.0,
        )
        self.silent_F = torch.zeros(self.bank.layout.latents, dtype=torch.int64, device=self.device)
        """[F]: steps since each latent last fired."""

    def _begun(self, members: Sequence[Member], start: Start, unigrams_VD: Tensor | None) -> Bank:
        maths = maths_of(members[0].config.sae)
        initial, buffers = [], []
        for member in members:
            own, kept = beginning(maths, member, start, self.inputs.units, unigrams_VD)
            first = own if member.config.init_from is None else None
            self.measured.append(maths.measured(member.config.sae, first, self.variance))
            initial.append({name: tensor.to(self.device, self.dtype) for name, tensor in own.items()})
            buffers.append({name: tensor.to(self.device, self.dtype) for name, tensor in kept.items()})
        return Bank(maths, [m.config.sae for m in members], initial, buffers, self.inputs.spaces)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that training changes, by name."""
        return {
            **{f"weights/{name}": tensor for name, tensor in self.bank.storage.items()},
            **{f"buffers/{name}": tensor for name, tensor in self.bank.buffers.items()},
            **self.adam.tensors(),
            **self.coefficients.tensors(),
            "silent": self.silent_F,
        }

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Let other tensors take the place of all that `tensors` gives; they may be elsewhere than `device`."""
        for name in self.bank.storage:
            self.bank.storage[name] = tensors[f"weights/{name}"]
        for name in self.bank.buffers:
            self.bank.buffers[name] = tensors[f"buffers/{name}"]
        self.adam.put(tensors)
        self.coefficients.put(tensors)
        self.silent_F = tensors["silent"]

    def state(self, index: int) -> dict[str, Tensor]:
        """The tensors of one member as views, under their names in its checkpoints."""
        return {
            **{f"parameters.{name}": tensor for name, tensor in self.parameters(index).items()},
            **{f"buffers.{name}": tensor[index] for name, tensor in self.bank.buffers.items()},
            **self.adam.state(index),
            **self.coefficients.state(index),
            "silent": self.silent(index),
        }

    def parameters(self, index: int) -> dict[str, Tensor]:
        """Views of one member's parameters."""
        return self.bank.member(self.bank.storage, index)

    def silent(self, index: int) -> Tensor:
        """[F of the member]: steps since each of its latents last fired, a view."""
        return self.silent_F[self.bank.layout.slices[index]]

    def inference(self, index: int) -> InferenceSae:
        """One member as it encodes and decodes raw activations."""
        return self.inputs.folded(self.bank, index)


def _unit(member: Member, statistics: SiteStatistics, scale: float) -> float:
    coefficient = member.config.sae.coefficient()
    return coefficient_scale(coefficient.unit, member.d_out, statistics, scale) if coefficient else 1.0


def _fixed_coefficient(member: Member, unit: float) -> float | None:
    """In the unit of the loss: as the config states it, or where a member that is steered begins from."""
    coefficient, origin = member.config.sae.coefficient(), member.config.init_from
    if coefficient is None:
        return None
    value = coefficient.value
    if value is None and origin is not None and member.config.training.objective in ("local", "kl_mse"):
        value = last_coefficient(origin)
    return None if value is None else value * unit


def _steered_l0(member: Member) -> float | None:
    coefficient = member.config.sae.coefficient()
    return member.config.sae.l0 if coefficient and coefficient.value is None else None
