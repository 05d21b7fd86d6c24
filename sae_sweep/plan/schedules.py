"""What changes over a member's run: lr, the sparsity coefficient's ramp, and when dead latents are resampled.

Every length is the paper's or a fraction of the run, whichever is less, so a short run is a small copy of a
long one. All of it is a function of the step alone: a resumed run needs no schedule state. No torch here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, cos, pi

from sae_sweep.architectures.recipe import STEERING, Recipe, Run, Steering
from sae_sweep.config.schema import MemberConfig, TrainingConfig
from sae_sweep.plan.milestones import Milestone, resolve_milestones

WARMUP_SHARE = 20
"""A warm-up is at most 1 / 20 of the run."""
RESAMPLINGS = 4
"""Bricken et al. 2023 resample at 25k, 50k, 75k and 100k of 200k steps or more: never after half the run."""
LATEST_SHARE = 0.8
"""Of the run, in which a sparsity warm-up is over where a coefficient is steered: what is left settles it."""
EASE_BELOW = 6.0
"""Of lr over its largest: where steering to the end begins to ease off."""
REWARM_FLOOR = 0.1
"""lr starts, and restarts after a resampling, at a tenth (Rajamanoharan et al. 2024)."""


@dataclass(frozen=True)
class Schedule:
    """One member's resolved schedule; every length is in steps of its own batch size."""

    total_steps: int
    lr: float
    beta1: float
    beta2: float
    eps: float
    clip: float
    lr_warmup_steps: int
    lr_decay_steps: int
    sparsity_warmup_steps: int
    resample_steps: tuple[int, ...]
    """Dead latents are resampled after this many steps."""
    dead_window_steps: int
    """A latent that has not fired in this many steps is resampled."""
    hold_from: int
    """From this step on, a steered coefficient stays as it is."""
    steering: Steering = STEERING["paper"]
    milestones: tuple[Milestone, ...] = ()
    """After which steps the member is kept as it is then."""
    lr_schedule: str = "linear"
    """How lr falls over the last `lr_decay_steps`: linear or cosine."""
    bias_lr: float = 1.0
    """lr of biases and thresholds, as a multiple of lr."""

    def milestones_at(self, step: int) -> list[Milestone]:
        """Those that are reached after this many steps."""
        return [milestone for milestone in self.milestones if milestone.step == step]

    def warming_at(self, step: int) -> bool:
        """Whether lr is still rising at step `step`, at the start or after a resampling."""
        return self._since_restart(step) < self.lr_warmup_steps

    def _since_restart(self, step: int) -> int:
        return step - max((s for s in self.resample_steps if s <= step), default=0)

    def lr_at(self, step: int) -> float:
        """Learning rate of step `step` (from 0): warm-up or re-warm-up times the final decay."""
        ramp = 1.0
        if self.warming_at(step):
            since = self._since_restart(step)
            ramp = REWARM_FLOOR + (1 - REWARM_FLOOR) * (1 - cos(pi * since / self.lr_warmup_steps)) / 2
        left = self.total_steps - step
        decay = min(1.0, left / self.lr_decay_steps) if self.lr_decay_steps else 1.0
        if self.lr_schedule == "cosine":
            decay = (1 - cos(pi * decay)) / 2
        return self.lr * ramp * decay

    def steers_at(self, step: int) -> float:
        """Share of its gain with which a coefficient is steered at step `step`: none while lr rises, when L0 is far off
        whatever the coefficient, or from `hold_from` on. Where it is not held, it eases off as lr falls below a sixth:
        L0 hardly answers any more."""
        if step >= self.hold_from or self.warming_at(step):
            return 0.0
        return 1.0 if self.hold_from < self.total_steps else min(1.0, EASE_BELOW * self.lr_at(step) / self.lr)

    def fall_at(self, step: int) -> float:
        """How far the fall of the largest L0 that is let pass is at step `step`, from 0 to 1."""
        length = self.steering.fall_share * self.total_steps
        return min(1.0, step / length) if length else 1.0

    def sparsity_at(self, step: int) -> float:
        """Share of the coefficient in force at step `step`: a linear ramp from 0 to 1."""
        return min(1.0, step / self.sparsity_warmup_steps) if self.sparsity_warmup_steps else 1.0


