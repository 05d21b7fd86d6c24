"""HierarchicalTopK SAE (Balagansky et al. 2025, arXiv 2505.24473). Equations: `maths.py`."""

from dataclasses import dataclass

from sae_sweep.architectures.base import one_of
from sae_sweep.architectures.topk.facts import TopKConfig
from sae_sweep.errors import ConfigError

BUDGETS = ("powers", "all")


@dataclass(frozen=True)
class HierarchicalTopKConfig(TopKConfig):
    """Config of `sae=hierarchical_topk`; k is the largest number of latents that fire on a token."""

    budgets: str
    """Which numbers of latents up to k must reconstruct: `powers` of two, and k; or `all`."""
    pair_bytes = 30
    crosses = False

    @property
    def reconstructions(self) -> int:
        return len(self.ks)

    @property
    def ks(self) -> list[int]:
        """The numbers of latents that reconstruct alone, ascending; the last is k."""
        k = self.active()
        if self.budgets == "all":
            return list(range(1, k + 1))
        return [2**power for power in range((k - 1).bit_length())] + [k]

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        one_of("budgets", self.budgets, BUDGETS)
        if self.groups > 1:
            raise ConfigError(
                f"sae.groups={self.groups}: hierarchical_topk nests what fires, not the latents; leave it at 1, or take"
                " sae=topk"
            )


Config = HierarchicalTopKConfig
