"""How a member is trained where its config leaves it open (`sae.recipe`). No torch."""

from dataclasses import dataclass, replace
from math import sqrt

RECIPES = ("balanced", "tuned", "paper")
"""balanced: what was measured to work best for a run of this length and width (docs/recipes.md). tuned: what it was
when biases had the lr of weights. paper: the paper's. What a name stands for never changes, since members are known by
it: other numbers get another name."""


@dataclass(frozen=True)
class Run:
    """What a recipe may follow from."""

    steps: int
    batch_size: int
    d: int
    """Numbers of an input."""
    width: int
    """Latents."""

    @property
    def tokens(self) -> int:
        """That it is trained on."""
        return self.steps * self.batch_size


@dataclass(frozen=True)
class Recipe:
    """How an architecture is trained. A `training` key that is null takes the field of its name."""

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    bias_lr: float = 1.0
    """lr of biases and thresholds, as a multiple of lr."""
    clip: float = 0.0
    """Largest gradient norm of a member; 0 is none."""
    lr_warmup_steps: int = 1_000
    """At most a twentieth of the run."""
    lr_decay_fraction: float = 0.0
    sparsity_warmup_steps: int = 0
    sparsity_warmup_fraction: float = 0.0
    """The same as a share of the run, where it is given so."""
    resample_every: int = 0
    """Steps between the (at most four) resamplings of dead latents; 0 is never."""


@dataclass(frozen=True)
class Steering:
    """How a coefficient is steered to `sae.l0` (`training/step/steering.py`)."""

    step_gain: float
    """Log-coefficient per unit of log-L0 error in one step, at most."""
    fall_share: float
    """Of the run, over which the largest L0 that is let pass falls from half of the latents to `sae.l0`."""
    hold_share: float
    """Of the run, after which the coefficient stays as it is; where that is all of it, steering eases off with lr."""
    damping: float
    """Log-coefficient per unit by which log L0 moved: of a coefficient that goes with L0, less comes late."""


DAMPED = Steering(0.08, 0.25, 1.0, 1.0)
STEERING = {"balanced": DAMPED, "tuned": DAMPED, "paper": Steering(0.02, 0.0, 0.8, 0.0)}
"""By recipe. No paper steers: the last is how it was done before there was a choice."""
TUNED_LR = 3.0
"""lr times the square root of d x steps."""
LARGEST_LR = 0.02
TUNED_DECAY = 0.3
BALANCED_WARMUP = 10_000
"""Steps, at most a twentieth of the run, over which a penalty comes in that the paper has from the first step on."""
BALANCED_CLIP = 1.0
"""The largest gradient norm."""
LARGE_SCALES = ("sqrt_d", "whiten")
"""Of `sae.input_scale`: those at which the numbers of inputs are of size 1."""


def tuned(run: Run, paper: Recipe) -> Recipe:
    """A paper's recipe with what was measured to be better in place of what it has from runs of 100,000 steps and more.

    A row of unit norm has d numbers of size 1 / sqrt(d), and Adam moves each by lr a step: hence sqrt(d). The rest of
    the formula is what the best lr was at several lengths (docs/recipes.md). At d 768 and 100,000 steps it gives
    3.4e-4, which is what papers take.
    """
    lr = min(LARGEST_LR, TUNED_LR / sqrt(run.d * run.steps))
    return replace(paper, lr=lr, beta1=0.9, lr_decay_fraction=TUNED_DECAY)


def balanced(run: Run, tuned: Recipe) -> Recipe:
    """The same, with biases and thresholds as quick as weights are, and kept from running away.

    Adam moves every number by about lr a step. Those of a unit row are of size 1 / sqrt(d); biases are in the unit of
    inputs (of `LARGE_SCALES`), and thresholds are logarithms: both of size 1, so they would be slower by sqrt(d). What
    is that quick also goes too far: under the whole penalty from the first step on, up to half of the latents of a wide
    SAE die in ten steps; and one batch with a long token may turn a gated one over. So the penalty has a warm-up, and
    gradients are clipped, as in April 2024's recipe.
    """
    warms = tuned.sparsity_warmup_steps or tuned.sparsity_warmup_fraction
    steps = tuned.sparsity_warmup_steps if warms else BALANCED_WARMUP
    return replace(tuned, bias_lr=sqrt(run.d), sparsity_warmup_steps=steps, clip=tuned.clip or BALANCED_CLIP)
