"""How the members of a group are judged on held-out tokens, and written when they are done."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

from sae_sweep import __version__
from sae_sweep.activations.prefetch import Prefetch
from sae_sweep.activations.stream import Block
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import Evaluation, Evaluator
from sae_sweep.evaluation.metrics import VERSION, closed
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.folder.names import LAST_GOOD, METRICS
from sae_sweep.folder.sweep import MemberResult
from sae_sweep.host.memory import OUT_OF_MEMORY, give_back, is_out_of_memory
from sae_sweep.interop import saelens
from sae_sweep.model.sites import Site
from sae_sweep.plan.constants import TRIM_ROWS, rows_together
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.devices.waves import Waves
from sae_sweep.training.run.place import Place
from sae_sweep.training.run.work import Work


class Judging:
    """The court of one group: the same held-out rows for every member, on the way and at the end."""

    def __init__(
        self, waves: Waves, evaluators: Mapping[str, Evaluator], blocks: Prefetch, source_metadata: Mapping[str, Any]
    ) -> None:
        """`evaluators` by value of `evaluation.positions`; `source_metadata` is what cfg.json says of the source."""
        self._waves, self._evaluators, self._blocks = waves, dict(evaluators), blocks
        self._source_metadata = source_metadata
        self._most: int | None = None
        """Members that have room to be judged together; None where memory never was short."""
        self._trim_rows = TRIM_ROWS

    def judge(
        self, places: Sequence[Place], work: Work, done: Callable[[float], None]
    ) -> Iterator[tuple[Place, Evaluation]]:
        """Evaluate members, those together that are on the device together; `done` is told the share of each reading
        of the held-out rows."""
        self._blocks.rest()  # judging runs the model too
        for trainers in self._waves.each():
            for positions in list(self._evaluators):
                own = [p for p in places if p.member.config.evaluation.positions == positions and p.trainer in trainers]
                yield from self._in_parts(positions, own, work, done)

    def _in_parts(
        self, positions: str, places: Sequence[Place], work: Work, done: Callable[[float], None]
    ) -> Iterator[tuple[Place, Evaluation]]:
        """Evaluate members of one evaluator together, or in as many parts as there is memory for: each by itself,
        so that its company changes nothing. One that has no room alone is judged in smaller batches of rows. Raises
        ConfigError where they cannot be smaller."""
        left = list(places)
        while left:
            part = left[: self._most]
            evaluations = self._together(self._evaluators[positions], part, work, done)
            if evaluations is None:
                self._shrink(positions, part, work)
                continue
            del left[: len(part)]
            yield from ((p, evaluations.pop(p.member.label)) for p in part)

    def _together(
        self, evaluator: Evaluator, places: Sequence[Place], work: Work, done: Callable[[float], None]
    ) -> dict[str, Evaluation] | None:
        """Evaluate members at once; None where memory does not last."""
        try:
            with self._waves.here([p.trainer for p in places]):
                saes = [p.spliced() for p in places]
            with work.stop.at_once(work.ranks.alone):
                return evaluator.evaluate(saes, done)
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
        return None  # dealt with where the error no longer holds what was made

    def _shrink(self, positions: str, part: Sequence[Place], work: Work) -> None:
        """Let fewer members, then fewer rows, be judged at a time from here on."""
        give_back()
        if len(part) > 1:
            self._most = len(part) // 2
            how = f"at most {self._most} of {len(part)} members together"
        else:
            smaller = self._evaluators[positions].in_smaller_batches()
            if smaller is None:
                raise ConfigError(
                    f"launcher.memory_gb: {part[0].member.label} cannot be judged, memory does not last for one row of"
                    " data.context tokens; the same command goes on from the checkpoint where there is more"
                )
            self._evaluators[positions] = smaller
            how = f"{part[0].member.label} alone, in batches of half as many rows"
        work.progress.message(f"launcher.memory_gb: out of memory while judging; from here on {how}")

    def finish(
        self, places: Sequence[Place], work: Work, done: Callable[[float], None], part: Callable[[Work], None]
    ) -> dict[str, MemberResult]:
        """Correct, judge and save every member that has not failed; all results, by label. `part` is called once no
        more blocks are needed."""
        results = {}
        living = [p for p in places if p.failed is None]
        with work.stop.at_once(work.ranks.alone):
            self._trim([p for p in living if p.member.config.sae.l0 is not None], work)
        part(work)
        diverged = {p.member.label: p.failed for p in places if p.failed is not None}
        for place, evaluation in self.judge(living, work, done):
            label, metrics = place.member.label, _metrics(place, evaluation)
            if broken := _not_finite(evaluation.sae, metrics):
                diverged[label] = f"it diverged: {broken}"
                continue
            work.tracker.sync()
            self._write(work.folder.member_folder(label), place, evaluation, metrics)
            work.tracker.finish(label, metrics)
            results[label] = MemberResult(metrics, None)
            work.stop.poll()
        for place in places:
            if place.member.label in diverged:
                results[place.member.label] = _fail(place, diverged[place.member.label], work)
        return results

    def keep(self, places: Sequence[Place], work: Work, done: Callable[[float], None]) -> None:
        """Evaluate and save members that are at a milestone, as they are: `sae.l0` is corrected at the end only."""
        for place, evaluation in self.judge(places, work, done):
            label, metrics = place.member.label, _metrics(place, evaluation)
            for tokens in place.milestones:
                if broken := _not_finite(evaluation.sae, metrics):
                    work.note(label, f"milestone {tokens} is not kept: {broken}")
                    continue
                folder = work.folder.milestone_folder(label, tokens)
                folder.mkdir(parents=True, exist_ok=True)
                self._write(folder, place, evaluation, metrics)
            place.kept_step = place.state.step

    def _write(self, folder: Path, place: Place, evaluation: Evaluation, metrics: Mapping[str, Any]) -> None:
        """The files of a judged member; metrics.json, which says that they are whole, last."""
        metadata = {**self._source_metadata, **_metadata(place)}
        saelens.write(folder, evaluation.sae, metadata, evaluation.frequency_F)
        write_json_atomic(folder / METRICS, metrics)

    def _trim(self, places: Sequence[Place], work: Work) -> None:
        """The last correction of `sae.l0`, of each member on the first block that it has not trained on."""
        needed = work.ranks.exchange({place.next_block for place in places})
        for index in sorted(set().union(*needed)):
            block = self._blocks.block(index)
            due = [place for place in places if place.next_block == index]
            work.ranks.collected(partial(self._trim_all, due, block, work))  # who fails would not make the next block
            del block

    def _trim_all(self, places: Sequence[Place], block: Block, work: Work) -> None:
        for place in places:
            self._trim_one(place, block, work)

    def _trim_one(self, place: Place, block: Block, work: Work) -> None:
        """Correct one member, looking at fewer activations at a time where memory does not last for as many."""
        while not self._trimmed(place, block):
            give_back()
            if self._trim_rows == 1:
                raise ConfigError(
                    f"launcher.memory_gb: sae.l0 of {place.member.label} cannot be corrected, memory does not last for"
                    " one activation; the same command goes on from the checkpoint where there is more"
                )
            self._trim_rows = rows_together(place.member.width, self._trim_rows) // 2
            work.progress.message(
                f"launcher.memory_gb: out of memory while sae.l0 is corrected; from here on {self._trim_rows}"
                " activations at a time"
            )

    def _trimmed(self, place: Place, block: Block) -> bool:
        """Whether memory lasted."""
        try:
            with self._waves.here([place.trainer]):
                place.trim(block, self._trim_rows)
        except OUT_OF_MEMORY as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True


def _fail(place: Place, reason: str, work: Work) -> MemberResult:
    label = place.member.label
    good_step = work.keeper.place_last_good(place.member.identity, work.folder.member_folder(label))
    kept = "" if good_step is None else f"; {LAST_GOOD} is its state of step {good_step}"
    work.note(label, reason + kept)
    work.tracker.fail(label, reason)
    return MemberResult(None, reason)


def _not_finite(sae: InferenceSae, metrics: Mapping[str, Any]) -> str | None:
    """What is no number among its weights and metrics, in words; None where all are."""
    broken = [name for name, tensor in sae.tensors.items() if not tensor.isfinite().all()]
    broken += [key for key, value in metrics.items() if isinstance(value, float) and not isfinite(value)]
    return f"its {', '.join(broken)} are not finite" if broken else None


def _metrics(place: Place, evaluation: Evaluation) -> dict[str, Any]:
    state = place.state
    return closed(evaluation.metrics) | {
        "dead_fraction": place.trainer.dead_fraction(place.index),
        "dead_window_tokens": state.dead_window_tokens,
        "coefficient_final": place.trainer.coefficient(place.index),
        "threshold_mode": place.threshold_mode,
        "l0_untrimmed": place.l0_untrimmed,
        "tokens_trained": state.tokens,
        "version": VERSION,
    }


def _metadata(place: Place) -> dict[str, Any]:
    """What cfg.json says of how the SAE came to be."""
    return {
        "sae_sweep_version": __version__,
        "hook_name": place.member.site.hook,
        **_further_hooks(place.member.site),
        "training_architecture": place.member.config.sae.method(),
        "training_tokens": place.tokens,
        "training_objective": place.member.config.training.objective,
        "input_scale": place.trainer.inputs.scales if place.member.site.beside else place.trainer.inputs.scales[0],
    }


def _further_hooks(site: Site) -> dict[str, Any]:
    """Of a transcoder where it writes, of a crosscoder all its hooks."""
    if site.beside:
        return {"hook_names": list(site.hooks)}
    return {"hook_name_out": site.output.hook} if site.output else {}
