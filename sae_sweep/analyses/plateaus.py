"""Whether outputs stay where they are while an activation moves, and whether SAE outputs move on such a plateau.

Each of two held-out rows has its activation at one position moved in equal steps to what the other has there; what the
model makes of it at that position is compared with what it made at first (Heimersheim and Mendel 2024; Janiak et al.
2024, arXiv 2409.17113). The plateau is the part of the way on which the final hidden state has covered no more than
`near` of its distance to the end. `moved` is how far the SAE's reconstruction has come by then, over how far the
activation has: 1 where it follows, near 0 where it makes one point of the plateau. The control of all is a way as long
in a random direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sae_sweep.analyses.noise.errors import unit
from sae_sweep.analyses.paths.curves import Curve
from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.splice import measured

KINDS = ("", "random_")
"""Towards another activation, and anywhere."""


@dataclass(frozen=True)
class Config:
    """How many steps ways have, and what has hardly moved."""

    steps: int
    near: float
    seed: int


@dataclass(frozen=True)
class Ways:
    """Of N rows of a batch the position whose activation is moved, and where to."""

    where_RT: Tensor
    """[R, T] bool: one position of each row that has a way."""
    pair_N: Tensor
    """The first row, among all, of the two that each is of."""
    begin_ND: Tensor
    along_ND: dict[str, Tensor]
    """By kind, what is added in all."""


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """The plateaus of each site, and how far each member's reconstructions move on them."""
    if config.steps < 2 or config.steps % 2 or not 0 < config.near < 1:
        raise ConfigError(
            "analysis.plateaus: steps must be at least 2 and even, one of them half way; near above 0 and below 1"
        )
    for sae in saes:
        if sae.spliced.reads is not None or len(sae.spliced.hooks) > 1:
            raise ConfigError(f"analysis.plateaus: {sae.label} does not reconstruct what it reads; --member the others")
    hooks = {sae.label: _site(session, sae.label) for sae in saes}
    own = {sae.label: session.means(sae.label) for sae in saes}
    sites = {
        name: Means(session.kept, f"site/{name}", session.stream(label).evaluator.rows) for label, name in hooks.items()
    }
    while (batch := (yield)) is not None:
        for name in dict.fromkeys(hooks[label] for label in batch.saes):
            labels = [label for label in batch.saes if hooks[label] == name]
            _add(batch, labels, sites[name], own, config)
    return _result(saes, hooks, sites, own, config)


def _site(session: Session, label: str) -> str:
    number, hook = session.streams.opened.index(session.stream(label)), session.stream(label).saes[label].hook
    return hook if len(session.streams.opened) == 1 else f"{hook} of stream {number}"


@torch.no_grad()
def _add(batch: Batch, labels: Sequence[str], site: Means, own: dict[str, Means], config: Config) -> None:
    """Take in the ways of a batch at one site."""
    ways = ways_of(batch, labels[0], config.seed)
    if not len(ways.pair_N):
        return
    for kind in KINDS:
        made = [ways.begin_ND + step / config.steps * ways.along_ND[kind] for step in range(config.steps + 1)]
        finals = [batch.final(batch.saes[labels[0]].hook, x_ND, ways.where_RT)[ways.where_RT] for x_ND in made]
        output = Curve.of(finals)
        moves_N = output.moves_N
        pair_N = ways.pair_N[moves_N]
        reach_N = output.reaches(config.near)
        site.add(f"{kind}reach", pair_N, reach_N[moves_N])
        _, kl_PN = measured(batch.model, finals[0], finals[1:], torch.zeros_like(ways.pair_N))
        for step in range(1, config.steps + 1):
            site.add(f"{kind}share {step}", pair_N, output.share_SN[step][moves_N])
            site.add(f"{kind}kl {step}", pair_N, kl_PN[step][moves_N])
        token_N = batch.rows.clean.tokens_RT[ways.where_RT]
        for label in labels:
            sae = batch.saes[label].sae
            curve = Curve.of([sae.coded(x_ND.to(sae.tensors["W_enc"].dtype), token_N)[1] for x_ND in made])
            own[label].add(f"{kind}moved", pair_N, curve.at(reach_N)[moves_N])
            own[label].add(f"{kind}reach", pair_N, reach_N[moves_N])
            for step in range(1, config.steps + 1):
                own[label].add(f"{kind}share {step}", pair_N, curve.share_SN[step][moves_N])


