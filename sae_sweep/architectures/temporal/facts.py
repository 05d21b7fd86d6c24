"""Temporal SAE (Bhalla et al. 2025, arXiv 2511.05541). Equations: `maths.py`."""

from dataclasses import dataclass, field

from sae_sweep.architectures.base import not_negative
from sae_sweep.architectures.batchtopk.facts import BatchTopKConfig
from sae_sweep.architectures.recipe import Recipe, Run
from sae_sweep.errors import ConfigError


@dataclass(frozen=True)
class TemporalConfig(BatchTopKConfig):
    """Config of `sae=temporal`: BatchTopK of two nested prefixes, the first of which holds on from token to token."""

    groups: int = field(kw_only=True)
    prefixes: str = field(kw_only=True)
    high_share: float
    """Of the latents that are the first prefix, the high-level ones."""
    contrast: float
    """Coefficient of the contrastive loss, where squared error is divided by the variance of the inputs."""
    nested = True
    pairs = True
    pair_bytes = 30

    def paper_recipe(self, run: Run) -> Recipe:
        """Its code's, which the paper does not give."""
        return Recipe(lr=3e-4, clip=1.0)

    def high(self, width: int) -> int:
        """How many of so many latents are high-level."""
        return max(1, min(width - 1, round(self.high_share * width)))

    def fixed_sizes(self, width: int) -> list[int]:
        return [self.high(width)]

    def variations(self) -> tuple[str, ...]:
        return ()

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        if not 0 < self.high_share < 1:
            raise ConfigError(f"sae.high_share={self.high_share:g} must be above 0 and below 1")
        not_negative("contrast", self.contrast)
        if (self.groups, self.prefixes) != (2, "fixed"):
            raise ConfigError(
                f"sae.groups={self.groups} sae.prefixes={self.prefixes}: temporal has two fixed ones, sae.high_share of"
                " the latents and all; leave them at 2 and fixed"
            )
        if self.lookup_subtract:
            raise ConfigError("sae.lookup_subtract=true is not for temporal, which reads two tokens; take false")


Config = TemporalConfig
