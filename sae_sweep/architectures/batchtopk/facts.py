"""BatchTopK SAE (Bussmann et al. 2024, arXiv 2412.06410). Equations: `maths.py`."""

from dataclasses import dataclass

from sae_sweep.architectures.recipe import Recipe, Run, tuned
from sae_sweep.architectures.topk.facts import TopKConfig


@dataclass(frozen=True)
class BatchTopKConfig(TopKConfig):
    """Config of `sae=batchtopk`; k is the mean number of latents that fire on a token."""

    trims, exact = True, False
    pair_bytes = 15

    def paper_recipe(self, run: Run) -> Recipe:
        """Section 4: Adam, lr 3e-4, betas 0.9 and 0.99."""
        return Recipe(lr=3e-4, beta2=0.99)

    def tuned_recipe(self, run: Run) -> Recipe:
        """With these moments for all that is built on it, whatever their papers have."""
        return tuned(run, BatchTopKConfig.paper_recipe(self, run))

    def saved_beside(self, width: int) -> int:
        """A threshold per latent."""
        return width


Config = BatchTopKConfig
