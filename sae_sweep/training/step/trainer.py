"""One bank in training: its members take their steps over each block of activations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae_sweep.activations.scaling import SiteStatistics, coefficient_scale
from sae_sweep.activations.stream import Block
from sae_sweep.architectures.maths import maths_of
from sae_sweep.kernels.facts import CACHE_BYTES
from sae_sweep.plan.constants import CHUNK_ELEMENTS
from sae_sweep.plan.groups import BankPlan
from sae_sweep.plan.members import Member
from sae_sweep.plan.origin import last_coefficient
from sae_sweep.saes.bank import Bank, Batch, Chunk
from sae_sweep.saes.base import Clock, Losses
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.saes.initial import Start
from sae_sweep.training.step.divergence import divergence
from sae_sweep.training.step.initial import beginning
from sae_sweep.training.step.inputs import Inputs
from sae_sweep.training.step.member import MemberState
from sae_sweep.training.step.objectives import EndToEnd, SplicedLoss
from sae_sweep.training.step.optimizer import Adam
from sae_sweep.training.step.resampling import SAMPLE_ROWS, resample
from sae_sweep.training.step.steering import Coefficients

DENSE_ABOVE = 0.25
"""Share of (token, latent) pairs with a gradient above which a member takes the dense route."""
ROUTE_EVERY = 16
"""Steps between a member's looks at its own density."""


@dataclass(frozen=True)
class StepRecord:
    """What one logged step of one member looked like."""

    label: str
    step: int
    tokens: int
    values: dict[str, float]


