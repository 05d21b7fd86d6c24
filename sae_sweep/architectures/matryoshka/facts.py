"""Matryoshka SAE on BatchTopK (Bussmann et al. 2025, arXiv 2503.17547). Equations: `maths.py`."""

from dataclasses import dataclass, field

from sae_sweep.architectures.batchtopk.facts import BatchTopKConfig


@dataclass(frozen=True)
class MatryoshkaConfig(BatchTopKConfig):
    """Config of `sae=matryoshka`: BatchTopK whose prefixes are nested whatever `groups` is."""

    groups: int = field(kw_only=True)
    prefixes: str = field(kw_only=True)
    nested = True
    pair_bytes = 16

    def variations(self) -> tuple[str, ...]:
        return () if self.prefixes == "fixed" else (self.prefixes,)


Config = MatryoshkaConfig
