"""Adam on a bank's storage, a member at a time, and the constraint that keeps decoder rows at unit norm."""

from collections.abc import Container, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.linalg import vector_norm

from sae_sweep.kernels import cpu
from sae_sweep.kernels.rows import AdamStep, RowSums, adam_step
from sae_sweep.plan.schedules import Schedule
from sae_sweep.saes.bank import LOOKUP, SKIP, Bank, Gradients, Write
from sae_sweep.saes.base import Parameters

FIXED = {"all": (), "encoder": ("W_dec",), "decoder": ("W_enc",)}
"""By `sae.trained`: the tensors that have no updates."""


class Adam:
    """Moments in the bank's own layout; lr, betas, eps and clip are each member's."""

    def __init__(self, bank: Bank):
        self._bank = bank
        kinds = ("first_moment", "second_moment")
        self.moments = {kind: {name: torch.zeros_like(t) for name, t in bank.storage.items()} for kind in kinds}

    def update(
        self, member: int, found: Gradients, schedule: Schedule, step: int, lost: Tensor | None = None
    ) -> list[Write]:
        """What updates one member at its step `step` (from 0); the gradients that are found are its own and may be
        changed. Where the step is `lost`, nothing else is."""
        weights = self._bank.member(self._bank.storage, member)
        trained = {name: g for name, g in found.items() if name not in self._fixed(member)}
        gradients = {name: g for name, g in trained.items() if isinstance(g, Tensor)}
        sums = {name: g.contiguous() for name, g in trained.items() if isinstance(g, RowSums)}
        if not trained:
            return []
        unit = self._bank.maths.unit_decoder and "W_dec" in gradients
        if unit:
            both = (self._bank.spaces.tables(each["W_dec"]) for each in (gradients, weights))
            for gradient_FD, unit_FD in zip(*both, strict=True):
                remove_radial(gradient_FD, unit_FD)
        lr, scale = schedule.lr_at(step), None
        if schedule.clip:
            scale = clip_norm(gradients, schedule.clip, self._norms(member, sums))
        writes: list[Write] = []
        if sums:
            numbers = adam_step(lr, schedule.beta1, schedule.beta2, schedule.eps, step)
            writes += self._row_updates(member, sums, numbers, scale, lost)
        update = partial(self._update, member, schedule, step, lost)
        own = {name: g for name, g in gradients.items() if name not in (LOOKUP, SKIP)}
        if schedule.bias_lr == 1:
            writes.append(update(own, lr))
        else:
            biases = {name: g for name, g in own.items() if g.dim() == 1}
            writes.append(update(biases, lr * schedule.bias_lr))
            if own.keys() - biases.keys():
                writes.append(update({name: g for name, g in own.items() if name not in biases}, lr))
        if SKIP in gradients:
            # Every input number moves what a skip gives: with so much less for each it moves as b_dec does. With all
            # of lr, short runs diverge.
            writes.append(update({SKIP: gradients[SKIP]}, lr / gradients[SKIP].shape[1]))
        if LOOKUP in gradients:  # its own lr, on the member's schedule
            lookup_lr = lr * self._bank.configs[member].lookup_lr / schedule.lr
            writes.append(update({LOOKUP: gradients[LOOKUP]}, lookup_lr))
        if unit:
            for rows_FD in self._bank.spaces.tables(weights["W_dec"]):
                writes.append(partial(normalise_rows, rows_FD, rows_FD.new_empty(len(rows_FD), 1), lost))
        return writes

    def _norms(self, member: int, sums: Mapping[str, RowSums]) -> list[Tensor]:
        """Of gradients that are not made."""
        if not sums:
            return []
        from sae_sweep.kernels.cuda import updating

        weights = self._bank.member(self._bank.storage, member)
        squares = [updating.squared_norms(one, weights[name], self._unit(name)) for name, one in sums.items()]
        return [each.sum().sqrt() for each in squares]

    def _row_updates(
        self,
        member: int,
        sums: Mapping[str, RowSums],
        numbers: AdamStep,
        scale: Tensor | None,
        lost: Tensor | None,
    ) -> list[Write]:
        """What updates the weights whose gradients are not made."""
        from sae_sweep.kernels.cuda import updating

        weights = self._bank.member(self._bank.storage, member)
        m1, m2 = (self._bank.member(moment, member) for moment in self.moments.values())
        any_weight = next(weights[name] for name in sums)
        scale = any_weight.new_ones(()) if scale is None else scale
        lost = any_weight.new_zeros((), dtype=torch.bool) if lost is None else lost
        return [
            partial(updating.update, one, weights[n], (m1[n], m2[n]), numbers, scale, lost, self._unit(n))
            for n, one in sums.items()
        ]

    def _unit(self, name: str) -> bool:
        return name == "W_dec" and self._bank.maths.unit_decoder

    def _fixed(self, member: int) -> Container[str]:
        """The names of a member's tensors that stay as they began (`sae.trained`)."""
        trained = self._bank.configs[member].trained
        return self._bank.storage if trained == "none" else FIXED[trained]

    def _update(
        self, member: int, schedule: Schedule, step: int, lost: Tensor | None, gradients: Parameters, lr: float
    ) -> Write:
        weights = self._bank.member(self._bank.storage, member)
        m1, m2 = (self._bank.member(moment, member) for moment in self.moments.values())
        return partial(
            torch._fused_adam_,  # what torch.optim.adam does more takes memory, and none of it is of use here
            [weights[name] for name in gradients],
            # Fused on a CPU it goes over memory as if all had one layout, and autograd may hand back a transpose.
            [gradient.contiguous() for gradient in gradients.values()],
            [m1[name] for name in gradients],
            [m2[name] for name in gradients],
            [],
            list(torch.full((len(gradients),), float(step + 1), device=weights["b_dec"].device)),
            amsgrad=False,
            beta1=schedule.beta1,
            beta2=schedule.beta2,
            lr=lr,
            weight_decay=0.0,
            eps=schedule.eps,
            maximize=False,
            found_inf=None if lost is None else lost.float(),  # with which torch's own kernel changes nothing
        )

    def tensors(self) -> dict[str, Tensor]:
        """All moments, by name."""
        return {f"{kind}/{name}": t for kind, moment in self.moments.items() for name, t in moment.items()}

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Let other tensors take the place of the moments, under the names of `tensors`."""
        for kind, moment in self.moments.items():
            for name in moment:
                moment[name] = tensors[f"{kind}/{name}"]

    def state(self, member: int) -> dict[str, Tensor]:
        """One member's moments, as views."""
        return {
            f"{kind}.{name}": tensor
            for kind, moment in self.moments.items()
            for name, tensor in self._bank.member(moment, member).items()
        }

    def forget(self, member: int, latents: Tensor, names: tuple[str, ...]) -> None:
        """Zero the moments of some latents of one member, as after resampling them."""
        own = [self._bank.member(moment, member) for moment in self.moments.values()]
        found = [pair for moment in own for pair in self._bank.rows(moment, latents, names)]
        for rows, own_K in found:  # memory may have been short until here
            rows.index_fill_(0, own_K, 0)


