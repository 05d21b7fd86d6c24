"""Matryoshka SAE on BatchTopK (Bussmann et al. 2025, arXiv 2503.17547). Equations: `maths.py`."""

from dataclasses import dataclass, field

from sae_sweep.architectures.batchtopk.facts import BatchTopKConfig
from sae_sweep.architectures.recipe import Recipe, Run


@dataclass(frozen=True)
class MatryoshkaConfig(BatchTopKConfig):
    """Config of `sae=matryoshka`: BatchTopK whose prefixes are nested whatever `groups` is."""

    groups: int = field(kw_only=True)
    prefixes: str = field(kw_only=True)
    nested = True
    pair_bytes = 16

    def paper_recipe(self, run: Run) -> Recipe:
        """Section 4.3; appendix A: all else as SAEBench's suite (arXiv 2503.09532), whose code is theirs too."""
        return Recipe(lr=3e-4, clip=1.0, lr_decay_fraction=0.2)

    def variations(self) -> tuple[str, ...]:
        return () if self.prefixes == "fixed" else (self.prefixes,)


Config = MatryoshkaConfig
