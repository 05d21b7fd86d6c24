"""One group, from activations to metrics: where source, banks, evaluation, tracking and files meet."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from hashlib import blake2b

import torch

from sae_sweep.activations.prefetch import Prefetch
from sae_sweep.activations.scaling import SiteStatistics, site_statistics
from sae_sweep.activations.stream import Block
from sae_sweep.checkpoints import SavedMember
from sae_sweep.config import MemberConfig, config_entries
from sae_sweep.errors import ConfigError
from sae_sweep.passes import Pass, Wave, plan_passes
from sae_sweep.plan import Bank, Group
from sae_sweep.reporting.progress import Progress
from sae_sweep.reporting.tracking import TrackedMember, Tracker, cut_back
from sae_sweep.runs import CURVES, MemberResult, SweepFolder
from sae_sweep.signals import Interrupted, Stop
from sae_sweep.training.checkpoint import Saving
from sae_sweep.training.judging import Judging
from sae_sweep.training.keeper import Keeper, when
from sae_sweep.training.lanes import Lanes
from sae_sweep.training.milestones import passed
from sae_sweep.training.place import Place
from sae_sweep.training.sources import Judge, Source, open_source
from sae_sweep.training.spliced import EndToEnd
from sae_sweep.training.trainer import BankTrainer
from sae_sweep.training.waves import Paged, Waves, memory_limits
from sae_sweep.training.work import Work

BLOCKS_WITHOUT_STEP = 10
"""A stream whose blocks stay smaller than a batch this often would run the model for ever."""
SAE_DTYPE = torch.float32
"""Of parameters, moments and arithmetic."""


def passes(group: Group) -> list[Pass]:
    """The passes of a group on this machine. Raises ConfigError where an SAE does not fit it."""
    return plan_passes(group, *memory_limits(group.members[0].config))


def open_group(group: Group, waves: Sequence[Wave] = ()) -> "GroupRun":
    """Load what a group needs; without waves all its members share the device. Writes nothing but to data.cache, so
    what only shows now leaves no trace: raises ConfigError."""
    waves = waves or plan_passes(group, None, None)[0].waves
    config = group.members[0].config
    source = open_source([member.config for member in group.members], group.hooks, group.spliced)
    block = source.calibration()
    for bank in group.banks:
        _check_block(block, bank)
    statistics = {centred: site_statistics(block, centred=centred) for centred in (False, True)}
    objectives = {_objective(bank): _end_to_end(bank, source, block, statistics[False]) for bank in group.banks}
    stamp = stream_stamp(block, config)
    del block  # the members' first parameters need its room
    tabled = {bank.site.hook for bank in group.banks if bank.members[0].config.sae.lookup != "none"}
    unigrams = source.unigrams(sorted(tabled)) if tabled else {}
    waits = _waits(config, waves, source.device)

    def trainer(bank: Bank) -> BankTrainer | Paged:
        hook, sae = bank.site.hook, bank.members[0].config.sae
        table_VD = unigrams[hook] if sae.lookup != "none" else None
        measured = statistics[sae.centre]
        targets = measured[bank.site.output.hook] if bank.site.output else None
        log_every = config.tracking.log_every
        beside = [measured[site.hook] for site in bank.site.beside]
        made = BankTrainer(
            *(bank, measured[hook], source.device, SAE_DTYPE, log_every),
            unigrams=table_VD,
            targets=targets,
            beside=beside,
            end_to_end=objectives[_objective(bank)],
        )
        return Paged(made) if waits else made

    turns = Waves([[trainer(bank) for bank in wave.banks] for wave in waves])
    spliced = [site.hook for bank in group.banks for site in (bank.site.written, *bank.site.beside)]
    means = {hook: statistics[False][hook].mean for hook in spliced}
    positions = {member.config.evaluation.positions for member in group.members}
    judges = {each: source.judge(each, means) for each in sorted(positions)}
    return GroupRun(group, source, turns, judges, stamp)


def _objective(bank: Bank) -> tuple[object, ...]:
    """What the objective of a bank depends on."""
    training = bank.members[0].config.training
    return bank.site.hook, training.batch_size, *training.objective_keys.values()


def _end_to_end(bank: Bank, source: Source, block: Block, statistics: Mapping[str, SiteStatistics]) -> EndToEnd | None:
    """The objective of a bank, measured on the first block; None where it is local."""
    first = bank.members[0]
    training, data = first.config.training, first.config.data
    if training.local:
        return None
    assert source.splicing is not None
    rows = training.batch_size // data.context
    made = EndToEnd(source.splicing, bank.site.hook, first.later, training, rows)
    made.calibrate(block, statistics[bank.site.hook].mean)
    return made


def _waits(config: MemberConfig, waves: Sequence[Wave], device: torch.device) -> bool:
    """Whether members begin in the host's memory: where they take turns, and where the device may prove too small in
    the first block, unless the host has no room for that."""
    if len(waves) > 1:
        return True
    if device.type != "cuda" and config.launcher.memory_gb is None:
        return False
    _, host = memory_limits(config)
    return host is None or waves[0].state_bytes <= host


class GroupRun:
    """The pass over the stream, and what is written on the way and at its end."""

    def __init__(
        self,
        group: Group,
        source: Source,
        waves: Waves,
        judges: Mapping[str, Judge],
        stamp: str = "",
    ):
        """`stamp` says which stream it is: a checkpoint of another is of no use."""
        self.source = source
        self._group, self._waves, self._stamp = group, waves, stamp
        self._blocks = Prefetch(source.block, source.device, source.pays_ahead)
        self._judging = Judging(waves, judges, self._blocks, source.metadata())
        self._places = [
            Place(state.member, trainer, i) for trainer in waves.trainers for i, state in enumerate(trainer.states)
        ]
        self._block = 0
        """The block that comes next, or that the trainers are in."""
        self._empty = 0
        """Blocks in a row without a batch."""

    def run(self, folder: SweepFolder, stop: Stop | None = None) -> dict[str, MemberResult]:
        """Train all members to their budgets, then judge and save them; results by label.

        Members that have a checkpoint go on from it. Told to stop, it leaves one and raises Interrupted.
        """
        stop = stop or Stop()
        config, labels = self._group.members[0].config, [p.member.label for p in self._places]
        total = sum(int(p.member.config.training.tokens) for p in self._places) // len(self._places)
        keeper = Keeper(folder, self._group, self._waves.trainers)
        self._resume(keeper, folder)
        tracked = [TrackedMember(m.label, m.identity, config_entries(m.config)) for m in self._group.members]
        tracker = Tracker(folder.root, config.name, config.tracking, tracked)
        with stop.at_once(False), closing(self._blocks):
            try:
                keeper.begin(tracker, self._steps, self._tokens)
                with Progress(config.name, total, labels, self._tokens) as progress:
                    return self._work(Work(folder, tracker, progress, stop, keeper))
            finally:
                tracker.close()

    def _work(self, work: Work) -> dict[str, MemberResult]:
        work.keeper.say = work.progress.message
        try:
            self._note(work, "training begins")
            with Lanes(self._waves.trainers) as lanes:
                self._train(lanes, work)
            work.progress.message(f"judging {len(self._places)} members on held-out tokens")
            self._note(work, "training has ended")
            results = self._judging.finish(self._places, work, partial(self._judged, work))
            self._note(work, "judged")
        except Interrupted as interrupted:
            self._checkpoint(work)
            work.progress.message(f"{interrupted.name}: {work.keeper.kept()}; the same command goes on from there")
            raise
        return results

    @property
    def _tokens(self) -> int:
        """Of a member, on average."""
        return sum(p.tokens for p in self._places) // len(self._places)

    @property
    def _steps(self) -> dict[str, int]:
        return {p.member.label: p.state.step for p in self._places}

    def _note(self, work: Work, text: str) -> None:
        for place in self._places:
            work.note(place.member.label, text)

    def _train(self, lanes: Lanes, work: Work) -> None:
        self._keep_milestones(work)  # at which it was interrupted
        while self._waves.running:
            with work.stop.at_once():
                block = self._blocks.block(self._block)
            if self._needed_after(block):
                self._blocks.announce(self._block + 1)
            self._consume(lanes, block, work)
            self._show(work)
            self._notice()
            self._check_steps(block)
            del block  # before the next one is made: two would need twice the room
            due = [p for p in self._places if p.due and p.state.running]
            for place, judgement in self._judging.judge(due, work, partial(self._judged, work)):
                place.judged_tokens = place.tokens
                values = {f"heldout/{key}": value for key, value in judgement.metrics.items()}
                work.tracker.log(place.member.label, place.state.step, place.tokens, values)
            self._block += 1

    def _consume(self, lanes: Lanes, block: Block, work: Work) -> None:
        """Train everyone on the block. For a checkpoint that falls due on the way all stop between two steps; at
        milestones each bank stops at its own."""
        while True:
            work.progress.place(block.epoch, block.index)
            try:
                self._waves.consume(lanes, block, partial(self._tick, work))
            except _CheckpointDue:
                self._keep_milestones(work)
                self._checkpoint(work)
            else:
                if not self._keep_milestones(work):
                    return

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
        if work.keeper.due(self._tokens):
            raise _CheckpointDue

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
        work.keeper.beat(self._steps, work.progress)
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
            if said := passed([(p.member.label, p.behind) for p in self._places], folder.has_milestone):
                keeper.say(said)
            step, total = max((p.state.step, p.member.schedule.total_steps) for p in self._places)
            keeper.say(f"resuming at step {step:,} of {total:,}, from the checkpoint of {when(checkpoint.time)}")

    def _judged(self, work: Work, share: float) -> None:
        """While members are judged."""
        work.progress.judging(share)
        work.keeper.beat(self._steps, work.progress)
        if work.keeper.due(self._tokens):
            self._checkpoint(work)
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
        return latest


class _CheckpointDue(Exception):  # noqa: N818 - it reports no error
    pass


def stream_stamp(block: Block, config: MemberConfig) -> str:
    """Hash of the first block's tokens, on whatever device; empty where which are kept depends on activations."""
    if config.data.max_norm_ratio is not None:
        return ""
    tokens_B = next(iter(block.tokens.values())).cpu().contiguous()
    return blake2b(tokens_B.numpy().data, digest_size=8).hexdigest()


def _check_block(block: Block, bank: Bank) -> None:
    count, first = len(block.activations[bank.site.hook]), bank.members[0]
    for hook, width in first.widths.items():
        found = block.activations[hook].shape[1]
        if found != width:
            raise ConfigError(f"site.width={width}: {hook} gives {found} numbers per position")
    if first.config.training.local and count < first.config.training.batch_size:
        raise ConfigError(
            f"training.batch_size={first.config.training.batch_size} is larger than a block of activations, which has"
            f" {count} counted positions; lower it or raise data.block_rows={first.config.data.block_rows}"
        )
