"""The pass of one group over its stream: where blocks, banks, evaluation, tracking and files meet."""

from collections.abc import Mapping
from contextlib import closing
from functools import partial

from rich.console import Console

from sae_sweep.activations.prefetch import Prefetch
from sae_sweep.activations.stream import Block
from sae_sweep.config.reading import config_entries
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import Evaluator
from sae_sweep.folder.checkpoints import SavedMember
from sae_sweep.folder.names import CURVES
from sae_sweep.folder.sweep import MemberResult, SweepFolder
from sae_sweep.host.memory import give_back
from sae_sweep.host.signals import Interrupted, Stop
from sae_sweep.plan.groups import Group
from sae_sweep.plan.milestones import passed
from sae_sweep.tracking.jsonl import cut_back
from sae_sweep.tracking.progress import Progress
from sae_sweep.tracking.tracker import TrackedMember, Tracker
from sae_sweep.training.devices.lanes import Lanes
from sae_sweep.training.devices.ranks import ALONE, Ranks, nothing
from sae_sweep.training.devices.waves import Waves
from sae_sweep.training.run.checkpoint import Saving
from sae_sweep.training.run.checkpointing import Keeper, when
from sae_sweep.training.run.judging import Judging
from sae_sweep.training.run.place import Place
from sae_sweep.training.run.sources import Source
from sae_sweep.training.run.work import Work

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
        stamp: str = "",
        ranks: Ranks = ALONE,
    ):
        """`stamp` says which stream it is: a checkpoint of another is of no use. `group` is that of all ranks, `waves`
        and `evaluators` are this one's."""
        self.source, self._ranks = source, ranks
        self._group, self._waves, self._stamp = group, waves, stamp
        self._blocks = Prefetch(source.block, source.device, source.pays_ahead)
        self._judging = Judging(waves, evaluators, self._blocks, source.metadata())
        self._places = [
            Place(state.member, trainer, i) for trainer in waves.trainers for i, state in enumerate(trainer.states)
        ]
        self._block = 0
        """The block that comes next, or that the trainers are in."""
        self._empty = 0
        """Blocks in a row without a batch."""
        self._steps_of_all = {member.label: 0 for member in group.members}
        """Of other ranks' members as of the last meeting."""
        self._latest: dict[str, tuple[float, float]] = {}
        """(L0, loss) of this rank's members that have new ones since the last meeting."""
        self._apart = ranks.alone
        """Whether nobody waits for this rank, so that it may end at any point between two steps."""

    def run(self, folder: SweepFolder, stop: Stop | None = None) -> dict[str, MemberResult]:
        """Train all members to their budgets, then judge and save them; results by label.

        Members that have a checkpoint go on from it. Told to stop, it leaves one and raises Interrupted.
        """
        self._ranks.shared(lambda: folder)
        with self._ranks.together():
            return self._run(folder, stop or Stop())

    def follow(self, stop: Stop) -> None:
        """The same, as another rank than the first, of this rank's members."""
        self._run(self._ranks.shared(nothing), stop)

    def _run(self, folder: SweepFolder, stop: Stop) -> dict[str, MemberResult]:
        members, own = self._group.members, [place.member for place in self._places]
        config = members[0].config
        total = sum(int(member.config.training.tokens) for member in members) // len(members)
        keeper = Keeper(folder, self._group, self._waves.trainers, self._ranks)
        self._resume(keeper, folder)
        tracked = [TrackedMember(m.label, m.identity, config_entries(m.config)) for m in own]
        tracker = Tracker(folder.root, config.name, config.tracking, tracked)
        console = None if self._ranks.first else Console(quiet=True)
        labels = [member.label for member in members]
        with stop.at_once(False), closing(self._blocks):
            try:
                keeper.begin(tracker, self._steps, self._tokens)
                with Progress(config.name, total, labels, self._tokens, console) as progress:
                    return self._work(Work(folder, tracker, progress, stop, keeper, self._ranks))
            finally:
                tracker.close()

    def _work(self, work: Work) -> dict[str, MemberResult]:
        work.keeper.say = work.progress.message
        try:
            self._note(work, "training begins")
            with Lanes(self._waves.trainers) as lanes:
                self._train(lanes, work)
            give_back()  # a judge's pieces are of other sizes than a step's
            work.progress.message(f"judging {len(self._group.members)} members on held-out tokens")
            self._note(work, "training has ended")
            results = self._judging.finish(self._places, work, partial(self._judged, work), self._part)
            self._note(work, "judged")
        except Interrupted as interrupted:
            if self._ranks.alone or not self._apart:
                self._checkpoint(work)
            work.progress.message(f"{interrupted.name}: {work.keeper.kept()}; the same command goes on from there")
            raise
        return {label: result for own in self._ranks.exchange(results) for label, result in own.items()}

    @property
    def _tokens(self) -> int:
        """Of a member, on average."""
        steps, members = self._steps_of_all | self._steps, self._group.members
        return sum(steps[m.label] * m.config.training.batch_size for m in members) // len(members)

    @property
    def _steps(self) -> dict[str, int]:
        """Of this rank's members."""
        return {p.member.label: p.state.step for p in self._places}

    def _note(self, work: Work, text: str) -> None:
        for place in self._places:
            work.note(place.member.label, text)

    def _train(self, lanes: Lanes, work: Work) -> None:
        self._keep_milestones(work)  # at which it was interrupted
        while self._ranks.any(self._waves.running):
            with work.stop.at_once(self._ranks.alone):
                block = self._blocks.block(self._block)
            said = self._ranks.exchange((self._needed_after(block), self.source.pays_ahead(self._block + 1)))
            if any(needed for needed, _ in said) and all(pays for _, pays in said):
                self._blocks.announce(self._block + 1)
            self._consume(lanes, block, work)
            self._show(work)
            self._notice()
            self._check_steps(block)
            del block  # before the next one is made: two would need twice the room
            due = [p for p in self._places if p.due and p.state.running]
            for place, evaluation in self._judging.judge(due, work, partial(self._judged, work)):
                place.judged_tokens = place.tokens
                values = {f"heldout/{key}": value for key, value in evaluation.metrics.items()}
                work.tracker.log(place.member.label, place.state.step, place.tokens, values)
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
                self._checkpoint(work)
            except Interrupted:
                return self._meet(work)
            else:
                if not self._keep_milestones(work):
                    return self._meet(work)

    def _keep_milestones(self, work: Work) -> bool:
        """Keep the members that are at milestones; whether there were any."""
        places = [place for place in self._places if place.milestones]
        if places:
            self._judging.keep(places, work, partial(self._judged, work))
        return bool(places)

    def _tick(self, work: Work) -> None:
        """While steps are taken, or between them."""
        if work.progress.due:
            self._show(work)
        work.stop.poll()
        if self._ranks.alone and work.keeper.due(self._tokens):
            raise _CheckpointDue

    def _meet(self, work: Work) -> None:
        """Tell the other ranks how far this one is. Raises Interrupted, on all, where one was told to stop, and leaves
        a checkpoint where rank 0 says that it is due."""
        due = self._ranks.first and not self._ranks.alone and work.keeper.due(self._tokens)
        met = self._ranks.exchange((work.stop.number, due, self._steps, self._latest))
        self._latest = {}
        for number, _, steps, latest in met:
            if number is not None:
                raise Interrupted(number)
            self._steps_of_all |= steps
            work.progress.update(self._tokens, latest)
        if met[0][1]:
            self._checkpoint(work)

    def _part(self, work: Work) -> None:
        """From here on the ranks judge and write by themselves: what was trained is kept before."""
        if not self._ranks.alone:
            self._checkpoint(work)
            self._apart = True

    def _needed_after(self, block: Block) -> bool:
        """Whether the block after this one will be read: by who goes on training, or for the last correction of who
        ends in this one. A member that fails in this one may have been the only reason."""
        for place in self._places:
            state = place.state
            taken = state.batches if state.blocks == block.index + 1 else 0
            left = state.member.schedule.total_steps - state.step
            goes_on = left > place.trainer.steps_in(block) - taken
            if state.running and (goes_on or state.member.config.sae.l0 is not None):
                return True
        return False

    def _show(self, work: Work) -> None:
        work.progress.update(self._tokens, self._log(work.tracker))
        work.keeper.beat(self._steps_of_all | self._steps, work.progress)
        for place in self._places:
            if place.failed is not None:
                work.progress.state(place.member.label, "failed")

    def _notice(self) -> None:
        """Give up the members whose parameters are not finite any more."""
        for place in self._places:
            if place.state.running and not place.trainer.finite(place.index):
                place.state.failed = f"it diverged: its parameters were not finite at step {place.state.step}"

    def _check_steps(self, block: Block) -> None:
        """Raises ConfigError where no block holds a batch."""
        in_it = [p.state.batches for p in self._places if p.state.blocks == block.index + 1]
        if in_it:
            self._empty = 0 if any(in_it) else self._empty + 1
        if self._empty == BLOCKS_WITHOUT_STEP:
            raise ConfigError(
                f"training.batch_size: {self._empty} blocks in a row held fewer counted positions than one batch;"
                " lower it or raise data.block_rows"
            )

    def _resume(self, keeper: Keeper, folder: SweepFolder) -> None:
        """Set everything to what the newest sound checkpoint has, and each metrics.jsonl to what it was then."""
        checkpoint = keeper.newest(self._stamp)
        saved = {member.identity: member for member in checkpoint.members} if checkpoint else {}
        for place in self._places:
            own = saved.get(place.member.identity)
            curves = folder.member_folder(place.member.label) / CURVES
            if not cut_back(curves, own.lines if own else 0):
                keeper.say(f"{curves} has lost lines since the checkpoint; they stay lost")
            if checkpoint is not None and own is not None:
                place.restore(checkpoint, own)
                if all(folder.has_milestone(place.member.label, tokens) for tokens in place.milestones):
                    place.kept_step = own.step
        if checkpoint is not None:
            self._block = checkpoint.block
            self._steps_of_all |= {m.label: m.step for m in checkpoint.members if m.label in self._steps_of_all}
            if said := passed([(p.member.label, p.behind) for p in self._places], folder.has_milestone):
                keeper.say(said)
            if self._ranks.first:
                step, total = max((p.state.step, p.member.schedule.total_steps) for p in self._places)
                keeper.say(f"resuming at step {step:,} of {total:,}, from the checkpoint of {when(checkpoint.time)}")

    def _judged(self, work: Work, share: float) -> None:
        """While members are judged."""
        work.progress.judging(share)
        work.keeper.beat(self._steps_of_all | self._steps, work.progress)
        if self._ranks.alone and work.keeper.due(self._tokens):
            self._checkpoint(work)
        if self._apart:
            work.stop.poll()

    def _checkpoint(self, work: Work) -> None:
        """Leave a checkpoint of where everything is. Between steps only."""

        def savings(lines: Mapping[str, int], before: Mapping[str, SavedMember]) -> list[Saving]:
            return [p.saving(lines[p.member.label], before.get(p.member.identity)) for p in self._places]

        with work.stop.at_once(False):
            self._log(work.tracker)
            work.keeper.keep(self._block, self._stamp, self._tokens, savings)

    def _log(self, tracker: Tracker) -> dict[str, tuple[float, float]]:
        """Hand the new records to tracking; the last (L0, loss) of each member that has one."""
        latest = {}
        for trainer in self._waves.settled:
            while trainer.records:  # one at a time: a disk that takes no more must not have a line twice later
                record = trainer.records[0]
                tracker.log(record.label, record.step, record.tokens, record.values)
                latest[record.label] = (record.values["l0"], record.values["loss"])
                del trainer.records[0]
        self._latest |= latest
        return latest


class _CheckpointDue(Exception):  # noqa: N818 - it reports no error
    pass
