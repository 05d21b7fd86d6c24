"""One group, from activations to metrics: where source, banks, evaluation, tracking and files meet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from sae_sweep import __version__
from sae_sweep.activations.prefetch import Prefetch
from sae_sweep.activations.scaling import site_statistics
from sae_sweep.activations.stream import Block
from sae_sweep.config import MemberConfig, config_entries
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation import recovery, splice
from sae_sweep.evaluation.evaluate import Candidate, Judgement
from sae_sweep.interop.saelens import save_sae
from sae_sweep.passes import Pass, Wave, plan_passes
from sae_sweep.plan import Bank, Group, Member
from sae_sweep.reporting.progress import Progress
from sae_sweep.reporting.tracking import TrackedMember, Tracker
from sae_sweep.runs import METRICS, MemberResult, SweepFolder, write_json_atomic
from sae_sweep.training.lanes import Lanes
from sae_sweep.training.sources import Judge, Source, open_source
from sae_sweep.training.trainer import BankTrainer
from sae_sweep.training.trim import mean_l0, trimmed
from sae_sweep.training.waves import Paged, Waves, memory_limits

BLOCKS_WITHOUT_STEP = 10
"""A stream whose blocks stay smaller than a batch this often would run the model for ever."""
SAE_DTYPE = torch.float32
"""Of parameters, moments and arithmetic."""
TRIM_ROWS = 32_768
"""Activations on which the last correction of `sae.l0` is made."""


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
    return GroupRun(group, source, turns, {each: source.judge(each, means) for each in positions})


def _waits(config: MemberConfig, waves: Sequence[Wave], device: torch.device) -> bool:
    """Whether members begin in the host's memory: where they take turns, and where the device may prove too small in
    the first block, unless the host has no room for that."""
    if len(waves) > 1:
        return True
    if device.type != "cuda" and config.launcher.memory_gb is None:
        return False
    _, host = memory_limits(config)
    return host is None or waves[0].state_bytes <= host


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

    @property
    def tokens(self) -> int:
        return self.trainer.states[self.index].tokens

    @property
    def failed(self) -> str | None:
        return self.trainer.states[self.index].failed

    def candidate(self) -> Candidate:
        """The member as it is judged now."""
        step, trainer = self.trainer.states[self.index].step, self.trainer
        sae = trainer.inference(self.index)
        if self.trimmed is not None:
            sae = replace(sae, tensors={**sae.tensors, **self.trimmed})
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
            self.trimmed = {name: t for name, t in after.tensors.items() if t is not before.tensors[name]}
            self.l0_untrimmed = mean_l0(before, x_BD, tokens_B)

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
        waves: Waves,
        judges: Mapping[str, Judge],
    ):
        self.source = source
        self._group, self._waves, self._judges = group, waves, judges
        self._blocks = Prefetch(source.block, source.device, source.pays_ahead)
        self._places = [
            Place(state.member, trainer, i) for trainer in waves.trainers for i, state in enumerate(trainer.states)
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
                with Lanes(self._waves.trainers) as lanes:
                    self._train(lanes, progress, tracker)
                progress.message(f"judging {len(labels)} members on held-out tokens")
                self._note(folder, "training has ended")
                results = self._finish(folder, tracker, progress)
                self._note(folder, "judged")
        finally:
            self._blocks.close()
            tracker.close()
        return results

    def _train(self, lanes: Lanes, progress: Progress, tracker: Tracker) -> None:
        def show() -> None:
            progress.update(sum(p.tokens for p in self._places) // len(self._places), self._log(tracker))

        def tick() -> None:
            if progress.due:
                show()

        index = empty = 0
        blocks = self._blocks
        while self._waves.running:
            block = blocks.block(index)
            if self._needed_after(block):
                blocks.announce(index + 1)
            before = sum(p.tokens for p in self._places)
            progress.place(block.epoch, block.index)
            self._waves.consume(lanes, block, tick)
            show()
            due = [p for p in self._places if p.due and p.trainer.states[p.index].running]
            for place, judgement in self._judge(due, progress):
                place.judged_tokens = place.tokens
                values = {f"heldout/{key}": value for key, value in judgement.metrics.items()}
                step = place.trainer.states[place.index].step
                tracker.log(place.member.label, step, place.tokens, values)
            del block  # before the next one is made: two would need twice the room
            index += 1
            empty = empty + 1 if before == sum(p.tokens for p in self._places) else 0
            if empty == BLOCKS_WITHOUT_STEP:
                raise ConfigError(
                    f"training.batch_size: {empty} blocks in a row held fewer counted positions than one batch;"
                    " lower it or raise data.block_rows"
                )

    def _needed_after(self, block: Block) -> bool:
        """Whether the block after this one will be read: by who goes on training, or for the last correction of who
        ends in this one. A member that fails in this one may have been the only reason."""
        for place in self._places:
            state = place.trainer.states[place.index]
            left = state.member.schedule.total_steps - state.step
            if state.running and (left > place.trainer.steps_in(block) or state.member.config.sae.l0 is not None):
                return True
        return False

    def _log(self, tracker: Tracker) -> dict[str, tuple[float, float]]:
        """Hand the new records to tracking; the last (L0, loss) of each member that has one."""
        latest = {}
        for trainer in self._waves.settled:
            new = trainer.records[:]
            del trainer.records[: len(new)]  # its lane may have added to them by now
            for record in new:
                tracker.log(record.label, record.step, record.tokens, record.values)
                latest[record.label] = (record.values["l0"], record.values["loss"])
        return latest

    def _judge(self, places: Sequence[Place], progress: Progress) -> Iterator[tuple[Place, Judgement]]:
        """Judge members, those together that are on the device together."""
        self._blocks.rest()  # judging runs the model too
        for trainers in self._waves.each():
            for positions, judge in self._judges.items():
                own = [p for p in places if p.member.config.evaluation.positions == positions and p.trainer in trainers]
                if own:
                    with self._waves.here([p.trainer for p in own]):
                        candidates = [p.candidate() for p in own]
                    judgements = judge.judge(candidates, progress.judging)
                    del candidates
                    yield from ((p, judgements.pop(p.member.label)) for p in own)

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
