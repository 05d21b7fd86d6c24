"""Gated SAE (Rajamanoharan et al. 2024, arXiv 2404.16014). Equations: `maths.py`."""

from dataclasses import dataclass

from sae_sweep.architectures.base import L1Config, one_of
from sae_sweep.architectures.recipe import Recipe, Run

VARIANTS = ("unit_norm", "decoder_norm")


@dataclass(frozen=True)
class GatedConfig(L1Config):
    """Config of `sae=gated`."""

    variant: str
    """`unit_norm`: the paper's; `decoder_norm`: free decoder, the gate's penalty weighted by its norms."""

    @property
    def unit_decoder(self) -> bool:
        return self.variant == "unit_norm"

    def variations(self) -> tuple[str, ...]:
        return () if self.unit_decoder else (self.variant,)

    def paper_recipe(self, run: Run) -> Recipe:
        """Section 4 and appendix: Adam with beta1 = 0, lr 3e-4, resampling with lr re-warm.

        decoder_norm: its authors found a warm-up of the coefficient to help; its length is April 2024's.
        """
        warmup = 0 if self.unit_decoder else 10_000
        return Recipe(lr=3e-4, beta1=0.0, sparsity_warmup_steps=warmup, resample_every=25_000 if self.resample else 0)

    @property
    def first_share(self) -> float:
        return 0.5 if self.unit_decoder else 0.3

    @property
    def pair_bytes(self) -> int:
        return 27 if self.unit_decoder else 26

    def parameters(self, d: int, width: int) -> dict[str, tuple[int, ...]]:
        rows = {"W_enc": (width, d), "W_dec": (width, d)}
        return {**rows, "b_gate": (width,), "b_mag": (width,), "r_mag": (width,), "b_dec": (d,)}

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.variant)

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        one_of("variant", self.variant, VARIANTS)


Config = GatedConfig
