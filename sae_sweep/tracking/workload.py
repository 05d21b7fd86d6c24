"""What a pass has to do, by kinds of work, and how much of its steps is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sae_sweep.kernels.facts import DENSE_ABOVE
from sae_sweep.model.facts import ModelFacts
from sae_sweep.plan.costs import pass_cost
from sae_sweep.plan.flops import encoder_flops, splicing_flops
from sae_sweep.plan.members import Member, sparsity
from sae_sweep.plan.placement import Pass
from sae_sweep.plan.sizes import facts_of_models

DENSE_ENCODERS = 12.0
"""What a dense step takes beyond an encoder product, in such products: chosen among 9, 12 and 15 on recordings of two
runs on SmolLM2, on two cores. Steps that are not dense take as much less as their L0 is lower; a GPU goes dense at
fewer latents than `DENSE_ABOVE` has for a CPU, which is what is taken there too, since no run was recorded on one."""


class Kind(StrEnum):
    """Of work, in the words of the display."""

    MODEL = "model"
    STEPS = "SAEs"
    JUDGING = "judging"


@dataclass(frozen=True)
class StepWork:
    """What the steps of a member take."""

    steps: int
    batch: int
    width: int
    fixed: float
    """Operations of a step, whatever fires."""
    full: float
    """More, of one in which so many latents fire that it goes dense."""
    l0: float | None
    """That it is to end at, where that is known."""

    def flops(self, l0: float | None) -> float:
        """Of a step at an L0; where nobody knows that, of a dense one."""
        return self.fixed + self.full * (1.0 if l0 is None else min(1.0, l0 / (DENSE_ABOVE["cpu"] * self.width)))


@dataclass(frozen=True)
class Workload:
    """What a pass has to do."""

    flops: Mapping[Kind, float]
    """Operations of the model and of judging, near enough that those of one kind can be compared; of synthetic data,
    numbers of activations."""
    blocks: int
    """That are read."""
    judgements: int
    """How often members are judged."""
    read: float
    """Tokens that the model reads."""
    members: Mapping[str, StepWork]
    """By label."""

    @property
    def tokens(self) -> float:
        """That a member is trained on, on average."""
        return sum(one.steps * one.batch for one in self.members.values()) / max(1, len(self.members))


def workload(made: Pass) -> Workload:
    """What a pass has to do, by what its plan says that it costs."""
    cost, members = pass_cost(made), made.group.members
    model, judging = (
        sum(getattr(device, f"{kind}_flops") for device in cost.devices) for kind in ("harvest", "judging")
    )
    flops = {
        Kind.MODEL: max(model, cost.tokens),
        Kind.JUDGING: max(judging, members[0].config.evaluation.tokens),
    }
    models = facts_of_models(made.group)
    steps = {member.label: step_work(member, models) for member in members}
    return Workload(flops, cost.blocks, cost.judgements, cost.tokens, steps)


def step_work(member: Member, models: Sequence[ModelFacts]) -> StepWork:
    """What the steps of a member take: encoder products, what the objective asks of the model, and what fires."""
    sae, batch = member.config.sae, member.config.training.batch_size
    encoder = batch * encoder_flops(member)
    spliced = batch * splicing_flops(member, models[0]) if models else 0.0
    knob, value = sparsity(member.config)
    return StepWork(
        steps=member.schedule.total_steps,
        batch=batch,
        width=member.width,
        fixed=encoder + spliced + sae.step_flops(member.d_out, member.width),
        full=DENSE_ENCODERS * encoder,
        l0=value if knob in ("l0", "k") else None,
    )


class Steps:
    """How far the steps of members are, and what those that are left take."""

    def __init__(self, members: Mapping[str, StepWork]) -> None:
        self._members = members
        self._taken = dict.fromkeys(members, 0)
        self._l0s: dict[str, float] = {}
        self._given_up: set[str] = set()

    def told(self, taken: Mapping[str, int], l0s: Mapping[str, float]) -> float:
        """Take in how many steps members have taken, and L0s of some; operations since it was last told."""
        done, before = 0.0, dict(self._l0s)
        self._l0s |= l0s
        for label, one in self._members.items():
            steps, now = taken.get(label, self._taken[label]), self._l0s.get(label)
            done += (steps - self._taken[label]) * (one.flops(before.get(label, now)) + one.flops(now)) / 2
            self._taken[label] = steps
        return done

    def give_up(self, label: str) -> None:
        """A member that takes no more steps."""
        self._given_up.add(label)

    @property
    def tokens(self) -> float:
        """That a member has consumed, on average."""
        return sum(self._taken[label] * one.batch for label, one in self._members.items()) / max(1, len(self._members))

    @property
    def left(self) -> float:
        """Operations of the steps that are to come: at the L0s that are asked for, or as they are now."""
        return sum(
            (one.steps - self._taken[label]) * one.flops(self._l0s.get(label) if one.l0 is None else one.l0)
            for label, one in self._members.items()
            if label not in self._given_up
        )
