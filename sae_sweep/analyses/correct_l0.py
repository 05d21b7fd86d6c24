"""Whether an SAE's L0 is the one at which its latents are not mixed: proxies of Chanin and Garriga-Alonso 2025 (arXiv
2508.16560).

Where L0 is too low or too high, latents take up parts of others, and decoder rows project on activations that they
should have nothing to do with. `projection` is the n-th largest projection per token of activations less b_dec on
decoder rows, pooled over a held-out row where the paper pools over a batch: of its T x F projections the (n T)-th. n
must be well above L0 and at most F / 2 (appendix A.9); a quarter of F is ours. `decoder_cosine` is the mean absolute
cosine of two decoder rows (equation 4), which the paper's later versions prefer. Both are smallest near the right L0,
among members that differ in their sparsity alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.analyses.session.trained import peers
from sae_sweep.errors import ConfigError
from sae_sweep.plan.constants import COSINE_ELEMENTS

FEWEST = 3
"""Members that a smallest one can be between."""


@dataclass(frozen=True)
class Config:
    """Which of the projections."""

    n: int | None
    seed: int


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """Both proxies of each member, and of random directions; and the L0 at which the first is smallest."""
    for sae in saes:
        if config.n is not None and not 1 <= config.n <= max(1, sae.sae.width // 2):
            raise ConfigError(
                f"analysis.correct_l0.n={config.n}: {sae.label} has {sae.sae.width} latents; give 1 to half of them"
            )
    means = {sae.label: session.means(sae.label) for sae in saes}
    rows = {sae.label: _rows(sae, config.seed) for sae in saes}
    while (batch := (yield)) is not None:
        for label, one in batch.saes.items():
            where_RT = batch.counted(label)
            y_ND = batch.written(label, where_RT).double() - one.sae.tensors["b_dec"].double()
            sequence_N = where_RT.nonzero()[:, 0] + batch.first
            n = config.n or max(1, one.sae.width // 4)
            for name, rows_FD in rows[label].items():
                sequence_S, value_S = pooled(y_ND, rows_FD.to(y_ND), sequence_N, n)
                means[label].add(name, sequence_S, value_S)
            l0_N = batch.codes(label).offsets.diff()
            means[label].add("l0", sequence_N, l0_N)
    return _result(saes, means, rows)


def pooled(y_ND: Tensor, rows_FD: Tensor, sequence_N: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Each sequence, and of its T x F projections on the rows the (n T)-th largest."""
    sequences = sequence_N.unique()
    values = []
    for sequence in sequences:
        own_TD = y_ND[sequence_N == sequence]
        projection = (own_TD @ rows_FD.T).flatten()
        values.append(projection.kthvalue(len(projection) - n * len(own_TD) + 1).values)
    return sequences, torch.stack(values) if values else y_ND.new_zeros(0)


def decoder_cosine(rows_FD: Tensor) -> Number:
    """The mean absolute cosine of two rows, which have length 1; the error leaves out one row at a time, as each row is
    in F - 1 of the pairs."""
    F = len(rows_FD)
    if F < 2:
        return Number(0.0, None, F)
    step = max(1, COSINE_ELEMENTS // F)
    sums_F = torch.cat([(part_bD @ rows_FD.T).abs().sum(1) for part_bD in rows_FD.split(step)])
    mean_F = (sums_F - rows_FD.square().sum(1)) / (F - 1)
    left_F = (F * mean_F.mean() - 2 * mean_F) / (F - 2)
    error = sqrt((F - 1) / F * (left_F - left_F.mean()).square().sum().item()) if F > 2 else None
    return Number(mean_F.mean().item(), error, F)


def _rows(sae: FinishedSae, seed: int) -> dict[str, Tensor]:
    """The directions of a member's latents, and as many at random."""
    W_dec = sae.sae.tensors["W_dec"].double()
    random_FD = torch.randn(W_dec.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {"projection": _unit(W_dec), "random": _unit(random_FD)}


def _unit(rows_FD: Tensor) -> Tensor:
    return rows_FD / rows_FD.norm(dim=1, keepdim=True).clamp(min=1e-30)


def _result(
    saes: Sequence[FinishedSae], means: Mapping[str, Means], rows: Mapping[str, Mapping[str, Tensor]]
) -> Result:
    members = {}
    for sae in saes:
        own = means[sae.label]
        cosine, chance = (decoder_cosine(each) for each in rows[sae.label].values())
        members[sae.label] = {
            "l0": own.mean("l0"),
            "projection": own.mean("projection", own.mean("random").value),
            "decoder_cosine": Number(cosine.value, cosine.standard_error, cosine.n, chance.value),
        }
    numbers, series = {}, []
    for family in _families(saes):
        labels = sorted((sae.label for sae in family), key=lambda label: members[label]["l0"].value)
        l0 = [members[label]["l0"].value for label in labels]
        found = [members[label]["projection"] for label in labels]
        y, error = [one.value for one in found], [one.standard_error for one in found]
        series.append(Series(labels[0], l0, y, error, "line" if len(labels) > 1 else "points"))
        series.append(Series(f"random, as {labels[0]}", l0, [one.control for one in found], style="dashed"))
        if len(labels) >= FEWEST:
            cosines = [members[label]["decoder_cosine"].value for label in labels]
            numbers[f"l0 of the smallest projection, {labels[0]} and its like"] = _smallest(
                l0, [means[label] for label in labels], l0[cosines.index(min(cosines))]
            )
    figure = Figure("The n-th largest projection on decoder rows", "L0", "projection", series, log_x=True)
    return Result(numbers, members, figure)


def _families(saes: Sequence[FinishedSae]) -> list[list[FinishedSae]]:
    """Members that differ in their sparsity alone, together."""
    found: dict[tuple[str, ...], list[FinishedSae]] = {}
    for sae in saes:
        family = peers(sae, saes)
        found[tuple(sorted(one.label for one in family))] = family
    return list(found.values())


def _smallest(l0: Sequence[float], means: Sequence[Means], control: float) -> Number:
    """The L0 whose projection is smallest, with the jackknife's error over sequences; the control is what the other
    proxy says."""
    sums_MR, counts_MR = (torch.stack([one.per_sequence("projection")[i].cpu() for one in means]) for i in (0, 1))
    at = torch.tensor(l0, dtype=torch.float64)
    value = at[(sums_MR.sum(1) / counts_MR.sum(1)).argmin()].item()
    left_MR = (sums_MR.sum(1, keepdim=True) - sums_MR) / (counts_MR.sum(1, keepdim=True) - counts_MR).clamp(min=1)
    found_R = at[left_MR.argmin(0)]
    R = len(found_R)
    error = sqrt((R - 1) / R * (found_R - found_R.mean()).square().sum().item()) if R > 1 else None
    return Number(value, error, len(l0), control)
