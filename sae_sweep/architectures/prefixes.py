"""Nested prefixes of the latents, as an option of any architecture that declares it. No torch.

Matryoshka SAEs (Bussmann et al. 2025, arXiv 2503.17547) have them on BatchTopK; nothing in their loss is BatchTopK's.
"""

from dataclasses import dataclass, field

from sae_sweep.architectures.base import SaeConfig, one_of
from sae_sweep.errors import ConfigError

PREFIXES = ("fixed", "sampled")


@dataclass(frozen=True)
class PrefixConfig(SaeConfig):
    """The keys of the architectures whose latents can be nested."""

    groups: int = field(default=1, kw_only=True)
    """Nested prefixes of the latents that must each reconstruct alone; the last is all of them, and 1 is that alone."""
    prefixes: str = field(default="fixed", kw_only=True)
    """`fixed`: the first is 2^-groups of the width, each group twice the one before; `sampled`: drawn every step."""

    @property
    def nested(self) -> bool:
        return self.groups > 1

    @property
    def reconstructions(self) -> int:
        return self.groups

    def fixed_sizes(self, width: int) -> list[int]:
        """The smaller prefixes of so many latents, ascending: group sizes 2^-G, ..., 2^-2 of them, added up."""
        return [width * (2**g - 1) // 2**self.groups for g in range(1, self.groups)]

    def variations(self) -> tuple[str, ...]:
        if not self.nested:
            return super().variations()
        drawn = () if self.prefixes == "fixed" else (self.prefixes,)
        return (*super().variations(), "matryoshka", *drawn)

    def structure(self) -> tuple[object, ...]:
        return (*super().structure(), self.nested)

    def check(self, d: int, width: int) -> None:
        super().check(d, width)
        one_of("prefixes", self.prefixes, PREFIXES)
        if self.groups < 1:
            raise ConfigError(f"sae.groups={self.groups} must be at least 1")
        if self.nested and self.prefixes == "fixed" and 2**self.groups > width:
            raise ConfigError(
                f"sae.groups={self.groups}: the first prefix, 2^-{self.groups} of {width} latents, would be empty;"
                f" at most {width.bit_length() - 1}"
            )