def remove_radial(gradient_FD: Tensor, unit_FD: Tensor) -> None:
    """Take out, in place, the component of each row's gradient along that (unit-norm) row.

    Before Adam, so that its moments never see it (Bricken et al. 2023, appendix).
    """
    if gradient_FD.device.type == "cpu":
        cpu.loops.remove_radial(gradient_FD.numpy(), unit_FD.numpy())
        return
    radial_F = (gradient_FD * unit_FD).sum(dim=1, keepdim=True)
    gradient_FD.addcmul_(radial_F, unit_FD, value=-1)


def normalise_rows(rows_FD: Tensor, norm_F1: Tensor, lost: Tensor | None = None) -> None:
    """Rows to unit norm, in place; a zero row stays zero, and all do in a step that is `lost`. `norm_F1` is room."""
    vector_norm(rows_FD, dim=1, keepdim=True, out=norm_F1)
    norm_F1.clamp_(min=torch.finfo(rows_FD.dtype).tiny)
    rows_FD.div_(norm_F1 if lost is None else norm_F1.masked_fill_(lost, 1.0))


def clip_norm(gradients: Parameters, limit: float, others: Sequence[Tensor] = ()) -> Tensor:
    """Scale gradients, in place, so that their joint norm, with that of `others`, is at most `limit`; by what."""
    total = vector_norm(torch.stack([*(vector_norm(gradient) for gradient in gradients.values()), *others]))
    factor = (limit / (total + 1e-6)).clamp(max=1.0)
    for gradient in gradients.values():
        gradient.mul_(factor)
    return factor
