"""What a trained SAE loses if only the n largest latents stay: of each token, or of each prompt.

Of a prompt the n latents that are largest anywhere in it stay, with all their activations (Conmy and Nanda). The curve
over n is read against members that were trained at that L0, and against as many latents drawn from those that fire.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.analyses.session.trained import trained_at
from sae_sweep.errors import ConfigError
from sae_sweep.kernels.entries import Entries
from sae_sweep.kernels.sparse import bag_of_each


@dataclass(frozen=True)
class Config:
    """How many latents stay, and of what."""

    n: list[int]
    per: str
    """token, or prompt: a held-out row."""


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """KL of each member with its n largest latents, and with n at random; L0 and CE beside."""
    if config.per not in ("token", "prompt"):
        raise ConfigError(f"analysis.inference_topn.per={config.per} is not one of token, prompt")
    if not config.n or min(config.n) < 1:
        raise ConfigError(f"analysis.inference_topn.n={config.n} must be numbers above 0")
    means = {sae.label: session.means(sae.label) for sae in saes}
    while (batch := (yield)) is not None:
        for label in batch.saes:
            _add(means[label], batch, label, config)
    return _result(saes, means, config)


def _add(means: Means, batch: Batch, label: str, config: Config) -> None:
    """Take in a batch of one member."""
    codes, _ = batch.coded(label)
    where_RT, counted_RT = batch.replaced(label), batch.counted(label)
    group_B = where_RT.nonzero()[:, 0] if config.per == "prompt" else None
    counts_B = counted_RT[where_RT]
    sequence_B = where_RT.nonzero()[:, 0][counts_B] + batch.first
    generator = torch.Generator().manual_seed(batch.first)
    random_N = torch.rand(len(codes.value_N), generator=generator).to(codes.value_N)
    kept = {f"{n}": largest(codes, codes.value_N, n, group_B) for n in config.n}
    kept |= {f"random_{n}": largest(codes, random_N, n, group_B) for n in config.n}
    lost = batch.lost(label, {name: batch.decoded(label, some) for name, some in kept.items()})
    own = batch.lost_by(label)
    for name, some in [*kept.items(), ("own", codes)]:
        means.add(f"l0_{name}", sequence_B, some.offsets.diff()[counts_B])
        found = own if name == "own" else lost
        key = label if name == "own" else name
        means.add(f"kl_{name}", found.sequence_N, found.kl[key])
        means.add(f"ce_{name}", found.sequence_N, found.ce[key] - found.ce["clean"])


def largest(codes: Entries, order_N: Tensor, n: int, group_B: Tensor | None = None) -> Entries:
    """The codes of each token's n latents that are first in a falling order; or, with the number of each token's group,
    of the n latents of each group that have the largest entry in it."""
    row_N = bag_of_each(codes.offsets, len(codes.value_N)).long()
    latent_N = codes.column_N.long()
    group_N = row_N if group_B is None else group_B[row_N]
    width = int(latent_N.max()) + 1 if len(latent_N) else 1
    pair_N = group_N * width + latent_N
    pairs_P, of_N = pair_N.unique(return_inverse=True)
    best_P = order_N.new_full((len(pairs_P),), -torch.inf).scatter_reduce_(0, of_N, order_N, "amax")
    stays_P = _first_of_groups(pairs_P // width, best_P, n)
    stays_N = stays_P[of_N]
    lengths_B = torch.zeros(len(codes.offsets) - 1, dtype=torch.int64, device=row_N.device)
    lengths_B.index_add_(0, row_N, stays_N.long())
    offsets = torch.cat([lengths_B.new_zeros(1), lengths_B.cumsum(0)]).to(codes.offsets.dtype)
    return Entries(offsets, codes.column_N[stays_N], codes.value_N[stays_N])


def _first_of_groups(group_P: Tensor, value_P: Tensor, n: int) -> Tensor:
    """[P] bool: the n largest of each group; groups are sorted."""
    by_value_P = value_P.argsort(descending=True, stable=True)
    order_P = by_value_P[group_P[by_value_P].argsort(stable=True)]
    sorted_P = group_P[order_P]
    begins_P = torch.searchsorted(sorted_P, sorted_P)
    rank_P = torch.arange(len(sorted_P), device=sorted_P.device) - begins_P
    stays_P = torch.zeros_like(value_P, dtype=torch.bool)
    stays_P[order_P] = rank_P < n
    return stays_P


def _result(saes: Sequence[FinishedSae], means: Mapping[str, Means], config: Config) -> Result:
    points = {label: (own.mean("l0_own").value, own.mean("kl_own").value) for label, own in means.items()}
    members: dict[str, dict[str, Number]] = {}
    series = []
    for sae in saes:
        own, found = means[sae.label], dict[str, Number]()
        found["kl"] = own.mean("kl_own")
        for n in config.n:
            l0 = own.mean(f"l0_{n}")
            found[f"l0_n{n}"] = l0
            found[f"kl_n{n}"] = own.mean(f"kl_{n}", own.mean(f"kl_random_{n}").value)
            found[f"ce_delta_n{n}"] = own.mean(f"ce_{n}", own.mean(f"ce_random_{n}").value)
            trained = trained_at(sae, saes, points, l0.value)
            if trained is not None:
                found[f"kl_n{n}_over_trained"] = Number(
                    found[f"kl_n{n}"].value / trained, _over(found[f"kl_n{n}"], trained), l0.n, 1.0
                )
        members[sae.label] = found
        x = [found[f"l0_n{n}"].value for n in config.n]
        kl = [found[f"kl_n{n}"] for n in config.n]
        series += [
            Series(sae.label, x, [one.value for one in kl], [one.standard_error for one in kl]),
            Series(f"{sae.label}, at random", x, [one.control for one in kl], style="dashed"),
        ]
    whole = [means[sae.label].mean("kl_own") for sae in saes]
    series.append(
        Series(
            "as trained",
            [points[sae.label][0] for sae in saes],
            [one.value for one in whole],
            [one.standard_error for one in whole],
            "points",
        )
    )
    title = f"KL with the n largest latents of each {config.per}"
    return Result(members=members, figure=Figure(title, "L0", "KL, nats", series, log_x=True, log_y=True))


def _over(number: Number, by: float) -> float | None:
    return None if number.standard_error is None else number.standard_error / by
