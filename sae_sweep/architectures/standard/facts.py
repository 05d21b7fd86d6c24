"""Standard L1 SAE: Bricken et al. 2023, and Anthropic's April 2024 update. Equations: `maths.py`."""

from dataclasses import dataclass

from sae_sweep.architectures.base import L1Config, one_of
from sae_sweep.architectures.prefixes import PrefixConfig
from sae_sweep.architectures.recipe import Recipe, Run

VARIANTS = ("bricken", "april")


@dataclass(frozen=True)
class StandardConfig(PrefixConfig, L1Config):
    """Config of `sae=standard` and `sae=standard_april`."""

    variant: str
    """`bricken`: unit-norm decoder, pre-encoder bias; `april`: free decoder, penalty weighted by its norms."""

    @property
    def unit_decoder(self) -> bool:
        return self.variant == "bricken"

    def variations(self) -> tuple[str, ...]:
        return (*(() if self.unit_decoder else (self.variant,)), *super().variations())

    def paper_recipe(self, run: Run) -> Recipe:
        """bricken: Adam as in 2023, lr of the Gated paper's baselines. april: clip, sparsity warm-up, final decay."""
        every = 25_000 if self.resample else 0
        if self.unit_decoder:
            return Recipe(lr=1e-3, resample_every=every)
        return Recipe(lr=5e-5, clip=1.0, lr_decay_fraction=0.2, sparsity_warmup_steps=10_000, resample_every=every)

    @property
    def first_share(self) -> float:
        return 0.5 if self.unit_decoder else 0.2

    @property
    def pair_bytes(self) -> int:
        return 15 if self.unit_decoder else 13

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.variant)

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        one_of("variant", self.variant, VARIANTS)


Config = StandardConfig
