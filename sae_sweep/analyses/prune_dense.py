"""What an SAE loses if its densest latents are removed until its L0 is another, against members retrained to that L0.

Latents are removed in the order of how often they fire on held-out tokens, which is what `sparsity.safetensors` says;
with `mean` each is replaced by its mean activation. The control removes latents at random, to the same L0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.analyses.session.trained import peers, trained_at
from sae_sweep.errors import ConfigError
from sae_sweep.kernels.entries import Entries
from sae_sweep.kernels.sparse import bag_of_each

SHARES = (0.5, 0.25)
"""Of a member's own L0: what it is pruned to where none of its peers is sparser."""


@dataclass(frozen=True)
class Config:
    """What is pruned to, and how."""

    l0: list[float] | None
    mean: bool
    seed: int


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """KL and CE of each member pruned to each L0; the latents above 1% and 10% are listed in its own file."""
    if config.l0 is not None and min(config.l0, default=0) <= 0:
        raise ConfigError(f"analysis.prune_dense.l0={config.l0} must be numbers above 0, or null")
    targets = {sae.label: targets_of(sae, saes, config.l0) for sae in saes}
    removed = {sae.label: _removed(sae, targets[sae.label], config.seed) for sae in saes}
    means = {sae.label: session.means(sae.label) for sae in saes}
    total = {sae.label: session.kept.zeros(f"total/{sae.label}", sae.sae.width + 1) for sae in saes}
    while config.mean and (batch := (yield)) is not None:
        for label in batch.saes:
            codes = batch.codes(label)
            total[label].index_add_(0, codes.column_N.cpu().long(), codes.value_N.cpu().double())
            total[label][-1] += len(codes.offsets) - 1
    mean = {label: total_F[:-1] / total_F[-1].clamp(min=1) for label, total_F in total.items()}
    while (batch := (yield)) is not None:
        for label in batch.saes:
            _add(means[label], batch, label, removed[label], mean[label] if config.mean else None)
    return _result(saes, means, targets)


def targets_of(one: FinishedSae, saes: Sequence[FinishedSae], asked: Sequence[float] | None) -> list[float]:
    """The L0 that a member is pruned to, falling: those asked for that are below its own, else those that its sparser
    peers have, else shares of its own."""
    own = one.frequency_F.sum().item()
    if asked is not None:
        return sorted({each for each in asked if each < own}, reverse=True)
    sparser = {round(other.frequency_F.sum().item(), 3) for other in peers(one, saes)}
    below = sorted((each for each in sparser if 0 < each < 0.99 * own), reverse=True)
    return below or [share * own for share in SHARES]


def remove_until(frequency_F: Tensor, order_F: Tensor, l0: float) -> Tensor:
    """[F] bool: the fewest latents, in an order, without which the others fire l0 times per token or less."""
    left_F = frequency_F.sum() - frequency_F[order_F].cumsum(0)
    count = int((left_F > l0 + 1e-9).sum()) + 1 if frequency_F.sum() > l0 + 1e-9 else 0
    removed_F = torch.zeros(len(frequency_F), dtype=torch.bool)
    removed_F[order_F[:count]] = True
    return removed_F


def without(codes: Entries, removed_F: Tensor) -> Entries:
    """The codes without those of some latents."""
    stays_N = ~removed_F.to(codes.column_N.device)[codes.column_N.long()]
    row_N = bag_of_each(codes.offsets, len(codes.value_N)).long()
    lengths_B = codes.offsets.new_zeros(len(codes.offsets) - 1).index_add_(0, row_N, stays_N.to(codes.offsets.dtype))
    ends = lengths_B.cumsum(0, dtype=codes.offsets.dtype)
    return Entries(torch.cat([codes.offsets[:1], ends]), codes.column_N[stays_N], codes.value_N[stays_N])