def ways_of(batch: Batch, label: str, seed: int) -> Ways:
    """Between every two rows of a batch, both ways, at one position that is replaced in both; drawn by the seed."""
    replaced_RT, hook = batch.replaced(label).cpu(), batch.saes[label].hook
    R = len(replaced_RT) // 2 * 2
    other_R = torch.arange(R) ^ 1
    both_RT = replaced_RT[:R] & replaced_RT[other_R]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + batch.first)
    chance_PT = torch.rand(R // 2, both_RT.shape[1], generator=generator).repeat_interleave(2, 0)
    position_R = torch.where(both_RT, chance_PT, -1.0).argmax(1)
    row_N = both_RT.any(1).nonzero()[:, 0]
    position_N, other_N = position_R[row_N], other_R[row_N]
    where_RT = torch.zeros_like(replaced_RT)
    where_RT[row_N, position_N] = True
    x_RTD = batch.rows.clean.activations[hook]
    begin_ND, end_ND = x_RTD[row_N, position_N], x_RTD[other_N, position_N]
    white_ND = torch.randn(begin_ND.shape, generator=generator, dtype=torch.float64).to(begin_ND)
    along_ND = end_ND - begin_ND
    random_ND = along_ND.norm(dim=1, keepdim=True) * unit(white_ND)
    pair_N = batch.first + row_N // 2 * 2
    kinds = dict(zip(KINDS, (along_ND, random_ND), strict=True))
    return Ways(where_RT.to(x_RTD.device), pair_N.to(x_RTD.device), begin_ND, kinds)


def _result(
    saes: Sequence[FinishedSae], hooks: dict[str, str], sites: dict[str, Means], own: dict[str, Means], config: Config
) -> Result:
    half, end = config.steps // 2, config.steps
    numbers: dict[str, Number] = {}
    for name, site in sites.items():
        if not site.mean("reach").n:
            raise ConfigError(f"analysis.plateaus: no two held-out rows that are read together differ at {name}")
        asked = {"plateau": "reach", "half_way": f"share {half}", "kl_half_way": f"kl {half}", "kl_end": f"kl {end}"}
        numbers |= {f"{name} {what}": site.mean(of, site.mean(f"random_{of}").value) for what, of in asked.items()}
    members: dict[str, dict[str, Number]] = {}
    for sae in saes:
        means = own[sae.label]
        moved, chance = means.ratio("moved", "reach"), means.ratio("random_moved", "random_reach")
        found = {"half_way": means.mean(f"share {half}", means.mean(f"random_share {half}").value)}
        if moved is not None:
            control = None if chance is None else chance.value
            found["moved"] = Number(moved.value, moved.standard_error, moved.n, control)
        members[sae.label] = found
    series = []
    for name, site in sites.items():
        series.append(_curve(f"output, {name}", site, "share", end))
        series.append(_curve(f"output, random directions at {name}", site, "random_share", end, "dashed"))
    series += [_curve(f"reconstruction, {label}", means, "share", end) for label, means in own.items()]
    title = "How far outputs have come while an activation moves to another"
    return Result(numbers, members, Figure(title, "share of the way", "share of the distance at its end", series))


def _curve(name: str, means: Means, what: str, steps: int, style: Literal["line", "dashed"] = "line") -> Series:
    found = [means.mean(f"{what} {step}") for step in range(1, steps + 1)]
    x = [step / steps for step in range(steps + 1)]
    errors = [0.0, *(one.standard_error for one in found)]
    return Series(name, x, [0.0, *(one.value for one in found)], errors, style)
