"""One group, from activations to metrics: where source, banks, evaluation, tracking and files meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from sae_sweep import __version__
from sae_sweep.activations.scaling import site_statistics
from sae_sweep.activations.stream import Block
from sae_sweep.checkpoints import Checkpoint, SavedMember
from sae_sweep.config import MemberConfig, config_entries
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation import recovery, splice
from sae_sweep.evaluation.evaluate import Candidate, Judgement
from sae_sweep.interop.saelens import save_sae
from sae_sweep.plan import Bank, Group, Member
from sae_sweep.reporting.progress import Progress
from sae_sweep.reporting.tracking import TrackedMember, Tracker, cut_back
from sae_sweep.runs import CURVES, LAST_GOOD, METRICS, MemberResult, SweepFolder, write_json_atomic
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.signals import Interrupted, Stop
from sae_sweep.training.checkpoint import Saving, load
from sae_sweep.training.keeper import Keeper, when
from sae_sweep.training.sources import Judge, Source, open_source
from sae_sweep.training.trainer import BankTrainer, MemberState
from sae_sweep.training.trim import mean_l0, trimmed

BLOCKS_WITHOUT_STEP = 10
"""A stream whose blocks stay smaller than a batch this often would run the model for ever."""
SAE_DTYPE = torch.float32
"""Of parameters, moments and arithmetic."""
TRIM_ROWS = 32_768
"""Activations on which the last correction of `sae.l0` is made."""


def open_group(group: Group) -> "GroupRun":
    """Load what a group needs. Writes nothing but to data.cache, so what only shows now leaves no trace: raises
    ConfigError."""
    config = group.members[0].config
    source = open_source([member.config for member in group.members], group.hooks)
    block = source.calibration()
    for bank in group.banks:
        _check_block(block, bank)
    statistics = {centred: site_statistics(block, centred=centred) for centred in (False, True)}
    tabled = {bank.site.hook for bank in group.banks if bank.members[0].config.sae.lookup != "none"}
    unigrams = source.unigrams(sorted(tabled)) if tabled else {}
    trainers = []
    for bank in group.banks:
        hook, sae = bank.site.hook, bank.members[0].config.sae
        table_VD = unigrams[hook] if sae.lookup != "none" else None
        measured = statistics[sae.centre][hook]
        log_every = config.tracking.log_every
        trainers.append(BankTrainer(bank, measured, source.device, SAE_DTYPE, log_every, table_VD))
    means = {hook: s.mean for hook, s in statistics[False].items()}
    positions = {member.config.evaluation.positions for member in group.members}
    judges = {each: source.judge(each, means) for each in sorted(positions)}
    return GroupRun(group, source, trainers, judges, stream_stamp(block, config))


@dataclass
class Place:
    """One member in the banks: which trainer has it, and where."""

    member: Member
    trainer: BankTrainer
    index: int
    judged_tokens: int = 0
    """Training tokens at its last evaluation."""
    trimmed: InferenceSae | None = None
    """What it is at the end, where `sae.l0` had its last correction."""
    l0_untrimmed: float | None = None
    """Its L0 before that."""

    @property
    def state(self) -> MemberState:
        return self.trainer.states[self.index]

    @property
    def tokens(self) -> int:
        return self.state.tokens

    @property
    def failed(self) -> str | None:
        return self.state.failed

    def candidate(self) -> Candidate:
        """The member as it is judged now."""
        step, trainer = self.trainer.states[self.index].step, self.trainer
        sae = self.trimmed or trainer.inference(self.index)
        return Candidate(self.member.label, trainer.hook, sae, step, trainer.batch_size)

    def saving(self, batches: int, lines: int, before: SavedMember | None) -> Saving:
        """The member on its way to a checkpoint; `before` is what the one before holds of it."""
        state, good_step = self.state, before.good_step if before else None
        identity, label = self.member.identity, self.member.label
        place = (state.step, state.blocks, state.dense, state.failed, batches, self.judged_tokens, lines)
        return Saving(SavedMember(identity, label, *place, good_step), self.trainer, self.index)

    def restore(self, checkpoint: Checkpoint, saved: SavedMember) -> None:
        """Go on from where a sound checkpoint has it."""
        load(checkpoint, saved, self.trainer, self.index)
        self.state.step, self.state.blocks, self.state.dense = saved.step, saved.blocks, saved.dense
        self.state.failed, self.judged_tokens = saved.failed, saved.judged_tokens

    @property
    def next_block(self) -> int:
        """The first block it has not trained on."""
        return self.trainer.states[self.index].blocks

    def trim(self, block: Block) -> None:
        """Set its L0 to `sae.l0` on a block of activations."""
        l0, hook = self.member.config.sae.l0, self.trainer.hook
        if l0 is None:
            return
        before, rows = self.trainer.inference(self.index), slice(0, TRIM_ROWS)
        x_BD, tokens_B = block.activations[hook][rows].to(SAE_DTYPE), block.tokens[hook][rows]
        after = trimmed(before, x_BD, tokens_B, l0)
        if after is not before:
            self.trimmed, self.l0_untrimmed = after, mean_l0(before, x_BD, tokens_B)

    @property
    def threshold_mode(self) -> str | None:
        """How the threshold of its final form was found; None where training alone did."""
        return "quantile" if self.trimmed is not None else self.trainer.bank.maths.threshold_mode

    @property
    def due(self) -> bool:
        """Whether `evaluation.every` more tokens have passed."""
        every = self.member.config.evaluation.every
        return every is not None and self.tokens // int(every) > self.judged_tokens // int(every)


class GroupRun:
    """The pass over the stream, and what is written on the way and at its end."""

    def __init__(
        self,
        group: Group,
        source: Source,
        trainers: Sequence[BankTrainer],
        judges: Mapping[str, Judge],
        stamp: str = "",
    ):
        """`stamp` says which stream it is: a checkpoint of another is of no use."""
        self.source = source
        self._group, self._trainers, self._judges, self._stamp = group, trainers, judges, stamp
        self._places = [
            Place(state.member, trainer, i) for trainer in trainers for i, state in enumerate(trainer.states)
        ]
        self._block = 0
        """The block that comes next, or that the trainers are in."""
        self._batches = [0] * len(trainers)
        """How many batches of it each has taken."""
        self._empty = 0
        """Blocks in a row without a batch."""

    def run(self, folder: SweepFolder, stop: Stop | None = None) -> dict[str, MemberResult]:
        """Train all members to their budgets, then judge and save them; results by label.

        Members that have a checkpoint go on from it. Told to stop, it leaves one and raises Interrupted.
        """
        stop = stop or Stop()
        config, labels = self._group.members[0].config, [p.member.label for p in self._places]
        total = sum(int(p.member.config.training.tokens) for p in self._places) // len(self._places)
        keeper = Keeper(folder, self._group, self._trainers)
        self._resume(keeper, folder)
        tracked = [TrackedMember(m.label, m.identity, config_entries(m.config)) for m in self._group.members]
        tracker = Tracker(folder.root, config.name, config.tracking, tracked)
        with stop.at_once(False):
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
            self._train(work)
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

    def _train(self, work: "Work") -> None:
        while any(trainer.running for trainer in self._trainers):
            with work.stop.at_once():
                block = self.source.block(self._block)
            work.progress.place(block.epoch, block.index)
            for number, trainer in enumerate(self._trainers):
                trainer.consume(block, partial(self._after_step, work, number), self._batches[number])
            self._show(work)
            self._notice()
            due = [p for p in self._places if p.due and p.state.running]
            with work.stop.at_once():
                judged = self._judge(due, work)
            for place, judgement in judged:
                place.judged_tokens = place.tokens
                values = {f"heldout/{key}": value for key, value in judgement.metrics.items()}
                work.tracker.log(place.member.label, place.state.step, place.tokens, values)
            self._check_steps()
            self._block, self._batches = self._block + 1, [0] * len(self._trainers)

    def _after_step(self, work: "Work", number: int) -> None:
        """Between two steps: nothing of a bank is half done, so this is where a run may be left."""
        self._batches[number] += 1
        if work.progress.due:
            self._show(work)
        work.stop.poll()
        self._checkpoint_if_due(work)

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

    def _check_steps(self) -> None:
        """Raises ConfigError where no block holds a batch."""
        self._empty = 0 if any(self._batches) else self._empty + 1
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
                self._batches[self._trainers.index(place.trainer)] = own.batches
        if checkpoint is not None:
            self._block = checkpoint.block
            step, total = max((p.state.step, p.member.schedule.total_steps) for p in self._places)
            keeper.say(f"resuming at step {step:,} of {total:,}, from the checkpoint of {when(checkpoint.time)}")

    def _checkpoint_if_due(self, work: "Work") -> None:
        if work.keeper.due(self._tokens):
            self._checkpoint(work)

    def _checkpoint(self, work: "Work") -> None:
        """Leave a checkpoint of where everything is. Between steps only."""
        batches = dict(zip(map(id, self._trainers), self._batches, strict=True))

        def savings(lines: Mapping[str, int], before: Mapping[str, SavedMember]) -> list[Saving]:
            return [
                p.saving(batches[id(p.trainer)], lines[p.member.label], before.get(p.member.identity))
                for p in self._places
            ]

        with work.stop.at_once(False):
            self._log(work.tracker)
            work.keeper.keep(self._block, self._stamp, self._tokens, savings)

    def _log(self, tracker: Tracker) -> dict[str, tuple[float, float]]:
        """Hand the new records to tracking; the last (L0, loss) of each member that has one."""
        latest = {}
        for trainer in self._trainers:
            while trainer.records:  # one at a time: a disk that takes no more must not have a line twice later
                record = trainer.records[0]
                tracker.log(record.label, record.step, record.tokens, record.values)
                latest[record.label] = (record.values["l0"], record.values["loss"])
                del trainer.records[0]
        return latest

    def _judge(self, places: Sequence[Place], work: "Work") -> list[tuple[Place, Judgement]]:
        def done(share: float) -> None:
            work.progress.judging(share)
            work.keeper.beat({p.member.label: p.state.step for p in self._places}, work.progress)
            self._checkpoint_if_due(work)
            work.stop.poll()

        judged = []
        for positions, judge in self._judges.items():
            own = [p for p in places if p.member.config.evaluation.positions == positions]
            if own:
                judgements = judge.judge([p.candidate() for p in own], done)
                judged += [(p, judgements[p.member.label]) for p in own]
        return judged

    def _finish(self, work: "Work") -> dict[str, MemberResult]:
        results = {}
        with work.stop.at_once():
            living = [p for p in self._places if p.failed is None]
            self._trim([p for p in living if p.member.config.sae.l0 is not None])
            judged = self._judge(living, work)
        diverged = {p.member.label: p.failed for p in self._places if p.failed is not None}
        for place, judgement in judged:
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
            block = self.source.block(index)
            for place in places:
                if place.next_block == index:
                    place.trim(block)

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
