"""Matryoshka SAE on BatchTopK (Bussmann et al. 2025, arXiv 2503.17547). Equations: `maths.py`."""

from dataclasses import dataclass

from sae_sweep.architectures.base import one_of
from sae_sweep.architectures.batchtopk.facts import BatchTopKConfig
from sae_sweep.errors import ConfigError

PREFIXES = ("fixed", "sampled")


@dataclass(frozen=True)
class MatryoshkaConfig(BatchTopKConfig):
    """Config of `sae=matryoshka`."""

    groups: int
    """Nested prefixes of the latents that must each reconstruct alone; the last is all of them."""
    prefixes: str
    """`fixed`: the first is 2^-groups of the width, each group twice the one before; `sampled`: drawn every step."""
    pair_bytes = 16

    def variations(self) -> tuple[str, ...]:
        return () if self.prefixes == "fixed" else (self.prefixes,)

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        one_of("prefixes", self.prefixes, PREFIXES)
        if self.groups < 1:
            raise ConfigError(f"sae.groups={self.groups} must be at least 1")
        if self.prefixes == "fixed" and 2**self.groups > width:
            raise ConfigError(
                f"sae.groups={self.groups}: the first prefix, 2^-{self.groups} of {width} latents, would be empty;"
                f" at most {width.bit_length() - 1}"
            )


Config = MatryoshkaConfig
