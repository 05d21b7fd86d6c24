"""What becomes of a latent in the next larger dictionary: whether it splits, and what is new there.

A latent of the larger member is a child of the latent that it is most like in the smaller one, by the cosine of decoder
rows, where that is `child` or more; one without a parent is novel (Bricken et al. 2023; Leask et al. 2025, arXiv
2502.04878). Another seed of the same width says how much of that more latents make; the control is random directions.
`covered` is the share of a latent's firings on which some child fires; its control has the children's at other tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from sae_sweep.analyses.matches.assignment import nearest
from sae_sweep.analyses.matches.correlation import shifted
from sae_sweep.analyses.matches.pairs import Pair, pairs_of
from sae_sweep.analyses.matching import random_directions
from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.kernels.entries import Entries, rows_where
from sae_sweep.kernels.sparse import bag_of_each

MOST = 6
"""Children that the figure tells apart."""


@dataclass(frozen=True)
class Config:
    """Which latents are children."""

    child: float


@dataclass(frozen=True)
class Family:
    """Parents of one dictionary's latents in another."""

    parent_G: Tensor
    """[G] int64: the parent of each; -1 for one that is novel or dead."""
    alive_F: Tensor
    alive_G: Tensor

    @property
    def children_A(self) -> Tensor:
        """How many each alive latent of the smaller one has."""
        counts_F = torch.bincount(self.parent_G[self.parent_G >= 0], minlength=len(self.alive_F))
        return counts_F[self.alive_F]

    @property
    def novel_A(self) -> Tensor:
        """Whether each alive latent of the larger one has no parent."""
        return self.parent_G[self.alive_G] < 0


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """Compare each member with the next larger one, and with other seeds of its own width."""
    if not 0 < config.child <= 1:
        raise ConfigError(f"analysis.splitting.child={config.child:g} must be above 0 and at most 1")
    pairs = pairs_of(saes, "width", "splitting")
    for one, other in pairs:
        if session.stream(one.label) is not session.stream(other.label):
            raise ConfigError(f"analysis splitting: {one.label} and {other.label} read other tokens; --member one's")
    families = {(one.label, other.label): family_of(one, other, config.child) for one, other in pairs}
    means = {pair: Means(session.kept, "/".join(pair), session.stream(pair[0]).evaluator.rows) for pair in families}
    while (batch := (yield)) is not None:
        for pair, family in families.items():
            if pair[0] in batch.saes:
                _add(means[pair], batch, pair, family.parent_G)
    members: dict[str, dict[str, Number]] = {}
    for one, other in pairs:
        own, pair = families[one.label, other.label], (one.label, other.label)
        chance = at_random(one, other, config.child)
        found = _numbers(own, chance, other.label)
        found[f"covered {other.label}"] = means[pair].mean("covered", means[pair].mean("shifted").value)
        members.setdefault(one.label, {}).update(found)
        members.setdefault(other.label, {})[f"novel {one.label}"] = share(own.novel_A, chance.novel_A)
    for one, other in _same_width(pairs, saes):
        found = _numbers(family_of(one, other, config.child), at_random(one, other, config.child), other.label)
        members[one.label] |= {f"same_width_{name}": number for name, number in found.items()}
    return Result(members=members, figure=_figure(pairs, families, config.child))


def family_of(one: FinishedSae, other: FinishedSae, child: float) -> Family:
    """The parents, in one member, of another's latents."""
    rows_FD, others_GD = (each.sae.tensors["W_dec"].double() for each in (one, other))
    return parents(rows_FD, others_GD, one.alive_F, other.alive_F, child)


def at_random(one: FinishedSae, other: FinishedSae, child: float) -> Family:
    """The same of as many random directions."""
    rows_FD, others_GD = (random_directions(each.sae.tensors["W_dec"], i) for i, each in enumerate((one, other)))
    return parents(rows_FD, others_GD, one.alive_F, other.alive_F, child)


