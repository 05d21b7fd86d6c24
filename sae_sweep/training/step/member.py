"""One SAE of a sweep while it is trained: what trains, is saved, restored, judged and reported of it."""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from errno import EIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.evaluation.places import at_site
from sae_sweep.folder.checkpoints import Damaged, MemberRecord
from sae_sweep.folder.files import open_to_others
from sae_sweep.folder.storage import number_of
from sae_sweep.plan.members import Member
from sae_sweep.plan.milestones import Milestone
from sae_sweep.plan.schedules import Schedule
from sae_sweep.saes.base import Clock
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.step.bank import TrainedBank
from sae_sweep.training.step.steering import LATER

DEAD_WINDOW_TOKENS = 10_000_000
"""A latent is dead when it has not fired for this many tokens, or a quarter of the run where that is less."""
DTYPES = {"F64": "torch.float64", "F32": "torch.float32", "BF16": "torch.bfloat16", "I64": "torch.int64"}


def write_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write a member's tensors under their names. Raises OSError."""
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, file)
    except SafetensorError as error:
        number = number_of(error) or EIO
        raise OSError(number, os.strerror(number), str(file)) from error
    open_to_others(file)


class TrainedMember:
    """A member: its plan, where it is in its run, and its tensors, which are views of its bank's."""

    def __init__(self, plan: Member, bank: TrainedBank, index: int) -> None:
        self.plan = replace(plan, measured=bank.measured[index])
        self._bank, self._index = bank, index
        self.step = 0
        self.blocks = 0
        """Blocks it has seen, the one it is in among them: the index of the first it has not trained on."""
        self.batches = 0
        """Batches of the block it is in that it has taken."""
        self.dense = True
        """Whether it takes the dense route."""
        self.entries = 0
        """(Token, latent) pairs with a gradient when it last looked."""
        self.most_dead = 0
        """As many latents as can be dead before it looks again."""
        self.crowd = 1
        """Times the room that its lists were expected to need."""
        self.failed: str | None = None
        """Why it is given up, in one line."""
        self.judged_tokens = 0
        """Training tokens at its last evaluation."""
        self.kept_step = 0
        """The step of the last milestones that are kept."""
        self.trimmed: dict[str, Tensor] = {}
        """The tensors of its inference form that the last correction of `sae.l0` changed."""
        self.l0_untrimmed: float | None = None
        """Its L0 before that; none too where there was nothing to change."""
        self._finite: tuple[int, bool] | None = None
        """At which step its parameters were last looked at, and whether they were all numbers."""
        self.corrected = not plan.config.sae.corrected
        """Whether the last correction of `sae.l0` was made, or none is due."""

    def numbers(self) -> dict[str, Any]:
        """Where it is in its run, under the names of state.json."""
        return {
            "step": self.step,
            "blocks": self.blocks,
            "batches": self.batches,
            "dense": self.dense,
            "entries": self.entries,
            "most_dead": self.most_dead,
            "crowd": self.crowd,
            "failed": self.failed,
            "judged_tokens": self.judged_tokens,
        }

    def load_numbers(self, numbers: Mapping[str, Any]) -> None:
        """Be where `numbers` say in the run; its tensors stay."""
        self.step, self.blocks, self.batches = numbers["step"], numbers["blocks"], numbers["batches"]
        self.dense, self.failed, self.judged_tokens = numbers["dense"], numbers["failed"], numbers["judged_tokens"]
        self.entries, self.most_dead, self.crowd = numbers["entries"], numbers["most_dead"], numbers["crowd"]

    def tensors(self) -> dict[str, Tensor]:
        """All that training changes of it beside numbers: views, under the names of a checkpoint's file."""
        return self._bank.state(self._index)

    def state_dict(self) -> dict[str, Any]:
        """All that training changes of it: numbers, and views of tensors."""
        return {**self.numbers(), **self.tensors()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be as it, or its like, was: a `state_dict` is copied into its numbers and tensors."""
        self.load_numbers(state)
        self._finite = None
        for name, tensor in self.tensors().items():
            tensor.copy_(state[name])

    def record(self, lines: int, good_step: int | None) -> MemberRecord:
        """What state.json says of it, whose metrics.jsonl has `lines` bytes and which was finite at `good_step`."""
        return MemberRecord(self.plan.identity, self.plan.label, lines=lines, good_step=good_step, **self.numbers())

    def save(self, file: Path) -> None:
        """Write its tensors. Raises OSError."""
        write_tensors(self.tensors(), file)

    def restore(self, record: MemberRecord, file: Path) -> None:
        """Go on from where a sound checkpoint has it; what an older one lacks stays as it is."""
        self.load_state_dict({**self.tensors(), **asdict(record), **load_file(file)})

    def check(self, file: Path) -> None:
        """Raises Damaged where a file's tensors are not of the names, shapes and dtypes that it has."""
        label, expected = self.plan.label, self.tensors()
        try:
            with safe_open(file, framework="pt") as opened:
                found = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
                if not expected.keys() - LATER <= found.keys() <= expected.keys():
                    raise Damaged(f"{label}: its tensors have other names")
                for name in found:
                    tensor = expected[name]
                    shape, dtype = tuple(found[name].get_shape()), DTYPES.get(found[name].get_dtype())
                    if (shape, dtype) != (tuple(tensor.shape), str(tensor.dtype)):
                        raise Damaged(f"{label}: {name} is {dtype} {shape}")
        except (OSError, SafetensorError) as error:
            raise Damaged(f"{label}: {error}") from error

    def go_by(self, entries: int, most_dead: int, dense: bool) -> None:
        """Take steps by what was seen when it last looked, from here on."""
        self.entries, self.most_dead, self.dense = entries, most_dead, dense

    @property
    def schedule(self) -> Schedule:
        return self.plan.schedule

    @property
    def running(self) -> bool:
        return self.failed is None and self.step < self.schedule.total_steps

    @property
    def tokens(self) -> int:
        """That it has trained on."""
        return self.step * self.plan.config.training.batch_size

    @property
    def clock(self) -> Clock:
        """What its maths may know of where it is."""
        schedule = self.schedule
        return Clock(self.step, schedule.total_steps, self.plan.config.seed, schedule.sparsity_at(self.step))

    @property
    def milestones(self) -> list[int]:
        """Tokens of the milestones that it is at."""
        if self.failed is not None:
            return []
        return [milestone.tokens for milestone in self.schedule.milestones_at(self.step)]

    @property
    def unkept(self) -> list[int]:
        """Those of them that are not kept."""
        return [] if self.step == self.kept_step else self.milestones

    @property
    def behind(self) -> list[Milestone]:
        """The milestones that it is past."""
        return [milestone for milestone in self.schedule.milestones if milestone.step < self.step]

    @property
    def due(self) -> bool:
        """Whether `evaluation.every` more tokens have passed."""
        every = self.plan.config.evaluation.every
        return every is not None and self.tokens // int(every) > self.judged_tokens // int(every)

    @property
    def dead_window_tokens(self) -> int:
        return min(DEAD_WINDOW_TOKENS, max(1, int(self.plan.config.training.tokens) // 4))

    @property
    def dead_steps(self) -> int:
        """Steps without firing after which the maths may treat a latent as dead; at most a quarter of the run."""
        config = self.plan.config
        most = max(1, self.schedule.total_steps // 4)
        tokens = min(config.sae.dead_after(), most * config.training.batch_size)
        return max(1, int(tokens) // config.training.batch_size)

    @property
    def dead_fraction(self) -> float:
        """Share of its latents that did not fire in its dead window. It waits for the device."""
        return self.dead_share(self.silent_F)

    def dead_share(self, silent_F: Tensor) -> float:
        """The same, were its latents silent for so many steps."""
        tokens_F = silent_F * self.plan.config.training.batch_size
        return (tokens_F >= self.dead_window_tokens).double().mean().item()

    @property
    def silent_F(self) -> Tensor:
        """[F]: steps since each of its latents last fired, a view."""
        return self._bank.silent(self._index)

    @property
    def coefficient_unit(self) -> float:
        """Coefficient optimised = coefficient in the config's unit times this."""
        return self._bank.units[self._index]

    @property
    def coefficient(self) -> float | None:
        """The sparsity coefficient in force, in the config's unit; None for an architecture without one."""
        if self.plan.config.sae.coefficient() is None:
            return None
        return self._bank.coefficients.value_M[self._index].item() / self.coefficient_unit

    @property
    def finite(self) -> bool:
        """Whether its parameters are all numbers at this step. It waits for the device, once for each step."""
        if self._finite is None or self._finite[0] != self.step:
            parameters = self._bank.parameters(self._index)
            found = torch.stack([tensor.isfinite().all() for tensor in parameters.values()]).all()
            self._finite = (self.step, bool(found))
        return self._finite[1]

    @property
    def on_gpu(self) -> bool:
        """Whether it is trained on a GPU, wherever it waits."""
        return self._bank.device.type == "cuda"

    @property
    def input_scales(self) -> list[float]:
        """What activations are multiplied by where it is trained on them, of each site that it reads."""
        return self._bank.inputs.scales

    @property
    def threshold_mode(self) -> str | None:
        """How the threshold of its final form was found; None where training alone did."""
        return "quantile" if self.trimmed else self._bank.bank.maths.threshold_mode

    def inference(self) -> InferenceSae:
        """The member as it would be saved now."""
        sae = self._bank.inference(self._index)
        return replace(sae, tensors={**sae.tensors, **self.trimmed}) if self.trimmed else sae

    def spliced(self) -> SplicedSae:
        """The member as it is evaluated now."""
        sae, site = self.inference().as_saved(), self.plan.site
        so_far = (self.step, self.plan.config.training.batch_size)
        return at_site(SplicedSae(self.plan.label, site.hook, sae, *so_far, watched=self.plan.watched), site)

    def raw(self, block: Block, rows: slice) -> tuple[Tensor, Tensor]:
        """Activations [B, D] of a block as its inference form reads them, and their tokens [B]."""
        return self._bank.inputs.raw(block, rows)
