"""How a member is trained where its config leaves it open (`sae.recipe`). No torch."""

from dataclasses import dataclass

RECIPES = ("tuned", "paper")
"""tuned: what was measured to work best for a run of this length and width (docs/recipes.md). paper: the paper's. What
a name stands for never changes, since members are known by it: other numbers get another name."""


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


def tuned(run: Run) -> Recipe:
    """The recipe of every architecture but for what its own facts change of it."""
    return Recipe(lr=1e-3, lr_decay_fraction=0.2)