def _sparsity_warmup(config: MemberConfig, recipe: Recipe, total: int) -> int:
    own = config.training.sparsity_warmup_steps
    if own is not None:
        return min(own, total)
    if config.init_from is not None:
        return 0  # its latents are as sparse as they should be
    if not recipe.sparsity_warmup_fraction:
        return min(recipe.sparsity_warmup_steps, total // WARMUP_SHARE)
    # A paper that ramps over a share of the run means that share; but steering needs some of it to settle.
    longest = LATEST_SHARE if config.sae.l0 is not None else 1.0
    return round(min(recipe.sparsity_warmup_fraction, longest) * total)


def resolve_schedule(config: MemberConfig, d: int, width: int) -> Schedule:
    """The schedule of one member: its own `training` keys where given, else its recipe's, cut to the run."""
    training, steering = config.training, STEERING[config.sae.recipe]
    total = max(1, int(training.tokens) // training.batch_size)
    recipe = config.sae.training_recipe(Run(total, training.batch_size, d, width))
    share = total // WARMUP_SHARE

    def own_or_share(own: int | None, paper: int) -> int:
        return min(own, total) if own is not None else min(paper, share)

    def own(value: float | None, paper: float) -> float:
        return paper if value is None else value

    stays = config.init_from is not None or config.sae.control  # what a control does not train stays as it began
    every = 0 if stays else min(recipe.resample_every, total // (2 * RESAMPLINGS))
    return Schedule(
        total_steps=total,
        lr=own(training.lr, recipe.lr),
        beta1=own(training.beta1, recipe.beta1),
        beta2=own(training.beta2, recipe.beta2),
        eps=own(training.eps, recipe.eps),
        clip=own(training.clip, recipe.clip),
        lr_warmup_steps=own_or_share(training.lr_warmup_steps, recipe.lr_warmup_steps),
        lr_decay_steps=round(decay_fraction(training, recipe) * total),
        sparsity_warmup_steps=_sparsity_warmup(config, recipe, total),
        resample_steps=tuple(every * (i + 1) for i in range(RESAMPLINGS)) if every else (),
        dead_window_steps=max(1, every // 2),
        hold_from=int(steering.hold_share * total),
        steering=steering,
        milestones=resolve_milestones(training, total),
        bias_lr=own(training.bias_lr, recipe.bias_lr),
        lr_schedule="cosine" if training.lr_schedule == "cosine" else "linear",
    )


def decay_fraction(training: TrainingConfig, recipe: Recipe) -> float:
    """The share of a run over which lr falls. Where a shape is asked for and neither config nor recipe says over which
    share, it falls all along."""
    if training.lr_schedule == "constant":
        return 0.0
    share = recipe.lr_decay_fraction if training.lr_decay_fraction is None else training.lr_decay_fraction
    silent = training.lr_schedule is not None and training.lr_decay_fraction is None
    return 1.0 if silent and not share else share


def blocks_needed(configs: Iterable[MemberConfig], positions: int) -> int:
    """Blocks of so many counted positions that these members read: until their budgets are spent, and one more where
    the last correction of `sae.l0` changes one."""

    def needed(config: MemberConfig) -> int:
        steps = max(1, int(config.training.tokens) // config.training.batch_size)
        return ceil(steps / steps_in_block(config, positions)) + config.sae.corrected

    return max(map(needed, configs))


def steps_in_block(config: MemberConfig, positions: int) -> int:
    """Steps that a member takes on a block of so many counted positions, or, where its objective is not local, on one
    of whole rows; at least 1."""
    batch, data = config.training.batch_size, config.data
    return max(1, positions // batch if config.training.local else data.block_rows // (batch // data.context))