def parents(rows_FD: Tensor, others_GD: Tensor, alive_F: Tensor, alive_G: Tensor, child: float) -> Family:
    """The parent of each of the others: the alive row that it has the largest cosine with, if that is enough."""
    parent_G = torch.full((len(others_GD),), -1, dtype=torch.int64)
    if alive_F.any() and alive_G.any():
        own_AD, theirs_AD = (torch.nn.functional.normalize(each) for each in (rows_FD[alive_F], others_GD[alive_G]))
        near, cosine = (torch.from_numpy(each[:, 0].copy()) for each in nearest(theirs_AD, own_AD, 1))
        parent_G[alive_G] = torch.where(cosine >= child, alive_F.nonzero()[:, 0][near], -1)
    return Family(parent_G, alive_F, alive_G)


def share(values: Tensor, control: Tensor) -> Number:
    """The mean over latents, with its error."""
    n, values = len(values), values.double()
    error = values.std().item() / sqrt(n) if n > 1 else None
    return Number(values.mean().item() if n else 0.0, error, n, control.double().mean().item() if n else None)


def _numbers(own: Family, chance: Family, other: str) -> dict[str, Number]:
    return {
        f"children {other}": share(own.children_A, chance.children_A),
        f"split {other}": share(own.children_A >= 2, chance.children_A >= 2),
    }


def _add(means: Means, batch: Batch, pair: tuple[str, str], parent_G: Tensor) -> None:
    """Take in the firings of latents that have children, and whether one of these fires there too."""
    mine_RT, theirs_RT = batch.counted(pair[0]), batch.counted(pair[1])
    both_RT = mine_RT & theirs_RT
    codes = rows_where(both_RT[mine_RT], batch.codes(pair[0]))
    others = rows_where(both_RT[theirs_RT], batch.codes(pair[1]))
    parent_G = parent_G.to(codes.column_N.device)
    row_N = bag_of_each(codes.offsets, len(codes.value_N)).long()
    has_N = torch.isin(codes.column_N.long(), parent_G[parent_G >= 0])
    sequence_N = (both_RT.nonzero()[:, 0] + batch.first)[row_N][has_N]
    width = int(max(parent_G.max(), codes.column_N.max() if len(codes.column_N) else 0)) + 1
    key_N = (row_N * width + codes.column_N.long())[has_N]
    elsewhere = shifted(others, (len(others.offsets) - 1) // 2)
    for name, some in (("covered", others), ("shifted", elsewhere)):
        means.add(name, sequence_N, torch.isin(key_N, _parent_keys(some, parent_G, width)).double())


def _parent_keys(codes: Entries, parent_G: Tensor, width: int) -> Tensor:
    """A number for each token and parent of a latent that fires on it."""
    parent_N = parent_G[codes.column_N.long()]
    row_N = bag_of_each(codes.offsets, len(codes.value_N)).long()
    return (row_N * width + parent_N)[parent_N >= 0]


def _same_width(pairs: Sequence[Pair], saes: Sequence[FinishedSae]) -> list[Pair]:
    """The smaller member of each pair with its first like of another seed, where there is one."""
    found = []
    for one, _ in pairs:
        like = next((other for other in saes if other is not one and one.alike(other, "seed")), None)
        if like is not None:
            found.append((one, like))
    return found


def _figure(pairs: Sequence[Pair], families: dict[tuple[str, str], Family], child: float) -> Figure:
    x = [str(n) for n in range(MOST)] + [f"{MOST} or more"]

    def bars(family: Family) -> list[float]:
        counts = torch.bincount(family.children_A.clamp(max=MOST), minlength=MOST + 1).double()
        return (counts / counts.sum().clamp(min=1)).tolist()

    series = []
    for one, other in pairs:
        series.append(Series(f"{one.label} in {other.label}", x, bars(families[one.label, other.label]), style="bars"))
    if pairs:
        series.append(Series("random directions", x, bars(at_random(*pairs[0], child)), style="bars"))
    return Figure("Children of a latent in the next larger dictionary", "children", "share of latents", series)
