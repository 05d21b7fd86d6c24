"""Gated SAE (Rajamanoharan et al. 2024, arXiv 2404.16014). Equations: `saes/gated.py`."""

from dataclasses import dataclass

from sae_sweep.architectures.base import L1Config, Recipe


@dataclass(frozen=True)
class GatedConfig(L1Config):
    """Config of `sae=gated`."""

    def recipe(self, width: int) -> Recipe:
        """Section 4 and appendix: Adam with beta1 = 0, lr 3e-4, resampling with lr re-warm."""
        return Recipe(lr=3e-4, beta1=0.0, resample_every=25_000 if self.resample else 0)

    def parameters(self, d: int, width: int) -> dict[str, tuple[int, ...]]:
        return {
            "W_enc": (width, d),
            "W_dec": (width, d),
            "b_gate": (width,),
            "b_mag": (width,),
            "r_mag": (width,),
            "b_dec": (d,),
        }
