"""TopK SAE (Gao et al. 2024, arXiv 2406.04093). Equations: `maths.py`."""

from dataclasses import dataclass, replace
from math import log2, sqrt
from typing import Any, Self

from sae_sweep.architectures.base import above_zero, not_negative
from sae_sweep.architectures.prefixes import PrefixConfig
from sae_sweep.architectures.recipe import Recipe, Run
from sae_sweep.errors import ConfigError


@dataclass(frozen=True)
class TopKConfig(PrefixConfig):
    """Config of `sae=topk`, and the keys of all that fire a given number of latents."""

    k: int | None
    """Latents that fire on each token."""
    auxk: int | None
    """Dead latents that model the residual; null is the power of two nearest d / 2; 0 is none."""
    auxk_coefficient: float
    dead_after_tokens: float
    """A latent is dead when it has not fired for this many tokens (at most a quarter of the run)."""
    trims = False
    exact = True
    """Whether k fire on each token, not on average."""
    pair_bytes = 16

    @classmethod
    def knob(cls) -> str:
        return "k"

    def active(self) -> int:
        """k, whichever key gave it."""
        return self.k if self.k is not None else int(self.l0) if self.l0 is not None else 32

    def of_layer(self, layers: int) -> Self:
        return replace(self, k=max(1, round(self.active() / layers)), l0=None)

    def check_layers(self, layers: int) -> None:
        super().check_layers(layers)
        k = self.active()
        if self.exact and k % layers:
            key = "k" if self.k is not None else "l0"
            raise ConfigError(
                f"sae.{key}={k}: with {self.architecture} as many latents of each layer fire, and it is no multiple of"
                f" {layers} layers; take {layers * max(1, round(k / layers))}, or sae=batchtopk"
            )

    def auxk_latents(self, d: int) -> int:
        """How many dead latents model the residual."""
        return self.auxk if self.auxk is not None else 2 ** round(log2(max(d, 4) / 2))

    def resolved(self, d: int) -> dict[str, Any]:
        return {"k": self.active(), "auxk": self.auxk_latents(d)}

    def dead_after(self) -> float:
        return self.dead_after_tokens

    def paper_recipe(self, run: Run) -> Recipe:
        """lr scales as 1 / sqrt(width) (section 3 and appendix). The paper's average of weights is not kept."""
        return Recipe(lr=2e-4 / sqrt(run.width / 2**14), eps=6.25e-10)

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        if self.k is not None and not 1 <= self.k <= width:
            raise ConfigError(f"sae.k={self.k} must be at least 1 and at most the width, {width} latents")
        if self.l0 is not None and (self.l0 < 1 or self.l0 != round(self.l0)):
            raise ConfigError(
                f"sae.l0={self.l0:g} must be a whole number from 1 up for {self.architecture}: it counts latents"
            )
        not_negative("auxk", self.auxk)  # more than there are is all that are dead, as with null
        not_negative("auxk_coefficient", self.auxk_coefficient)
        above_zero("dead_after_tokens", self.dead_after_tokens)


Config = TopKConfig