class BankTrainer:
    """Trains the members of one bank; `consume` takes every block in turn."""

    def __init__(
        self,
        plan: BankPlan,
        statistics: SiteStatistics,
        device: torch.device,
        dtype: torch.dtype,
        log_every: int,
        unigrams: Tensor | None = None,
        targets: SiteStatistics | None = None,
        beside: Sequence[SiteStatistics] = (),
        end_to_end: EndToEnd | None = None,
    ):
        """`dtype` is that of parameters, moments and arithmetic: float32, or float64 to compare trajectories.

        `statistics` are about the mean for members that centre their inputs; `unigrams` [V, D], the activations a
        lookup starts from, are needed by members with one, `targets` by transcoders: the statistics of what they
        reconstruct, `beside` by crosscoders: those of their other sites; `end_to_end` by members whose objective is
        not local.
        """
        first = plan.members[0]
        self.hook = plan.site.hook
        self.batch_size = first.config.training.batch_size
        self._dtype, self._device, self._log_every = dtype, device, log_every
        sites = (statistics, *beside)
        self.inputs = Inputs(first, sites, targets, device, dtype)
        read, written = self.inputs.measured(sites, targets)
        self.variance = self.inputs.target_scale**2 * written.variance
        self._end_to_end = end_to_end
        self.worth = end_to_end.worth(self.variance) if end_to_end else 1.0
        """What a squared error of 1 is to the objective."""
        self.states = [MemberState(m, _unit(m, written, self.inputs.target_scale)) for m in plan.members]
        self.records: list[StepRecord] = []
        unigrams_VD = None if unigrams is None else self.inputs.scaled(unigrams).cpu()
        self.bank = self._bank(plan.members, self.inputs.start(read, written), unigrams_VD)
        self.adam = Adam(self.bank)
        penalty = first.config.sae.coefficient()
        self.coefficients = Coefficients(
            [_fixed_coefficient(state) for state in self.states],
            [_steered_l0(m) for m in plan.members],
            penalty.degree if penalty else 1.0,
            self.variance,
            device,
            self.worth,
        )
        self.silent_F = torch.zeros(self.bank.layout.latents, dtype=torch.int64, device=device)
        """[F]: steps since each latent last fired."""

    def _bank(self, members: Sequence[Member], start: Start, unigrams_VD: Tensor | None) -> Bank:
        maths = maths_of(members[0].config.sae)
        initial, buffers = [], []
        for member in members:
            own, kept = beginning(maths, member, start, self.inputs.units, unigrams_VD)
            initial.append({name: tensor.to(self._device, self._dtype) for name, tensor in own.items()})
            buffers.append({name: tensor.to(self._device, self._dtype) for name, tensor in kept.items()})
        return Bank(maths, [m.config.sae for m in members], initial, buffers, self.inputs.spaces)

    def _batch(self, block: Block, number: int) -> Batch:
        """The batch of a step: activations in the block's order, or those of whole rows."""
        if self._end_to_end is None:
            return self.inputs.batch(block, slice(number * self.batch_size, (number + 1) * self.batch_size))
        sequences, x_BD, tokens_B = self._end_to_end.batch(block, number)
        objective = SplicedLoss(self._end_to_end, sequences, self.inputs.target_scale, self.worth)
        return Batch(self.inputs.scaled(x_BD), tokens_B, objective=objective)

    @property
    def running(self) -> bool:
        return any(state.running for state in self.states)

    @property
    def cost(self) -> int:
        """Multiply-adds of a batch's encoder products, per token."""
        return sum(state.member.d * state.member.width for state in self.states)

    @property
    def prefers_one_core(self) -> bool:
        """Whether several cores would only wait for each other: on a CPU, where encoders stay in the cache of one. At
        d 64 and 128 a step takes half as long on one as on two; at 256 and 4,096 latents (4 MB) two are faster."""
        largest = max(state.member.d * state.member.width for state in self.states) * self._dtype.itemsize
        return self._device.type == "cpu" and self._end_to_end is None and largest <= CACHE_BYTES

    def steps_in(self, block: Block) -> int:
        """Steps that a member takes on a block, if its budget does not end before."""
        if self._end_to_end is not None:
            return self._end_to_end.steps_in(block)
        return len(block.activations[self.hook]) // self.batch_size

    def consume(self, block: Block, after_step: Callable[[], None]) -> None:
        """Let every member take a step on each whole batch of the block that it has not taken; what is left over is
        not used. At a milestone of a member it ends early, and `after_step` may raise: either way each member goes on
        from there the next time."""
        for state in self.states:
            if state.running and state.blocks != block.index + 1:
                state.blocks, state.batches = block.index + 1, 0
        for number in range(self.steps_in(block)):
            stepping = [i for i, state in enumerate(self.states) if state.running and state.batches == number]
            if not stepping:
                continue
            batch = self._batch(block, number)
            for chunk in self._chunks(stepping):
                self._step(chunk, batch)
            for index in stepping:
                state = self.states[index]
                if state.running and state.step in state.member.schedule.resample_steps:
                    self._resample(index, self.inputs.batch(block, slice(0, SAMPLE_ROWS)))
            if any(self.states[index].at_milestone for index in stepping):
                return
            after_step()

    def _chunks(self, members: Sequence[int]) -> list[Chunk]:
        """Runs of neighbours among these members that take the same route, cut to the size that stays in cache."""
        most = 0 if self.bank.takes_lookup_from_input else CHUNK_ELEMENTS // self.batch_size
        chunks: list[Chunk] = []
        latents = 0
        for index in members:
            state = self.states[index]
            width = state.member.width
            last = chunks[-1] if chunks else None
            if last and last.last == index and last.dense == state.dense and latents + width <= most:
                chunks[-1] = Chunk(last.first, index + 1, state.dense)
                latents += width
            else:
                chunks.append(Chunk(index, index + 1, state.dense))
                latents = width
        return chunks

    def _step(self, chunk: Chunk, batch: Batch) -> None:
        states = self.states[chunk.members]
        schedules = [state.member.schedule for state in states]
        steps = [state.step for state in states]
        clocks = [_clock(state) for state in states]
        ramp_M = batch.x_BD.new_tensor([clock.sparsity for clock in clocks])
        coefficient_M = self.coefficients.value_M[chunk.members].to(self._dtype) * ramp_M
        latents = self.bank.latents(chunk.first, chunk.last)
        losses, gradients = self.bank.gradients(batch, chunk, coefficient_M, self._dead(chunk), self.variance, clocks)
        for index, own, schedule, step in zip(range(chunk.first, chunk.last), gradients, schedules, steps, strict=True):
            self.adam.step(index, own, schedule, step)
        silent_F = self.silent_F[latents]
        silent_F.add_(1).masked_fill_(losses.fired_F > 0, 0)
        widths = [state.member.width for state in states]
        l0_M = _per_token(losses.fired_F, widths, len(batch.x_BD))
        self.coefficients.observe(chunk.members, schedules, steps, l0_M)
        self._look(chunk, losses, coefficient_M, l0_M)
        for state in states:
            state.step += 1
            state.batches += 1

    def _dead(self, chunk: Chunk) -> Tensor:
        """[F of the chunk] bool: latents that count as dead for AuxK."""
        return torch.cat(
            [
                self.silent_F[self.bank.layout.slices[index]] >= self.states[index].dead_steps
                for index in range(chunk.first, chunk.last)
            ]
        )

    def _look(self, chunk: Chunk, losses: Losses, coefficient_M: Tensor, l0_M: Tensor) -> None:
        """At fixed steps only, since reading numbers makes the device wait: routes, log lines, divergence."""
        widths = [state.member.width for state in self.states[chunk.members]]
        for i, index in enumerate(range(chunk.first, chunk.last)):
            state = self.states[index]
            if state.step % ROUTE_EVERY == 0:
                entries = losses.support_F.split(widths)[i].sum().item()
                state.dense = entries > DENSE_ABOVE * state.member.width * self.batch_size
            last = state.step + 1 == state.member.schedule.total_steps
            if state.step % self._log_every == 0 or last:
                self._record(index, i, losses, coefficient_M, l0_M)

    def _record(self, index: int, i: int, losses: Losses, coefficient_M: Tensor, l0_M: Tensor) -> None:
        state = self.states[index]
        values = {
            "loss": losses.total(coefficient_M)[i].item(),
            "reconstruction": losses.reconstruction_M[i].item(),
            "sparsity": losses.sparsity_M[i].item() if losses.sparsity_M is not None else 0.0,
            "auxiliary": losses.auxiliary_M[i].item() if losses.auxiliary_M is not None else 0.0,
            "l0": l0_M[i].item(),
            "lr": state.member.schedule.lr_at(state.step),
            "coefficient": coefficient_M[i].item() / state.coefficient_unit,
            "coefficient_optimised": coefficient_M[i].item(),
            "dead_fraction": self.dead_fraction(index),
        }
        state.failed = divergence(values, self.worth * self.variance, state.step)
        tokens = state.tokens + state.member.config.training.batch_size
        self.records.append(StepRecord(state.member.label, state.step, tokens, values))

    def _resample(self, index: int, batch: Batch) -> None:
        state = self.states[index]
        silent_F = self.silent_F[self.bank.layout.slices[index]]
        dead_F = silent_F >= state.member.schedule.dead_window_steps
        generator = torch.Generator().manual_seed(state.member.config.seed * 1_000_003 + state.step)
        coefficient = self.coefficients.value_M[index].item() / self.worth
        try:
            silent_F[resample(self.bank, self.adam, index, dead_F, batch, coefficient, generator)] = 0
        except FloatingPointError as error:
            state.failed = f"resampling after step {state.step}: {error}"

    def dead_fraction(self, index: int) -> float:
        """Share of a member's latents that did not fire in its dead window."""
        state = self.states[index]
        silent_F = self.silent_F[self.bank.layout.slices[index]]
        return (silent_F * self.batch_size >= state.dead_window_tokens).double().mean().item()

    def coefficient(self, index: int) -> float | None:
        """The sparsity coefficient in force, in the config's unit; None for an architecture without one."""
        state = self.states[index]
        if state.member.config.sae.coefficient() is None:
            return None
        return self.coefficients.value_M[index].item() / state.coefficient_unit

    def inference(self, index: int) -> InferenceSae:
        """A member as it would be saved now."""
        return self.inputs.folded(self.bank, index)

    @property
    def device(self) -> torch.device:
        """Where steps are taken; the tensors may wait elsewhere between blocks."""
        return self._device

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that training changes, by name."""
        return {f"{kind}/{name}": home[name] for kind, (home, names) in self._homes().items() for name in names}

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Let other tensors take the place of those that `tensors` gives."""
        homes = self._homes()
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            homes[kind][0][name] = tensor

    def _homes(self) -> dict[str, tuple[dict[str, Any], tuple[str, ...]]]:
        """Where those tensors are kept, and under which names."""
        kept = {
            "weights": self.bank.storage,
            "buffers": self.bank.buffers,
            "first_moment": self.adam.first_moment,
            "second_moment": self.adam.second_moment,
        }
        return {
            **{kind: (home, tuple(home)) for kind, home in kept.items()},
            "coefficients": (vars(self.coefficients), ("value_M", "smoothed_l0_M")),
            "counters": (vars(self), ("silent_F",)),
        }

    def state(self, index: int) -> dict[str, Tensor]:
        """All that training changes of one member, but for its MemberState: views, so that they can be set."""
        parameters = self.bank.member(self.bank.storage, index)
        return {
            **{f"parameters.{name}": tensor for name, tensor in parameters.items()},
            **{f"buffers.{name}": tensor[index] for name, tensor in self.bank.buffers.items()},
            **self.adam.state(index),
            **self.coefficients.state(index),
            "silent": self.silent_F[self.bank.layout.slices[index]],
        }

    def load(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Set one member to a state that it, or its like, had."""
        for name, tensor in self.state(index).items():
            tensor.copy_(tensors[name])

    def finite(self, index: int) -> bool:
        """Whether a member's parameters are all numbers. It waits for the device."""
        parameters = self.bank.member(self.bank.storage, index)
        return bool(torch.stack([tensor.isfinite().all() for tensor in parameters.values()]).all())


def _clock(state: MemberState) -> Clock:
    schedule = state.member.schedule
    return Clock(state.step, schedule.total_steps, state.member.config.seed, schedule.sparsity_at(state.step))


def _per_token(count_F: Tensor, widths: list[int], tokens: int) -> Tensor:
    """[M] float64: each member's counts, summed and averaged over tokens."""
    return torch.stack([own_F.sum() for own_F in count_F.split(widths)]).double() / tokens


def _unit(member: Member, statistics: SiteStatistics, scale: float) -> float:
    coefficient = member.config.sae.coefficient()
    return coefficient_scale(coefficient.unit, member.d_out, statistics, scale) if coefficient else 1.0


def _fixed_coefficient(state: MemberState) -> float | None:
    """In the unit of the loss: as the config states it, or where a member that is steered begins from."""
    coefficient, origin = state.member.config.sae.coefficient(), state.member.config.init_from
    if coefficient is None:
        return None
    value = coefficient.value
    if value is None and origin is not None and state.member.config.training.objective in ("local", "kl_mse"):
        value = last_coefficient(origin)
    return None if value is None else value * state.coefficient_unit


def _steered_l0(member: Member) -> float | None:
    coefficient = member.config.sae.coefficient()
    return member.config.sae.l0 if coefficient and coefficient.value is None else None
