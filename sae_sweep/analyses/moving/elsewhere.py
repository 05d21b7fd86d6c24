"""Members put where they were not trained, and passes over the held-out rows with them there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sae_sweep.analyses.moving.judged import Judged, add
from sae_sweep.analyses.moving.rescaled import Size, rescaled
from sae_sweep.analyses.moving.targets import Target
from sae_sweep.analyses.session.batch import Batch, Lost
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.session import Session, Stream
from sae_sweep.analyses.session.told import Told
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.training.run.sources import LanguageModelSource


@dataclass(frozen=True)
class Moved:
    """One member at one place, as it is and rescaled."""

    target: Target
    saes: Mapping[str, SplicedSae]
    """By state."""
    means: Mapping[str, Means]
    there: Size

    @classmethod
    def of(cls, kept: Kept, target: Target, rows: int, device: torch.device, sizes: tuple[Size, Size]) -> "Moved":
        """`rows` are those held out, `sizes` what activations are like at the member's own site and there."""
        sae, (own, there) = target.member.sae, sizes
        made = {"as_is": sae, "rescaled": rescaled(sae, own, there)}
        saes = {state: SplicedSae(state, target.hook, each).on(device) for state, each in made.items()}
        means = {state: Means(kept, f"{target.label}/{state}", rows) for state in saes}
        return cls(target, saes, means, there)

    def add(self, batch: Batch) -> None:
        """Take in a batch of the place's clean pass."""
        others = batch.of_others(self.saes)
        zero = zeros(batch, others, "as_is")
        for state, means in self.means.items():
            add(means, others, state, zero, self.there.mean_D)

    def judged(self) -> dict[str, Judged]:
        """What it is worth there, by state."""
        return {state: Judged.of_means(means) for state, means in self.means.items()}


def zeros(batch: Batch, others: Batch, label: str) -> Lost:
    """What the model loses with zeros where an SAE writes; once for all SAEs there."""

    def made() -> Lost:
        return others.lost(label, {"zero": torch.zeros_like(others.written(label, others.replaced(label)))})

    return batch.once(("zero", others.saes[label].hook), made)


def sizes_at(kept: Kept, name: str, source: LanguageModelSource, hooks: Sequence[str]) -> dict[str, Size]:
    """What activations are like at some hooks, of the first block of training."""
    block = source.calibration()
    return {hook: Size.of(kept, f"{name}/{hook}", block, hook) for hook in hooks}


def in_models(session: Session, targets: Sequence[Target], homes: Mapping[str, tuple[Stream, Size]]) -> list[Moved]:
    """Members in other models, one model after the other; `homes` are their streams and sizes by label."""
    found = []
    for path in dict.fromkeys(target.model for target in targets):
        for number, stream in enumerate(session.streams.opened):
            own = [one for one in targets if one.model == path and homes[one.member.label][0] is stream]
            if own:
                found += _in_model(session.kept, f"{path}/{number}", own, homes, session.told)
    return found


def _in_model(
    kept: Kept, name: str, targets: Sequence[Target], homes: Mapping[str, tuple[Stream, Size]], told: Told
) -> list[Moved]:
    """Read the held-out rows with one model; those that were before it was killed are passed over."""
    config, hooks = targets[0].config, tuple(dict.fromkeys(target.hook for target in targets))
    source = LanguageModelSource(config, hooks, [target.config for target in targets])
    evaluator = source.evaluator(config.evaluation.positions, {hook: torch.zeros(0) for hook in hooks})
    sizes = sizes_at(kept, name, source, hooks)
    moved = [
        Moved.of(kept, one, evaluator.rows, source.device, (homes[one.member.label][1], sizes[one.hook]))
        for one in targets
    ]
    done = kept.zeros(f"batches/{name}", 1)
    for number, rows in enumerate(evaluator.batches(int(done)), int(done)):
        told(f"transfer: {targets[0].model}", number, evaluator.batch_count)
        batch = Batch(source.model, rows, evaluator, {})
        for one in moved:
            one.add(batch)
        done += 1
        kept.save_now_and_then()
    return moved