def _removed(sae: FinishedSae, targets: Sequence[float], seed: int) -> dict[str, Tensor]:
    """Which latents are removed, by name of the pass."""
    frequency_F = sae.frequency_F
    dense_F = frequency_F.argsort(descending=True, stable=True)
    random_F = torch.randperm(len(frequency_F), generator=torch.Generator().manual_seed(seed))
    orders = {"dense": dense_F, "random": random_F}
    return {
        f"{kind}_{i}": remove_until(frequency_F, order_F, l0)
        for kind, order_F in orders.items()
        for i, l0 in enumerate(targets)
    }


def _add(means: Means, batch: Batch, label: str, removed: Mapping[str, Tensor], mean_F: Tensor | None) -> None:
    codes, _ = batch.coded(label)
    where_RT, counted_RT = batch.replaced(label), batch.counted(label)
    counts_B = counted_RT[where_RT]
    sequence_B = where_RT.nonzero()[:, 0][counts_B] + batch.first
    W_dec = batch.saes[label].sae.tensors["W_dec"]
    values, left = {}, {}
    for name, removed_F in removed.items():
        left[name] = without(codes, removed_F)
        values[name] = batch.decoded(label, left[name])
        if mean_F is not None:
            values[name] = values[name] + (mean_F * removed_F).to(W_dec) @ W_dec
    lost, own = batch.lost(label, values), batch.lost_by(label)
    means.add("l0_own", sequence_B, codes.offsets.diff()[counts_B])
    means.add("kl_own", own.sequence_N, own.kl[label])
    for name, some in left.items():
        means.add(f"l0_{name}", sequence_B, some.offsets.diff()[counts_B])
        means.add(f"kl_{name}", lost.sequence_N, lost.kl[name])
        means.add(f"ce_{name}", lost.sequence_N, lost.ce[name] - lost.ce["clean"])


def _result(saes: Sequence[FinishedSae], means: Mapping[str, Means], targets: Mapping[str, Sequence[float]]) -> Result:
    points = {label: (own.mean("l0_own").value, own.mean("kl_own").value) for label, own in means.items()}
    members: dict[str, dict[str, Number]] = {}
    l0s, kls = zip(*points.values(), strict=True)
    series = [Series("as trained", l0s, kls, style="points")]
    for sae in saes:
        own, found = means[sae.label], {"kl": means[sae.label].mean("kl_own")}
        for i, target in enumerate(targets[sae.label]):
            at = f"{target:.3g}"
            found[f"l0_at_{at}"] = own.mean(f"l0_dense_{i}")
            found[f"kl_at_{at}"] = own.mean(f"kl_dense_{i}", own.mean(f"kl_random_{i}").value)
            found[f"ce_delta_at_{at}"] = own.mean(f"ce_dense_{i}", own.mean(f"ce_random_{i}").value)
            trained = trained_at(sae, saes, points, found[f"l0_at_{at}"].value)
            if trained is not None:
                kl = found[f"kl_at_{at}"]
                error = None if kl.standard_error is None else kl.standard_error / trained
                found[f"kl_at_{at}_over_trained"] = Number(kl.value / trained, error, kl.n, 1.0)
        members[sae.label] = found
        x = [points[sae.label][0], *(own.mean(f"l0_dense_{i}").value for i in range(len(targets[sae.label])))]
        kl_numbers = [found["kl"], *(own.mean(f"kl_dense_{i}") for i in range(len(targets[sae.label])))]
        series.append(
            Series(sae.label, x, [one.value for one in kl_numbers], [one.standard_error for one in kl_numbers])
        )
    figure = Figure("KL of members pruned from the densest latent on", "L0", "KL, nats", series, log_x=True, log_y=True)
    return Result(members=members, figure=figure, details={sae.label: dense_latents(sae) for sae in saes})


def dense_latents(sae: FinishedSae) -> dict[str, Any]:
    """The latents that fire on more than 1% and 10% of held-out tokens, the densest first, with that share."""
    order_F = sae.frequency_F.argsort(descending=True, stable=True)

    def above(share: float) -> list[dict[str, float]]:
        return [{"latent": int(i), "frequency": f} for i in order_F if (f := sae.frequency_F[i].item()) > share]

    return {"over_1pct": above(0.01), "over_10pct": above(0.1)}
