"""Whether members find the same latents: the mean of the largest cosines of decoder rows, each way.

Of every alive latent of one member the largest cosine with an alive latent of another is taken (mean of maximum cosine
similarities, Sharkey et al. 2022). One way alone misleads: every latent of a small dictionary may have its like in a
large one, and not the reverse. The control is as many random directions as the other member has alive latents.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import sqrt

import torch
from torch import Tensor

from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.result import Number, Result
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.recovery import best_cosines


@dataclass(frozen=True)
class Config:
    """Which members are compared."""

    pairs: str
    """seed: those that differ in their seed only; site: all that read and give activations of the same sites."""


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Result:
    """Compare every pair, each way; the names of a member's numbers are the other members' labels."""
    members: dict[str, dict[str, Number]] = {}
    for one, other in _pairs(saes, config.pairs):
        rows_FD, others_GD = (each.sae.tensors["W_dec"][each.alive_F] for each in (one, other))
        if len(rows_FD) and len(others_GD):
            members.setdefault(one.label, {})[other.label] = matched(rows_FD, others_GD)
    return Result(members=members)


def matched(rows_FD: Tensor, others_GD: Tensor) -> Number:
    """The mean over the first's rows of their largest cosine with a row of the second; neither may be empty."""
    best_F = best_cosines(rows_FD, others_GD)
    random_GD = torch.randn(others_GD.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    n = len(best_F)
    error = best_F.std().item() / sqrt(n) if n > 1 else None
    return Number(best_F.mean().item(), error, n, best_cosines(rows_FD, random_GD).mean().item())


def _pairs(saes: Sequence[FinishedSae], which: str) -> Iterator[tuple[FinishedSae, FinishedSae]]:
    """Every two members that are to be compared, both ways. Raises ConfigError where there are none."""
    if which not in ("seed", "site"):
        raise ConfigError(f"analysis.matching.pairs={which} is not one of seed, site")
    pairs = [pair for pair in permutations(saes, 2) if _alike(*pair, which)]
    if not pairs:
        hint = (
            "train more of them (seed=0,1), or give analysis.matching.pairs=site" if which == "seed" else "it has one"
        )
        raise ConfigError(f"analysis.matching.pairs={which}: no two finished members differ so; {hint}")
    yield from pairs


def _alike(one: FinishedSae, other: FinishedSae, which: str) -> bool:
    if which == "site":
        return one.sites == other.sites
    return {**one.entries, "seed": None} == {**other.entries, "seed": None}
