"""One member of a group: which trainer has it, and what becomes of it."""

from dataclasses import dataclass, replace

from torch import Tensor

from sae_sweep.activations.stream import Block
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.folder.checkpoints import Checkpoint, SavedMember
from sae_sweep.plan.members import Member
from sae_sweep.plan.milestones import Milestone
from sae_sweep.training.run.checkpoint import Saving, load
from sae_sweep.training.run.trim import mean_l0, trimmed
from sae_sweep.training.step.member import MemberState
from sae_sweep.training.step.trainer import BankTrainer

TRIM_ROWS = 32_768
"""Activations on which the last correction of `sae.l0` is made."""


@dataclass
class Place:
    """One member in the banks: which trainer has it, and where."""

    member: Member
    trainer: BankTrainer
    index: int
    judged_tokens: int = 0
    """Training tokens at its last evaluation."""
    trimmed: dict[str, Tensor] | None = None
    """The tensors of its inference form that the last correction of `sae.l0` changed."""
    l0_untrimmed: float | None = None
    """Its L0 before that."""
    kept_step: int = 0
    """The step of the last milestones that are kept."""

    @property
    def state(self) -> MemberState:
        return self.trainer.states[self.index]

    @property
    def tokens(self) -> int:
        return self.state.tokens

    @property
    def failed(self) -> str | None:
        return self.state.failed

    def spliced(self) -> SplicedSae:
        """The member as it is evaluated now."""
        step, trainer = self.trainer.states[self.index].step, self.trainer
        sae = trainer.inference(self.index)
        if self.trimmed is not None:
            sae = replace(sae, tensors={**sae.tensors, **self.trimmed})
        sae = sae.as_saved()
        site = self.member.site
        reads, beside = site.hook if site.output else None, tuple(other.hook for other in site.beside)
        where = (site.written.hook, sae, step, trainer.batch_size, reads, beside)
        return SplicedSae(self.member.label, *where, self.member.watched)

    def saving(self, lines: int, before: SavedMember | None) -> Saving:
        """The member on its way to a checkpoint; `before` is what the one before holds of it."""
        state, good_step = self.state, before.good_step if before else None
        identity, label = self.member.identity, self.member.label
        place = (state.step, state.blocks, state.dense, state.failed, state.batches, self.judged_tokens, lines)
        return Saving(SavedMember(identity, label, *place, good_step), self.trainer, self.index)

    def restore(self, checkpoint: Checkpoint, saved: SavedMember) -> None:
        """Go on from where a sound checkpoint has it."""
        load(checkpoint, saved, self.trainer, self.index)
        self.state.step, self.state.blocks, self.state.batches = saved.step, saved.blocks, saved.batches
        self.state.dense, self.state.failed, self.judged_tokens = saved.dense, saved.failed, saved.judged_tokens

    @property
    def milestones(self) -> list[int]:
        """Tokens of the milestones that it is at and that are not kept."""
        state = self.state
        if state.failed is not None or state.step == self.kept_step:
            return []
        return [milestone.tokens for milestone in state.member.schedule.milestones_at(state.step)]

    @property
    def behind(self) -> list[Milestone]:
        """The milestones that it is past."""
        return [milestone for milestone in self.member.schedule.milestones if milestone.step < self.state.step]

    @property
    def next_block(self) -> int:
        """The first block it has not trained on."""
        return self.trainer.states[self.index].blocks

    def trim(self, block: Block, rows_at_once: int) -> None:
        """Set its L0 to `sae.l0` on a block of activations, of which it looks at so many together."""
        l0, hook = self.member.config.sae.l0, self.trainer.hook
        if l0 is None:
            return
        before, rows = self.trainer.inference(self.index), slice(0, TRIM_ROWS)
        x_BD = self.trainer.inputs.raw(block, rows).to(before.tensors["W_enc"].dtype)
        tokens_B = block.tokens[hook][rows]
        after = trimmed(before, x_BD, tokens_B, l0, rows_at_once)
        if after is not before:
            self.l0_untrimmed = mean_l0(before, x_BD, tokens_B, rows_at_once)
            self.trimmed = {name: t for name, t in after.tensors.items() if t is not before.tensors[name]}

    @property
    def threshold_mode(self) -> str | None:
        """How the threshold of its final form was found; None where training alone did."""
        return "quantile" if self.trimmed is not None else self.trainer.bank.maths.threshold_mode

    @property
    def due(self) -> bool:
        """Whether `evaluation.every` more tokens have passed."""
        every = self.member.config.evaluation.every
        return every is not None and self.tokens // int(every) > self.judged_tokens // int(every)
