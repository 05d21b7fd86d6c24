"""One group, from activations to metrics: where source, banks, evaluation, tracking and files meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import torch

from sae_sweep import __version__
from sae_sweep.activations.scaling import site_statistics
from sae_sweep.activations.stream import Block
from sae_sweep.config import config_entries
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation import recovery, splice
from sae_sweep.evaluation.evaluate import Candidate, Judgement
from sae_sweep.interop.saelens import save_sae
from sae_sweep.plan import Bank, Group, Member
from sae_sweep.reporting.progress import Progress
from sae_sweep.reporting.tracking import TrackedMember, Tracker
from sae_sweep.runs import METRICS, MemberResult, SweepFolder, write_json_atomic
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.lanes import Lanes
from sae_sweep.training.sources import Judge, Source, open_source
from sae_sweep.training.trainer import BankTrainer
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
    return GroupRun(group, source, trainers, {each: source.judge(each, means) for each in positions})


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
    def tokens(self) -> int:
        return self.trainer.states[self.index].tokens

    @property
    def failed(self) -> str | None:
        return self.trainer.states[self.index].failed

    def candidate(self) -> Candidate:
        """The member as it is judged now."""
        step, trainer = self.trainer.states[self.index].step, self.trainer
        sae = self.trimmed or trainer.inference(self.index)
        return Candidate(self.member.label, trainer.hook, sae, step, trainer.batch_size)

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
    ):
        self.source = source
        self._group, self._trainers, self._judges = group, trainers, judges
        self._places = [
            Place(state.member, trainer, i) for trainer in trainers for i, state in enumerate(trainer.states)
        ]

    def run(self, folder: SweepFolder) -> dict[str, MemberResult]:
        """Train all members to their budgets, then judge and save them; results by label."""
        config, labels = self._group.members[0].config, [p.member.label for p in self._places]
        tracked = [TrackedMember(m.label, m.identity, config_entries(m.config)) for m in self._group.members]
        total = sum(int(p.member.config.training.tokens) for p in self._places) // len(self._places)
        tracker = Tracker(folder.root, config.name, config.tracking, tracked)
        try:
            with Progress(config.name, total, labels, 0) as progress:
                self._note(folder, "training begins")
                with Lanes(self._trainers) as lanes:
                    self._train(lanes, progress, tracker)
                progress.message(f"judging {len(labels)} members on held-out tokens")
                self._note(folder, "training has ended")
                results = self._finish(folder, tracker, progress)
                self._note(folder, "judged")
        finally:
            tracker.close()
        return results

    def _train(self, lanes: Lanes, progress: Progress, tracker: Tracker) -> None:
        def show() -> None:
            progress.update(sum(p.tokens for p in self._places) // len(self._places), self._log(tracker))

        def tick() -> None:
            if progress.due:
                show()

        index = empty = 0
        while any(trainer.running for trainer in self._trainers):
            block = self.source.block(index)
            before = sum(p.tokens for p in self._places)
            progress.place(block.epoch, block.index)
            lanes.consume(block, tick)
            show()
            due = [p for p in self._places if p.due and p.trainer.states[p.index].running]
            for place, judgement in self._judge(due, progress):
                place.judged_tokens = place.tokens
                values = {f"heldout/{key}": value for key, value in judgement.metrics.items()}
                step = place.trainer.states[place.index].step
                tracker.log(place.member.label, step, place.tokens, values)
            index += 1
            empty = empty + 1 if before == sum(p.tokens for p in self._places) else 0
            if empty == BLOCKS_WITHOUT_STEP:
                raise ConfigError(
                    f"training.batch_size: {empty} blocks in a row held fewer counted positions than one batch;"
                    " lower it or raise data.block_rows"
                )

    def _log(self, tracker: Tracker) -> dict[str, tuple[float, float]]:
        """Hand the new records to tracking; the last (L0, loss) of each member that has one."""
        latest = {}
        for trainer in self._trainers:
            new = trainer.records[:]
            del trainer.records[: len(new)]  # lanes may have added to them by now
            for record in new:
                tracker.log(record.label, record.step, record.tokens, record.values)
                latest[record.label] = (record.values["l0"], record.values["loss"])
        return latest

    def _judge(self, places: Sequence[Place], progress: Progress) -> list[tuple[Place, Judgement]]:
        judged = []
        for positions, judge in self._judges.items():
            own = [p for p in places if p.member.config.evaluation.positions == positions]
            if own:
                judgements = judge.judge([p.candidate() for p in own], progress.judging)
                judged += [(p, judgements[p.member.label]) for p in own]
        return judged

    def _finish(self, folder: SweepFolder, tracker: Tracker, progress: Progress) -> dict[str, MemberResult]:
        results = {}
        living = [p for p in self._places if p.failed is None]
        self._trim([p for p in living if p.member.config.sae.l0 is not None])
        for place, judgement in self._judge(living, progress):
            metrics = self._metrics(place, judgement)
            broken = [key for key, value in metrics.items() if isinstance(value, float) and not isfinite(value)]
            if broken:
                place.trainer.states[place.index].failed = f"it diverged: its {', '.join(broken)} are not finite"
                continue
            label = place.member.label
            member_folder = folder.member_folder(label)
            save_sae(member_folder, judgement.sae, self._metadata(place), judgement.frequency_F)
            write_json_atomic(member_folder / METRICS, metrics)
            tracker.finish(label, metrics)
            results[label] = MemberResult(metrics, None)
        for place in self._places:
            if place.failed is not None:
                tracker.fail(place.member.label, place.failed)
                results[place.member.label] = MemberResult(None, place.failed)
        return results

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
        """A line with the time in each member's log.txt; metrics never hold wall-clock."""
        line = f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n"
        for place in self._places:
            with (folder.member_folder(place.member.label) / "log.txt").open("a") as file:
                file.write(line)


def _check_block(block: Block, bank: Bank) -> None:
    (count, width), first = block.activations[bank.site.hook].shape, bank.members[0]
    if width != first.d:
        raise ConfigError(f"site.width={first.d}: {bank.site.hook} gives {width} numbers per position")
    if count < first.config.training.batch_size:
        raise ConfigError(
            f"training.batch_size={first.config.training.batch_size} is larger than a block of activations, which has"
            f" {count} counted positions; lower it or raise data.block_rows={first.config.data.block_rows}"
        )
