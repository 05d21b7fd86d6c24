"""One group, from activations to metrics: where source, banks, evaluation, tracking and files meet."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from sae_sweep import __version__
from sae_sweep.activations.prefetch import Prefetch
from sae_sweep.activations.scaling import site_statistics
from sae_sweep.activations.stream import Block
from sae_sweep.checkpoints import SavedMember
from sae_sweep.config import MemberConfig, config_entries
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation import recovery, splice
from sae_sweep.evaluation.evaluate import Judgement
from sae_sweep.interop.saelens import save_sae
from sae_sweep.passes import Pass, Wave, plan_passes
from sae_sweep.plan import Bank, Group
from sae_sweep.reporting.progress import Progress
from sae_sweep.reporting.tracking import TrackedMember, Tracker, cut_back
from sae_sweep.runs import CURVES, LAST_GOOD, METRICS, MemberResult, SweepFolder, write_json_atomic
from sae_sweep.signals import Interrupted, Stop
from sae_sweep.training.checkpoint import Saving
from sae_sweep.training.keeper import Keeper, when
from sae_sweep.training.lanes import Lanes
from sae_sweep.training.place import Place
from sae_sweep.training.sources import Judge, Source, open_source
from sae_sweep.training.trainer import BankTrainer
from sae_sweep.training.waves import Paged, Waves, memory_limits

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
    source = open_source([member.config for member in group.members], group.hooks)
    block = source.calibration()
    for bank in group.banks:
        _check_block(block, bank)
    statistics = {centred: site_statistics(block, centred=centred) for centred in (False, True)}
    stamp = stream_stamp(block, config)
    del block  # the members' first parameters need its room
    tabled = {bank.site.hook for bank in group.banks if bank.members[0].config.sae.lookup != "none"}
    unigrams = source.unigrams(sorted(tabled)) if tabled else {}
    waits = _waits(config, waves, source.device)

    def trainer(bank: Bank) -> BankTrainer | Paged:
        hook, sae = bank.site.hook, bank.members[0].config.sae
        table_VD = unigrams[hook] if sae.lookup != "none" else None
        measured = statistics[sae.centre][hook]
        log_every = config.tracking.log_every
        made = BankTrainer(bank, measured, source.device, SAE_DTYPE, log_every, table_VD)
        return Paged(made) if waits else made

    turns = Waves([[trainer(bank) for bank in wave.banks] for wave in waves])
    means = {hook: s.mean for hook, s in statistics[False].items()}
    positions = {member.config.evaluation.positions for member in group.members}
    judges = {each: source.judge(each, means) for each in sorted(positions)}
    return GroupRun(group, source, turns, judges, stamp)


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
        self._group, self._waves, self._judges, self._stamp = group, waves, judges, stamp
        self._blocks = Prefetch(source.block, source.device, source.pays_ahead)
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
                keeper.begin(tracker, {p.member.label: p.state.step for p in self._places}, self._tokens)
                with Progress(config.name, total, labels, self._tokens) as progress:
                    return self._work(Work(folder, tracker, progress, stop, keeper))
            finally:
                tracker.close()

    def _work(self, work: "Work") -> dict[str, MemberResult]:
        work.keeper.say = work.progress.message
        try:
            self._note(work.folder, "training begins")
            with Lanes(self._waves.trainers) as lanes:
                self._train(lanes, work)
            work.progress.message(f"judging {len(self._places)} members on held-out tokens")
            self._note(work.folder, "training has ended")
            results = self._finish(work)
            self._note(work.folder, "judged")
        except Interrupted as interrupted:
            self._checkpoint(work)
            work.progress.message(f"{interrupted.name}: {work.keeper.kept()}; the same command goes on from there")
            raise
        return results

    @property
    def _tokens(self) -> int:
        """Of a member, on average."""
        return sum(p.tokens for p in self._places) // len(self._places)

    def _train(self, lanes: Lanes, work: "Work") -> None:
        while self._waves.running:
            with work.stop.at_once():
                block = self._blocks.block(self._block)
            if self._needed_after(block):
                self._blocks.announce(self._block + 1)
            work.progress.place(block.epoch, block.index)
            self._consume(lanes, block, work)
            self._show(work)
            self._notice()
            self._check_steps(block)
            del block  # before the next one is made: two would need twice the room
            due = [p for p in self._places if p.due and p.state.running]
            for place, judgement in self._judge(due, work):
                place.judged_tokens = place.tokens
                values = {f"heldout/{key}": value for key, value in judgement.metrics.items()}
                work.tracker.log(place.member.label, place.state.step, place.tokens, values)
            self._block += 1

    def _consume(self, lanes: Lanes, block: Block, work: "Work") -> None:
        """Train everyone on the block; for a checkpoint that falls due on the way all stop between two steps."""
        while True:
            try:
                self._waves.consume(lanes, block, partial(self._tick, work))
            except _CheckpointDue:
                self._checkpoint(work)
            else:
                return

    def _tick(self, work: "Work") -> None:
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

    def _show(self, work: "Work") -> None:
        work.progress.update(self._tokens, self._log(work.tracker))
        work.keeper.beat({p.member.label: p.state.step for p in self._places}, work.progress)
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

    def _resume(self, keeper: "Keeper", folder: SweepFolder) -> None:
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
        if checkpoint is not None:
            self._block = checkpoint.block
            step, total = max((p.state.step, p.member.schedule.total_steps) for p in self._places)
            keeper.say(f"resuming at step {step:,} of {total:,}, from the checkpoint of {when(checkpoint.time)}")

    def _checkpoint_if_due(self, work: "Work") -> None:
        if work.keeper.due(self._tokens):
            self._checkpoint(work)

    def _checkpoint(self, work: "Work") -> None:
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

    def _judge(self, places: Sequence[Place], work: "Work") -> Iterator[tuple[Place, Judgement]]:
        """Judge members, those together that are on the device together."""

        def done(share: float) -> None:
            work.progress.judging(share)
            work.keeper.beat({p.member.label: p.state.step for p in self._places}, work.progress)
            self._checkpoint_if_due(work)
            work.stop.poll()

        self._blocks.rest()  # judging runs the model too
        for trainers in self._waves.each():
            for positions, judge in self._judges.items():
                own = [p for p in places if p.member.config.evaluation.positions == positions and p.trainer in trainers]
                if own:
                    with self._waves.here([p.trainer for p in own]):
                        candidates = [p.candidate() for p in own]
                    with work.stop.at_once():
                        judgements = judge.judge(candidates, done)
                    del candidates
                    yield from ((p, judgements.pop(p.member.label)) for p in own)

    def _finish(self, work: "Work") -> dict[str, MemberResult]:
        results = {}
        living = [p for p in self._places if p.failed is None]
        with work.stop.at_once():
            self._trim([p for p in living if p.member.config.sae.l0 is not None])
        diverged = {p.member.label: p.failed for p in self._places if p.failed is not None}
        for place, judgement in self._judge(living, work):
            label, metrics = place.member.label, self._metrics(place, judgement)
            broken = [key for key, value in metrics.items() if isinstance(value, float) and not isfinite(value)]
            if broken:
                diverged[label] = f"it diverged: its {', '.join(broken)} are not finite"
                continue
            member_folder = work.folder.member_folder(label)
            save_sae(member_folder, judgement.sae, self._metadata(place), judgement.frequency_F)
            work.tracker.sync()
            write_json_atomic(member_folder / METRICS, metrics)
            work.tracker.finish(label, metrics)
            results[label] = MemberResult(metrics, None)
            work.stop.poll()
        for place in self._places:
            if place.member.label in diverged:
                results[place.member.label] = self._fail(place, diverged[place.member.label], work)
        return results

    def _fail(self, place: Place, reason: str, work: "Work") -> MemberResult:
        label = place.member.label
        good_step = work.keeper.place_last_good(place.member.identity, work.folder.member_folder(label))
        kept = "" if good_step is None else f"; {LAST_GOOD} is its state of step {good_step}"
        _note(work.folder.member_folder(label), reason + kept)
        work.tracker.fail(label, reason)
        return MemberResult(None, reason)

    def _trim(self, places: Sequence[Place]) -> None:
        """The last correction of `sae.l0`, of each member on the first block that it has not trained on."""
        for index in sorted({place.next_block for place in places}):
            block = self._blocks.block(index)
            for place in places:
                if place.next_block == index:
                    with self._waves.here([place.trainer]):
                        place.trim(block)
            del block

    def _metrics(self, place: Place, judgement: Judgement) -> dict[str, Any]:
        state = place.trainer.states[place.index]
        return {
            **dict.fromkeys((*splice.KEYS, *recovery.KEYS)),  # null where the source has no model, or no truth
            **judgement.metrics,
            "dead_fraction": place.trainer.dead_fraction(place.index),
            "dead_window_tokens": state.dead_window_tokens,
            "coefficient_final": place.trainer.coefficient(place.index),
            "threshold_mode": place.threshold_mode,
            "l0_untrimmed": place.l0_untrimmed,
            "tokens_trained": state.tokens,
        }

    def _metadata(self, place: Place) -> dict[str, Any]:
        """What cfg.json says of where the SAE came from."""
        config = place.member.config
        return {
            "sae_sweep_version": __version__,
            **self.source.metadata(),
            "hook_name": place.member.site.hook,
            "training_architecture": config.sae.method(),
            "training_tokens": place.tokens,
            "input_scale": place.trainer.scale,
        }

    def _note(self, folder: SweepFolder, text: str) -> None:
        for place in self._places:
            _note(folder.member_folder(place.member.label), text)


class _CheckpointDue(Exception):  # noqa: N818 - it reports no error
    pass


@dataclass(frozen=True)
class Work:
    """What a group works with, beside what it is."""

    folder: SweepFolder
    tracker: Tracker
    progress: Progress
    stop: Stop
    keeper: Keeper


def stream_stamp(block: Block, config: MemberConfig) -> str:
    """Hash of the first block's tokens, on whatever device; empty where which are kept depends on activations."""
    if config.data.max_norm_ratio is not None:
        return ""
    tokens_B = next(iter(block.tokens.values())).cpu().contiguous()
    return blake2b(tokens_B.numpy().data, digest_size=8).hexdigest()


def _note(member_folder: Path, text: str) -> None:
    """A line with the time in the member's log.txt; metrics never hold wall-clock."""
    with (member_folder / "log.txt").open("a") as file:
        file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")


def _check_block(block: Block, bank: Bank) -> None:
    (count, width), first = block.activations[bank.site.hook].shape, bank.members[0]
    if width != first.d:
        raise ConfigError(f"site.width={first.d}: {bank.site.hook} gives {width} numbers per position")
    if count < first.config.training.batch_size:
        raise ConfigError(
            f"training.batch_size={first.config.training.batch_size} is larger than a block of activations, which has"
            f" {count} counted positions; lower it or raise data.block_rows={first.config.data.block_rows}"
        )
