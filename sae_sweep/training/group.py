"""One group, from tokens to metrics: where model, stream, banks, evaluation, tracking and files meet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import torch

from sae_sweep import __version__
from sae_sweep.activations.scaling import site_statistics
from sae_sweep.activations.stream import ActivationStream, Block
from sae_sweep.config import MemberConfig, config_entries
from sae_sweep.data.tokens import Tokens, open_tokens
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluate import Candidate, Evaluator, HeldOut, Judgement
from sae_sweep.interop.saelens import save_sae
from sae_sweep.model.harvest import harvest
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.load import load_model
from sae_sweep.plan import Bank, Group, Member
from sae_sweep.reporting.progress import Progress
from sae_sweep.reporting.tracking import TrackedMember, Tracker
from sae_sweep.runs import METRICS, MemberResult, SweepFolder, write_json_atomic
from sae_sweep.training.trainer import BankTrainer

BLOCKS_WITHOUT_STEP = 10
"""A stream whose blocks stay smaller than a batch this often would run the model for ever."""
SAE_DTYPE = torch.float32
"""Of parameters, moments and arithmetic."""


def open_group(group: Group) -> "GroupRun":
    """Load what a group needs. Writes nothing, so what only shows now leaves no trace: raises ConfigError."""
    config = group.members[0].config
    model = load_model(config.model)
    tokens = open_tokens(config.data, config.evaluation.tokens, model.tokenizer, model.facts.vocab_size)
    stream = ActivationStream(model, tokens.training, group.hooks, config.data, harvest)
    block = _first_block(stream, config)
    for bank in group.banks:
        _check_block(block, bank)
    statistics = site_statistics(block)
    trainers = [
        BankTrainer(bank, statistics[bank.site.hook], model.device, SAE_DTYPE, config.tracking.log_every)
        for bank in group.banks
    ]
    means = {hook: s.mean for hook, s in statistics.items()}
    judges = {
        positions: Evaluator(model, _heldout(config, model, tokens, positions == "all"), means)
        for positions in {member.config.evaluation.positions for member in group.members}
    }
    bos_id = _bos_id(model)
    rows_begin_with_bos = bos_id is not None and bool((tokens.heldout[:, 0] == bos_id).all())
    return GroupRun(group, model, stream, trainers, judges, rows_begin_with_bos)


@dataclass
class Place:
    """One member in the banks: which trainer has it, and where."""

    member: Member
    trainer: BankTrainer
    index: int
    judged_tokens: int = 0
    """Training tokens at its last evaluation."""

    @property
    def tokens(self) -> int:
        return self.trainer.states[self.index].tokens

    @property
    def failed(self) -> str | None:
        return self.trainer.states[self.index].failed

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
        model: LanguageModel,
        stream: ActivationStream,
        trainers: Sequence[BankTrainer],
        judges: Mapping[str, Evaluator],
        rows_begin_with_bos: bool,
    ):
        self.model = model
        self._rows_begin_with_bos = rows_begin_with_bos
        self._group, self._stream, self._trainers, self._judges = group, stream, trainers, judges
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
                self._train(progress, tracker)
                progress.message(f"judging {len(labels)} members on held-out tokens")
                self._note(folder, "training has ended")
                results = self._finish(folder, tracker)
                self._note(folder, "judged")
        finally:
            tracker.close()
        return results

    def _train(self, progress: Progress, tracker: Tracker) -> None:
        def after_step() -> None:
            if progress.due:
                progress.update(sum(p.tokens for p in self._places) // len(self._places), self._log(tracker))

        index = empty = 0
        while any(trainer.running for trainer in self._trainers):
            block = self._stream.block(index)
            before = sum(p.tokens for p in self._places)
            progress.place(block.epoch, block.index)
            for trainer in self._trainers:
                trainer.consume(block, after_step)
            self._log(tracker)
            due = [p for p in self._places if p.due and p.trainer.states[p.index].running]
            for place, judgement in self._judge(due):
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
            for record in trainer.records:
                tracker.log(record.label, record.step, record.tokens, record.values)
                latest[record.label] = (record.values["l0"], record.values["loss"])
            trainer.records.clear()
        return latest

    def _judge(self, places: Sequence[Place]) -> list[tuple[Place, Judgement]]:
        judged = []
        for positions, evaluator in self._judges.items():
            own = [p for p in places if p.member.config.evaluation.positions == positions]
            if own:
                candidates = [Candidate(p.member.label, p.trainer.hook, p.trainer.inference(p.index)) for p in own]
                judgements = evaluator.judge(candidates)
                judged += [(p, judgements[p.member.label]) for p in own]
        return judged

    def _finish(self, folder: SweepFolder, tracker: Tracker) -> dict[str, MemberResult]:
        results = {}
        for place, judgement in self._judge([p for p in self._places if p.failed is None]):
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

    def _metrics(self, place: Place, judgement: Judgement) -> dict[str, Any]:
        state = place.trainer.states[place.index]
        return {
            **judgement.metrics,
            "dead_fraction": place.trainer.dead_fraction(place.index),
            "dead_window_tokens": state.dead_window_tokens,
            "coefficient_final": place.trainer.coefficient(place.index),
            "threshold_mode": None,
            "tokens_trained": state.tokens,
        }

    def _metadata(self, place: Place) -> dict[str, Any]:
        """What cfg.json says of where the SAE came from."""
        config = place.member.config
        return {
            "sae_sweep_version": __version__,
            "model_name": config.model.path or config.model.name,
            "hook_name": place.member.site.hook,
            "dataset_path": config.data.path or config.data.kind,
            "context_size": config.data.context,
            "prepend_bos": self._rows_begin_with_bos,
            "exclude_special_tokens": True,
            "training_architecture": config.sae.architecture,
            "training_tokens": place.tokens,
            "input_scale": place.trainer.scale,
        }

    def _note(self, folder: SweepFolder, text: str) -> None:
        """A line with the time in each member's log.txt; metrics never hold wall-clock."""
        line = f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n"
        for place in self._places:
            with (folder.member_folder(place.member.label) / "log.txt").open("a") as file:
                file.write(line)


def _first_block(stream: ActivationStream, config: MemberConfig) -> Block:
    """The calibration block: the first, replayed when training begins."""
    try:
        return stream.block(0)
    except IndexError as error:  # a position beyond a table of position embeddings
        raise ConfigError(
            f"data.context={config.data.context}: {config.model.name} cannot read rows that long; lower it"
        ) from error


def _check_block(block: Block, bank: Bank) -> None:
    (count, width), first = block.activations[bank.site.hook].shape, bank.members[0]
    if width != first.d:
        raise ConfigError(f"site.width={first.d}: {bank.site.hook} gives {width} numbers per position")
    if count < first.config.training.batch_size:
        raise ConfigError(
            f"training.batch_size={first.config.training.batch_size} is larger than a block of activations, which has"
            f" {count} counted positions; lower it or raise data.block_rows={first.config.data.block_rows}"
        )


def _heldout(config: MemberConfig, model: LanguageModel, tokens: Tokens, every_position: bool) -> HeldOut:
    special = model.tokenizer.all_special_ids if model.tokenizer is not None else []
    return HeldOut(
        tokens_RT=torch.from_numpy(tokens.heldout).long(),
        special_ids=torch.tensor(special, dtype=torch.int64),
        bos_id=_bos_id(model),
        rows_per_forward=config.data.rows_per_forward,
        every_position=every_position,
    )


def _bos_id(model: LanguageModel) -> int | None:
    return model.tokenizer.bos_token_id if model.tokenizer is not None else None
