"""How the members of a group are judged on held-out tokens, and written when they are done."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

from sae_sweep import __version__
from sae_sweep.activations.block import Block
from sae_sweep.activations.first_block import write_first_block
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import Evaluation, Evaluator
from sae_sweep.evaluation.metrics import VERSION, closed
from sae_sweep.evaluation.rows import write_rows
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.folder.names import LAST_GOOD, LAYERS, METRICS
from sae_sweep.folder.provenance import write_provenance
from sae_sweep.folder.sweep import MemberResult
from sae_sweep.host.memory import OUT_OF_MEMORY, give_back, is_out_of_memory
from sae_sweep.interop import saelens
from sae_sweep.model.sites import Site
from sae_sweep.plan.constants import TRIM_ROWS, rows_together
from sae_sweep.plan.fingerprints import digests, fingerprints, hashed
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.devices.waves import Waves
from sae_sweep.training.run.blocks import Blocks
from sae_sweep.training.run.trim import mean_l0, trimmed
from sae_sweep.training.run.work import Work
from sae_sweep.training.step.member import TrainedMember

CORRECTION_ROWS = 32_768
"""Activations on which the last correction of `sae.l0` is made."""


Judged: TypeAlias = Callable[[float, int], None]
"""Is told the share of the held-out rows that so many members have been judged on."""


class Judging:
    """The court of one group: the same held-out rows for every member, on the way and at the end."""

    def __init__(
        self, waves: Waves, evaluators: Mapping[str, Evaluator], blocks: Blocks, source_metadata: Mapping[str, Any]
    ) -> None:
        """`evaluators` by value of `evaluation.positions`; `source_metadata` is what cfg.json says of the source."""
        self._waves, self._evaluators, self._blocks = waves, dict(evaluators), blocks
        self._source_metadata, self._began = source_metadata, datetime.now(UTC)
        self._most: int | None = None
        """Members that have room to be judged together; None where memory never was short."""
        self._trim_rows = TRIM_ROWS

    def judge(
        self, members: Sequence[TrainedMember], work: Work, done: Judged
    ) -> Iterator[tuple[TrainedMember, Evaluation]]:
        """Evaluate members, those together that are on the device together, and tell `done` how far that is."""
        self._blocks.rest()  # judging runs the model too
        finished = 0

        def told(some: int, share: float) -> None:
            done((finished + share * some) / len(members), len(members))

        if members:
            told(0, 0.0)
        for wave in self._waves.each():
            for positions in list(self._evaluators):
                own = [m for m in members if m in wave and m.plan.config.evaluation.positions == positions]
                for judged in self._as_many_as_fit(positions, own, work, told):
                    yield judged
                    finished += 1

    def _as_many_as_fit(
        self, positions: str, members: Sequence[TrainedMember], work: Work, done: Callable[[int, float], None]
    ) -> Iterator[tuple[TrainedMember, Evaluation]]:
        """Evaluate members of one evaluator together, as many as there is memory for: each by itself,
        so that its company changes nothing. One that has no room alone is judged in smaller batches of rows. Raises
        ConfigError where they cannot be smaller."""
        left = list(members)
        while left:
            some = left[: self._most]
            evaluations = self._together(self._evaluators[positions], some, work, partial(done, len(some)))
            if evaluations is None:
                self._shrink(positions, some, work)
                continue
            del left[: len(some)]
            yield from ((member, evaluations.pop(member.plan.label)) for member in some)

    def _together(
        self, evaluator: Evaluator, members: Sequence[TrainedMember], work: Work, done: Callable[[float], None]
    ) -> dict[str, Evaluation] | None:
        """Evaluate members at once; None where memory does not last."""
        try:
            with self._waves.here(members):
                saes = [member.spliced() for member in members]
            with work.stop.at_once(work.ranks.alone):
                return evaluator.evaluate(saes, done)
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
        return None  # dealt with where the error no longer holds what was made

    def _shrink(self, positions: str, some: Sequence[TrainedMember], work: Work) -> None:
        """Let fewer members, then fewer rows, be judged at a time from here on."""
        give_back()
        if len(some) > 1:
            self._most = len(some) // 2
            how = f"at most {self._most} of {len(some)} members together"
        else:
            smaller = self._evaluators[positions].in_smaller_batches()
            if smaller is None:
                raise ConfigError(
                    f"launcher.memory_gb: {some[0].plan.label} cannot be judged, memory does not last for one row of"
                    " data.context tokens; the same command goes on from the checkpoint where there is more"
                )
            self._evaluators[positions] = smaller
            how = f"{some[0].plan.label} alone, in batches of half as many rows"
        work.progress.message(f"launcher.memory_gb: out of memory while judging; from here on {how}")

    def finish(
        self, members: Sequence[TrainedMember], work: Work, done: Judged, apart: Callable[[Work], None]
    ) -> dict[str, MemberResult]:
        """Correct, judge and save every member that has not failed; all results, by label. `apart` is called once no
        more blocks are needed."""
        results = {}
        living = [member for member in members if member.failed is None]
        with work.stop.at_once(work.ranks.alone):
            self._correct_rest(living, work)
        apart(work)
        diverged = {member.plan.label: member.failed for member in members if member.failed is not None}
        for member, evaluation in self.judge(living, work, done):
            label, metrics = member.plan.label, _metrics(member, evaluation)
            if broken := _not_finite(evaluation.sae, metrics):
                diverged[label] = f"it diverged: {broken}"
                continue
            work.tracker.sync_member(label)
            folder = work.folder.member_folder(label)
            write_provenance(folder, member.plan, str(evaluation.sae.tensors["b_dec"].device), self._began)
            write_rows(folder, evaluation.rows)
            self._write(folder, member, evaluation, metrics)
            work.tracker.finish(label, member.step, metrics)
            work.progress.state(label, "finished")
            work.judged(label, metrics)
            results[label] = MemberResult(metrics, None)
            work.stop.poll()
        for member in members:
            if member.plan.label in diverged:
                results[member.plan.label] = _fail(member, diverged[member.plan.label], work)
        return results

    def keep(self, members: Sequence[TrainedMember], work: Work, done: Judged) -> None:
        """Evaluate and save members that are at a milestone, as they are: `sae.l0` is corrected at the end only."""
        for member, evaluation in self.judge(members, work, done):
            label, metrics = member.plan.label, _metrics(member, evaluation)
            for tokens in member.unkept:
                if broken := _not_finite(evaluation.sae, metrics):
                    work.note(label, f"milestone {tokens} is not kept: {broken}")
                    continue
                folder = work.folder.milestone_folder(label, tokens)
                folder.mkdir(parents=True, exist_ok=True)
                self._write(folder, member, evaluation, metrics)
            member.kept_step = member.step

    def _write(self, folder: Path, member: TrainedMember, evaluation: Evaluation, metrics: Mapping[str, Any]) -> None:
        """The files of a judged member; metrics.json, which says that they are whole, last."""
        metadata, sites = {**self._source_metadata, **_metadata(member)}, member.plan.site.hooks
        write_first_block(folder, self._evaluators[member.plan.config.evaluation.positions].first_block.of(sites))
        saelens.write(folder, evaluation.sae, metadata, evaluation.frequency_F)
        if evaluation.layers:
            places = zip(member.plan.site.places, evaluation.layers, strict=True)
            found = [{"reads": at.hook, "writes": at.written.hook, **own} for at, own in places]
            write_json_atomic(folder / LAYERS, {"layers": found})
        write_json_atomic(folder / METRICS, metrics)

    def correct(self, members: Sequence[TrainedMember], block: Block, work: Work) -> None:
        """The last correction of `sae.l0`, of those members whose last step was in the block before this one. It looks
        at fewer activations at a time where memory does not last for as many."""
        left = [m for m in members if not (m.running or m.corrected or m.failed) and m.blocks == block.index]
        while left:
            try:
                with self._waves.here([left[0]]):
                    _trim(left[0], block, self._trim_rows)
                left.pop(0).corrected = True
                continue
            except OUT_OF_MEMORY as error:
                if not is_out_of_memory(error):
                    raise
            self._look_at_fewer(left[0], work)  # where the error no longer holds what was made

    def _correct_rest(self, members: Sequence[TrainedMember], work: Work) -> None:
        """The same of those for whom no block was read since: who ended last, or before a run was interrupted."""
        needed = work.ranks.exchange({member.blocks for member in members if not member.corrected})
        for index in sorted(set().union(*needed)):
            block = self._blocks.block(index)
            # who fails would not make the next block
            work.ranks.collected(partial(self.correct, members, block, work))
            del block

    def _look_at_fewer(self, member: TrainedMember, work: Work) -> None:
        give_back()
        if self._trim_rows == 1:
            raise ConfigError(
                f"launcher.memory_gb: sae.l0 of {member.plan.label} cannot be corrected, memory does not last for"
                " one activation; the same command goes on from the checkpoint where there is more"
            )
        self._trim_rows = rows_together(member.plan.width, self._trim_rows) // 2
        work.progress.message(
            f"launcher.memory_gb: out of memory while sae.l0 is corrected; from here on {self._trim_rows}"
            " activations at a time"
        )


def _trim(member: TrainedMember, block: Block, rows_at_once: int) -> None:
    """Set its L0 to `sae.l0` on a block of activations, of which it looks at so many together."""
    l0, before = member.plan.config.sae.l0, member.inference()
    assert l0 is not None
    x_BD, tokens_B = member.raw(block, slice(0, CORRECTION_ROWS))
    x_BD = x_BD.to(before.tensors["W_enc"].dtype)
    after = trimmed(before, x_BD, tokens_B, l0, rows_at_once)
    if after is not before:
        member.l0_untrimmed = mean_l0(before, x_BD, tokens_B, rows_at_once)
        member.trimmed = {name: t for name, t in after.tensors.items() if t is not before.tensors[name]}


def _fail(member: TrainedMember, reason: str, work: Work) -> MemberResult:
    label = member.plan.label
    good_step = work.keeper.place_last_good(member.plan.identity, work.folder.member_folder(label))
    kept = "" if good_step is None else f"; {LAST_GOOD} is its state of step {good_step}"
    work.note(label, reason + kept)
    work.tracker.fail(label, reason)
    return MemberResult(None, reason)


def _not_finite(sae: InferenceSae, metrics: Mapping[str, Any]) -> str | None:
    """What is no number among its weights and metrics, in words; None where all are."""
    broken = [name for name, tensor in sae.tensors.items() if not tensor.isfinite().all()]
    broken += [key for key, value in metrics.items() if isinstance(value, float) and not isfinite(value)]
    return f"its {', '.join(broken)} are not finite" if broken else None


def _metrics(member: TrainedMember, evaluation: Evaluation) -> dict[str, Any]:
    return closed(evaluation.metrics) | {
        "dead_fraction": member.dead_fraction,
        "dead_window_tokens": member.dead_window_tokens,
        "coefficient_final": member.coefficient,
        "threshold_mode": member.threshold_mode,
        "l0_untrimmed": member.l0_untrimmed,
        "tokens_trained": member.tokens,
        "version": VERSION,
    }


def _metadata(member: TrainedMember) -> dict[str, Any]:
    """What cfg.json says of how the SAE came to be."""
    return {
        "training_library": f"sae-sweep {__version__}",
        "hook_name": member.plan.site.hook,
        **_further_hooks(member.plan.site),
        "training_architecture": member.plan.config.sae.method(),
        "training_tokens": member.tokens,
        "training_objective": member.plan.config.training.objective,
        "input_scale": member.input_scales if member.plan.site.beside else member.input_scales[0],
        "content": digests(hashed(fingerprints(member.plan.config))),
    }


def _further_hooks(site: Site) -> dict[str, Any]:
    """Of a transcoder where it writes, of a crosscoder all its hooks, of a cross-layer transcoder all of both."""
    if site.beside:
        return {"hook_names": list(site.reads)} | ({"hook_names_out": list(site.writes)} if site.output else {})
    return {"hook_name_out": site.output.hook} if site.output else {}
