"""The pass of one group over its stream: where blocks, banks, evaluation, tracking and files meet."""

from collections.abc import Mapping
from contextlib import closing
from functools import partial

from sae_sweep.activations.block import Block
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import Evaluator
from sae_sweep.folder.sweep import MemberResult, SweepFolder
from sae_sweep.host.memory import give_back
from sae_sweep.host.signals import Interrupted, Stop
from sae_sweep.plan.groups import Group
from sae_sweep.tracking.described import member_run
from sae_sweep.tracking.progress import Progress
from sae_sweep.tracking.sweep_run import SweepRun
from sae_sweep.tracking.tracker import Tracker
from sae_sweep.training.devices.lanes import Lanes
from sae_sweep.training.devices.ranks import ALONE, Ranks, nothing
from sae_sweep.training.devices.waves import Waves
from sae_sweep.training.run.blocks import Blocks
from sae_sweep.training.run.checkpointing import Keeper
from sae_sweep.training.run.judging import Judging
from sae_sweep.training.run.sources import Source
from sae_sweep.training.run.work import Reached, Work, places

BLOCKS_WITHOUT_STEP = 10
"""A stream whose blocks stay smaller than a batch this often would run the model for ever."""


class GroupRun:
    """The pass over the stream, and what is written on the way and at its end."""

    def __init__(
        self,
        group: Group,
        source: Source,
        waves: Waves,
        evaluators: Mapping[str, Evaluator],
        first: Block,
        progress: Progress,
        stamp: str = "",
        ranks: Ranks = ALONE,
    ):
        """`first` is the stream's first block, `stamp` says which stream it is: a checkpoint of another is of no use.
        `group` is that of all ranks, `waves` and `evaluators` are this one's."""
        self.source, self._ranks, self._progress = source, ranks, progress
        self._group, self._waves, self._stamp = group, waves, stamp
        self._blocks = Blocks(source, waves, ranks, first, progress.message)
        self._judging = Judging(waves, evaluators, self._blocks, source.metadata())
        self._members = waves.members
        self._block = 0
        """The block that comes next, or that the trainers are in."""
        self._empty = 0
        """Blocks in a row without a batch."""
        self._apart = ranks.alone
        """Whether nobody waits for this rank, so that it may end at any point between two steps."""

    def run(
        self, folder: SweepFolder, stop: Stop | None = None, sweep: SweepRun | None = None
    ) -> dict[str, MemberResult]:
        """Train all members to their budgets, then judge and save them; results by label. `sweep` is told of all.

        Members that have a checkpoint go on from it. Told to stop, it leaves one and raises Interrupted.
        """
        self._ranks.shared(lambda: folder)
        with self._ranks.together():
            return self._run(folder, stop or Stop(), sweep)

    def follow(self, stop: Stop) -> None:
        """The same, as another rank than the first, of this rank's members."""
        self._run(self._ranks.shared(nothing), stop)

    def _run(self, folder: SweepFolder, stop: Stop, sweep: SweepRun | None = None) -> dict[str, MemberResult]:
        members, own = self._group.members, [member.plan for member in self._members]
        config = members[0].config
        keeper, reached = Keeper(folder, self._group, self._members, self._ranks), Reached(self._group, self._members)
        if (checkpoint := keeper.resume(self._stamp)) is not None:
            self._block = checkpoint.block
            reached.hear({record.label: record.step for record in checkpoint.members})
        for member in own:
            if member.measured:  # which was not known when config.yaml was written
                folder.write_config(member)
        tracked = [member_run(member, config.tracking) for member in own]
        tracker = Tracker(folder.root, config.name, config.tracking, tracked, reached.own)
        with stop.at_once(False), closing(self._blocks):
            try:
                keeper.begin(tracker, reached.tokens)
                self._progress.begin(places(self._group), reached.steps, self._block)
                work = Work(folder, tracker, self._progress, stop, keeper, self._ranks, reached, sweep=sweep)
                return self._work(work)
            finally:
                tracker.close()
                keeper.settle()

    def _work(self, work: Work) -> dict[str, MemberResult]:
        work.keeper.say = work.progress.message
        if not self.source.replays:
            work.progress.message("no checkpoints are kept: the activations come once, so who is stopped begins anew")
        try:
            for member in self._members:
                work.note(member.plan.label, f"training begins: {member.plan.words}")
            with Lanes(self._waves.trainers) as lanes:
                self._train(lanes, work)
            if (account := self.source.account(self._block)) is not None:
                work.progress.message(account)
                work.note_all(account)
            give_back()  # a judge's pieces are of other sizes than a step's
            work.note_all("training has ended")
            try:
                results = self._judging.finish(self._members, work, partial(self._judged, work, True), self._go_apart)
            except Exception:
                self._keep_alone(work)
                raise
            for label, result in results.items():
                work.note(label, _judgement(result))
        except Interrupted as interrupted:
            if self._ranks.alone or not self._apart:
                self._checkpoint(work)
            work.progress.message(f"{interrupted.name}: {work.keeper.kept()}; the same command goes on from there")
            raise
        everyone = {label: result for own in self._ranks.exchange(results) for label, result in own.items()}
        for label, result in everyone.items():
            if label not in results and result.metrics is not None:  # its own rank has told of it, but not the sweep
                work.judged(label, result.metrics)
        return everyone

    def _train(self, lanes: Lanes, work: Work) -> None:
        self._keep_milestones(work)  # at which it was interrupted
        while self._ranks.any(self._waves.running):
            with work.stop.at_once(self._ranks.alone):
                try:
                    block = self._blocks.block(self._block)
                except Exception:  # bad data far into a source, say: what was trained is not lost with it
                    self._keep_alone(work)
                    raise
                work.progress.given(self._block)
                self._judging.correct(self._members, block, work)
            said = self._ranks.exchange((self._needed_after(block), self._blocks.pays_ahead(self._block + 1)))
            if any(needed for needed, _ in said) and all(pays for _, pays in said):
                self._blocks.announce(self._block + 1)
            self._consume(lanes, block, work)
            work.show(self._waves)
            self._notice()
            self._check_steps(block)
            del block  # before the next one is made: two would need twice the room
            due = [member for member in self._members if member.due and member.running]
            for member, evaluation in self._judging.judge(due, work, partial(self._judged, work, False)):
                member.judged_tokens = member.tokens
                values = {f"heldout/{key}": value for key, value in evaluation.metrics.items()}
                work.tracker.log(member.plan.label, member.step, member.tokens, values)
                work.judged(member.plan.label, evaluation.metrics)
            self._block += 1

    def _consume(self, lanes: Lanes, block: Block, work: Work) -> None:
        """Train everyone on the block. For a checkpoint that falls due on the way all stop between two steps; at
        milestones each bank stops at its own. Of several ranks each ends the block, or is told to stop, by itself;
        then they meet."""
        while True:
            work.progress.place(block.epoch, block.index)
            try:
                self._waves.consume(lanes, block, partial(self._tick, work))
            except _CheckpointDue:
                self._keep_milestones(work)
                self._checkpoint(work, aside=True)
            except Interrupted:
                return self._meet(work)
            else:
                if not self._keep_milestones(work):
                    return self._meet(work)

    def _keep_milestones(self, work: Work) -> bool:
        """Keep the members that are at milestones; whether there were any."""
        due = [member for member in self._members if member.unkept]
        if due:
            self._judging.keep(due, work, partial(self._judged, work, False))
        return bool(due)

    def _tick(self, work: Work) -> None:
        """While steps are taken, or between them."""
        if work.progress.due:
            work.show(self._waves)
        elif work.tracker.due:
            work.log(self._waves)
        work.stop.poll()
        if self._ranks.alone and work.keeper.due(work.reached.tokens):
            raise _CheckpointDue

    def _meet(self, work: Work) -> None:
        """Tell the other ranks how far this one is. Raises Interrupted, on all, where one was told to stop, and leaves
        a checkpoint where rank 0 says that it is due."""
        due = self._ranks.first and not self._ranks.alone and work.keeper.due(work.reached.tokens)
        met = self._ranks.exchange((work.stop.number, due, work.reached.own, dict(work.latest)))
        work.latest.clear()
        for number, _, steps, latest in met:
            if number is not None:
                raise Interrupted(number)
            work.reached.hear(steps)
            work.progress.update(work.reached.steps, latest)
        if met[0][1]:
            self._checkpoint(work)

    def _go_apart(self, work: Work) -> None:
        """From here on the ranks judge and write by themselves: what was trained is kept before."""
        if not self._ranks.alone:
            self._checkpoint(work)
            self._apart = True

    def _needed_after(self, block: Block) -> bool:
        """Whether the block after this one will be read: by who goes on training, or for the last correction of who
        ends in this one. A member that fails in this one may have been the only reason."""
        for trainer in self._waves.trainers:
            steps = trainer.steps_in(block)
            for member in trainer.members:
                taken = member.batches if member.blocks == block.index + 1 else 0
                goes_on = member.schedule.total_steps - member.step > steps - taken
                if member.running and (goes_on or not member.corrected):
                    return True
        return False

    def _notice(self) -> None:
        """Give up the members whose parameters are not finite any more."""
        for member in self._members:
            if member.running and not member.finite:
                member.failed = f"it diverged: its parameters were not finite at step {member.step}"

    def _check_steps(self, block: Block) -> None:
        """Raises ConfigError where no block holds a batch."""
        in_it = [member.batches for member in self._members if member.blocks == block.index + 1]
        if in_it:
            self._empty = 0 if any(in_it) else self._empty + 1
        if self._empty == BLOCKS_WITHOUT_STEP:
            raise ConfigError(
                f"training.batch_size: {self._empty} blocks in a row held fewer counted positions than one batch;"
                " lower it or raise data.block_rows"
            )

    def _judged(self, work: Work, last: bool, share: float, members: int) -> None:
        """While members are judged."""
        work.progress.judging(share, members, last=last)
        work.beat()
        if self._ranks.alone and work.keeper.due(work.reached.tokens):
            self._checkpoint(work)
        if self._apart:
            work.stop.poll()

    def _keep_alone(self, work: Work) -> None:
        """Before an error ends the pass, between steps: several ranks may not meet any more to keep something."""
        if self._ranks.alone:
            self._checkpoint(work)

    def _checkpoint(self, work: Work, *, aside: bool = False) -> None:
        """Leave a checkpoint of where everything is, `aside` while training goes on. Between steps only."""
        with work.stop.at_once(False):
            work.log(self._waves)
            if self.source.replays:
                work.keeper.keep(self._block, self._stamp, work.reached.tokens, aside=aside)


class _CheckpointDue(Exception):  # noqa: N818 - it reports no error
    pass


def _judgement(result: MemberResult) -> str:
    """What a member came to, in a line of log.txt."""
    if result.metrics is None:
        return f"failed: {result.reason}"
    said = ("l0", "fvu", "ce_recovered", "dead_fraction")
    return "judged: " + ", ".join(
        f"{key} {value:.4g}" for key in said if (value := result.metrics.get(key)) is not None
    )
