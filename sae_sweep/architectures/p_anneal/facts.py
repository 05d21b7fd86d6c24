"""L1 SAE whose penalty is annealed towards L0 (Karvonen et al. 2024, arXiv 2408.00113).

Equations: `maths.py`.
"""

from dataclasses import dataclass

from sae_sweep.architectures.base import L1Config
from sae_sweep.architectures.recipe import Recipe, Run
from sae_sweep.errors import ConfigError


@dataclass(frozen=True)
class PAnnealConfig(L1Config):
    """Config of `sae=p_anneal`."""

    p_end: float
    """The exponent of the penalty falls from 1 to this."""
    anneal_after_steps: int
    """It begins to fall after so many steps (at most a twentieth of the run)."""
    pair_bytes = 35

    @property
    def unit_decoder(self) -> bool:
        return True

    def paper_recipe(self, run: Run) -> Recipe:
        """lr, warm-up and sparsity warm-up of the authors' benchmark."""
        return Recipe(
            lr=3e-4,
            lr_decay_fraction=0.2,
            sparsity_warmup_steps=5_000,
            resample_every=25_000 if self.resample else 0,
        )

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        if not 0 < self.p_end <= 1:
            raise ConfigError(f"sae.p_end={self.p_end:g} must be above 0 and at most 1")
        if self.anneal_after_steps < 0:
            raise ConfigError(f"sae.anneal_after_steps={self.anneal_after_steps} must not be negative")


Config = PAnnealConfig
