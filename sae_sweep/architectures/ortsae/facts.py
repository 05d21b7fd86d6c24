"""OrtSAE (Korznikov et al. 2025, arXiv 2509.22033). Equations: `maths.py`."""

from dataclasses import dataclass

from sae_sweep.architectures.base import not_negative
from sae_sweep.architectures.batchtopk.facts import BatchTopKConfig
from sae_sweep.architectures.recipe import Recipe, Run
from sae_sweep.errors import ConfigError


@dataclass(frozen=True)
class OrtSaeConfig(BatchTopKConfig):
    """Config of `sae=ortsae`: BatchTopK whose decoder rows are kept apart."""

    orthogonality: float
    """Coefficient of the penalty, where squared error is divided by the variance of the inputs."""
    orthogonality_chunk: int
    """Rows that are compared with each other: at most so many at a time, drawn anew every step."""
    pair_bytes = 15
    crosses = False

    def paper_recipe(self, run: Run) -> Recipe:
        """Appendix A, on BatchTopK's repository, whose moments these are. AdamW's decay, which it does not state, is
        left out."""
        return Recipe(lr=2e-4, beta2=0.99)

    def step_numbers(self, d: int, width: int) -> int:
        """Cosines of a chunk, and its rows."""
        chunk = min(width, self.orthogonality_chunk)
        return 2 * chunk**2 + 2 * chunk * d

    def step_flops(self, d: int, width: int) -> float:
        """Of the cosines of all chunks."""
        return 2.0 * width * min(width, self.orthogonality_chunk) * d

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        not_negative("orthogonality", self.orthogonality)
        if self.orthogonality_chunk < 2:
            raise ConfigError(f"sae.orthogonality_chunk={self.orthogonality_chunk} must be at least 2 rows")


Config = OrtSaeConfig
