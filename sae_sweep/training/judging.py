"""How the members of a group are judged on held-out tokens, and written when they are done."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

from sae_sweep import __version__
from sae_sweep.activations.prefetch import Prefetch
from sae_sweep.evaluation import recovery, splice
from sae_sweep.evaluation.evaluate import Judgement
from sae_sweep.interop.saelens import save_sae
from sae_sweep.model.sites import Site
from sae_sweep.runs import LAST_GOOD, METRICS, MemberResult, write_json_atomic
from sae_sweep.training.place import Place
from sae_sweep.training.sources import Judge
from sae_sweep.training.waves import Waves
from sae_sweep.training.work import Work


class Judging:
    """The court of one group: the same held-out rows for every member, on the way and at the end."""

    def __init__(
        self, waves: Waves, judges: Mapping[str, Judge], blocks: Prefetch, source_metadata: Mapping[str, Any]
    ) -> None:
        """`judges` by value of `evaluation.positions`; `source_metadata` is what cfg.json says of the source."""
        self._waves, self._judges, self._blocks, self._source_metadata = waves, judges, blocks, source_metadata

    def judge(
        self, places: Sequence[Place], work: Work, done: Callable[[float], None]
    ) -> Iterator[tuple[Place, Judgement]]:
        """Judge members, those together that are on the device together; `done` is told the share of each reading
        of the held-out rows."""
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

    def finish(self, places: Sequence[Place], work: Work, done: Callable[[float], None]) -> dict[str, MemberResult]:
        """Correct, judge and save every member that has not failed; all results, by label."""
        results = {}
        living = [p for p in places if p.failed is None]
        with work.stop.at_once():
            self._trim([p for p in living if p.member.config.sae.l0 is not None])
        diverged = {p.member.label: p.failed for p in places if p.failed is not None}
        for place, judgement in self.judge(living, work, done):
            label, metrics = place.member.label, _metrics(place, judgement)
            broken = [key for key, value in metrics.items() if isinstance(value, float) and not isfinite(value)]
            if broken:
                diverged[label] = f"it diverged: its {', '.join(broken)} are not finite"
                continue
            member_folder = work.folder.member_folder(label)
            metadata = {**self._source_metadata, **_metadata(place)}
            save_sae(member_folder, judgement.sae, metadata, judgement.frequency_F)
            work.tracker.sync()
            write_json_atomic(member_folder / METRICS, metrics)
            work.tracker.finish(label, metrics)
            results[label] = MemberResult(metrics, None)
            work.stop.poll()
        for place in places:
            if place.member.label in diverged:
                results[place.member.label] = _fail(place, diverged[place.member.label], work)
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


def _fail(place: Place, reason: str, work: Work) -> MemberResult:
    label = place.member.label
    good_step = work.keeper.place_last_good(place.member.identity, work.folder.member_folder(label))
    kept = "" if good_step is None else f"; {LAST_GOOD} is its state of step {good_step}"
    work.note(label, reason + kept)
    work.tracker.fail(label, reason)
    return MemberResult(None, reason)


def _metrics(place: Place, judgement: Judgement) -> dict[str, Any]:
    state = place.state
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


def _metadata(place: Place) -> dict[str, Any]:
    """What cfg.json says of how the SAE came to be."""
    return {
        "sae_sweep_version": __version__,
        "hook_name": place.member.site.hook,
        **_further_hooks(place.member.site),
        "training_architecture": place.member.config.sae.method(),
        "training_tokens": place.tokens,
        "input_scale": place.trainer.scales if place.member.site.beside else place.trainer.scales[0],
    }


def _further_hooks(site: Site) -> dict[str, Any]:
    """Of a transcoder where it writes, of a crosscoder all its hooks."""
    if site.beside:
        return {"hook_names": list(site.hooks)}
    return {"hook_name_out": site.output.hook} if site.output else {}
