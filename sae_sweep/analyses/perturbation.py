"""What an SAE's error costs the model, beside errors of the same size that nothing is known of (`noise/errors.py`).

Reconstructions and noise stand at all positions, or at one, whose effect is then measured there and at the next few.
The curve says how KL grows as the cosine with the clean activation falls, its norm kept, and where the SAEs are on it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.analyses.noise.errors import KINDS, Draws, Gaussian, at_cosine, cosines
from sae_sweep.analyses.session.batch import CLEAN, Batch, Lost
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError

SITE = ("zero", "mean")
"""What is put at a site whatever the member."""
REFERENCE = "random_error"


@dataclass(frozen=True)
class Config:
    """What is put in place, and where."""

    kinds: list[str]
    cosines: list[float]
    position: int | None
    after: int
    seed: int


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """KL and CE of each kind of error, of each member at its site; the first pass finds the covariance there."""
    _check(config, saes)
    sites = {sae.label: _Site(session, sae) for sae in saes}
    while (batch := (yield)) is not None:
        for label in _first_of_sites(batch, sites):
            sites[label].add(batch, label)
    gaussians = {one.key: one.gaussian() for one in sites.values()}
    means = {sae.label: session.means(sae.label) for sae in saes}
    while (batch := (yield)) is not None:
        first = _first_of_sites(batch, sites)
        for label in batch.saes:
            site, places = sites[label], _places(batch, label, config)
            x_ND = batch.written(label, places.replaced_RT)
            x_ND = x_ND.to(torch.promote_types(x_ND.dtype, torch.float32))  # a cosine of 0.99 in bfloat16 is 0.988
            draws = _draws(gaussians[site.key], x_ND, batch, config.seed)
            if label in first:
                _add_site(site.means, batch, label, places, (x_ND, draws), config.cosines)
            _add_member(means[label], batch, label, places, (x_ND, draws), config.kinds)
    return _result(saes, sites, means, config)


class _Site:
    """Where a member writes, and what activations are distributed like there."""

    def __init__(self, session: Session, sae: FinishedSae) -> None:
        """Sums are the same for all members at a site."""
        stream = session.stream(sae.label)
        number = session.streams.opened.index(stream)
        hooks = "+".join(stream.saes[sae.label].hooks)
        self.name = hooks if len(session.streams.opened) == 1 else f"{hooks} of stream {number}"
        self.key = f"{number}/{hooks}"
        self.means = Means(session.kept, f"site/{self.key}", stream.evaluator.rows)
        d = sae.sae.d_out
        self._sums = session.kept.zeros(f"products/{self.key}", d + 1, d, device=stream.model.device)
        self._count = session.kept.zeros(f"count/{self.key}", 1)

    def add(self, batch: Batch, label: str) -> None:
        """Take in the counted activations of a batch."""
        x_ND = batch.written(label, batch.counted(label)).double()
        self._sums[0] += x_ND.sum(0)
        self._sums[1:] += x_ND.T @ x_ND
        self._count += len(x_ND)

    def gaussian(self) -> Gaussian:
        """What they are like."""
        return Gaussian.of(self._sums[0], self._sums[1:], max(1.0, self._count.item()))


@dataclass(frozen=True)
class _Places:
    """Where activations are replaced, and where what follows is measured, each [R, T]."""

    replaced_RT: Tensor
    measured_RT: Tensor | None
    """None is wherever numbers are measured."""


def _check(config: Config, saes: Sequence[FinishedSae]) -> None:
    """Raises ConfigError for what cannot be asked."""
    unknown = [kind for kind in config.kinds if kind not in KINDS]
    if unknown:
        raise ConfigError(f"analysis.perturbation.kinds: {unknown[0]} is not one of {', '.join(KINDS)}")
    if not all(-1 <= cosine <= 1 for cosine in config.cosines):
        raise ConfigError(f"analysis.perturbation.cosines={config.cosines} must be from -1 to 1")
    context = min(sae.member.config.data.context for sae in saes)
    if config.position is not None and not 0 <= config.position < context - 1:
        raise ConfigError(f"analysis.perturbation.position={config.position}: rows have targets at 0 to {context - 2}")


def _first_of_sites(batch: Batch, sites: Mapping[str, _Site]) -> set[str]:
    """The first member at each site, which stands for it."""
    return set({sites[label].key: label for label in reversed(list(batch.saes))}.values())


def _places(batch: Batch, label: str, config: Config) -> _Places:
    replaced_RT = batch.replaced(label)
    if config.position is None:
        return _Places(replaced_RT, None)
    position_T = torch.arange(replaced_RT.shape[1], device=replaced_RT.device)
    here_RT = replaced_RT & (position_T == config.position)
    near_T = (position_T >= config.position) & (position_T <= config.position + config.after)
    return _Places(here_RT, near_T & here_RT.any(1, keepdim=True))  # where it is not replaced nothing follows


def _draws(gaussian: Gaussian, x_ND: Tensor, batch: Batch, seed: int) -> Draws:
    """The same for all members at a site that replace the same positions."""
    name = ("draws", id(gaussian), seed, tuple(x_ND.shape))
    return batch.once(name, lambda: Draws.of(gaussian, x_ND, draw_seed(seed, batch.first)))


def draw_seed(seed: int, first: int) -> int:
    """That of a batch's draws, by its first row."""
    return seed * 1_000_003 + first


Drawn = tuple[Tensor, Draws]
"""Activations [N, d] where something is put in their place, and random numbers for them."""


def _add_member(means: Means, batch: Batch, label: str, places: _Places, drawn: Drawn, kinds: Sequence[str]) -> None:
    x_ND, draws = drawn
    s_ND = batch.coded(label)[1][places.replaced_RT[batch.replaced(label)]].to(x_ND)
    sites = len(batch.saes[label].hooks)
    parts = list(zip(x_ND.chunk(sites, 1), s_ND.chunk(sites, 1), draws.of_sites(sites), strict=True))
    values = {
        kind: torch.cat([KINDS[kind](*part) for part in parts], dim=1)
        for kind in dict.fromkeys(("sae", REFERENCE, *kinds))
    }
    lost = batch.lost(label, values, places.replaced_RT, places.measured_RT)
    _add_lost(means, lost, values)
    sequence_N = places.replaced_RT.nonzero()[:, 0] + batch.first
    norms = [s.norm(dim=1) / x.norm(dim=1).clamp(min=1e-12) for x, s, _ in parts]
    means.add("cosine", sequence_N, torch.stack([cosines(x, s) for x, s, _ in parts]).mean(0))
    means.add("norm", sequence_N, torch.stack(norms).mean(0))


def _add_site(means: Means, batch: Batch, label: str, places: _Places, drawn: Drawn, at: Sequence[float]) -> None:
    x_ND, draws = drawn
    sites = len(batch.saes[label].hooks)
    parts = list(zip(x_ND.chunk(sites, 1), draws.of_sites(sites), strict=True))
    values = {"zero": torch.zeros_like(x_ND), "mean": draws.mean_D.expand_as(x_ND)}
    for cosine in at:
        cosine_N = torch.full_like(x_ND[:, 0], cosine)
        made = [x.norm(dim=1, keepdim=True) * at_cosine(x, cosine_N, own.white_ND) for x, own in parts]
        values[f"cosine_{cosine:g}"] = torch.cat(made, dim=1)
    _add_lost(means, batch.lost(label, values, places.replaced_RT, places.measured_RT), values)


def _add_lost(means: Means, lost: Lost, names: Iterable[str]) -> None:
    for name in names:
        means.add(f"kl_{name}", lost.sequence_N, lost.kl[name])
        means.add(f"ce_delta_{name}", lost.sequence_N, lost.ce[name] - lost.ce[CLEAN])


def _result(
    saes: Sequence[FinishedSae], sites: Mapping[str, _Site], means: Mapping[str, Means], config: Config
) -> Result:
    members = {sae.label: _numbers(means[sae.label], config.kinds) for sae in saes}
    numbers: dict[str, Number] = {}
    series = []
    for site in {one.key: one for one in sites.values()}.values():
        zero = site.means.mean("kl_zero").value
        of_site = {f"kl_{kind}": site.means.mean(f"kl_{kind}", zero) for kind in SITE}
        curve = [site.means.mean(f"kl_cosine_{cosine:g}", zero) for cosine in config.cosines]
        of_site |= {f"kl_cosine_{cosine:g}": one for cosine, one in zip(config.cosines, curve, strict=True)}
        numbers |= {f"{site.name} {name}": number for name, number in of_site.items()}
        y, error = [one.value for one in curve], [one.standard_error for one in curve]
        series.append(Series(f"noise at {site.name}", config.cosines, y, error, "dashed"))
        here = [label for label, one in sites.items() if one.key == site.key]
        kl = [members[label]["kl_sae"] for label in here]
        x = [members[label]["cosine"].value for label in here]
        y, error = [one.value for one in kl], [one.standard_error for one in kl]
        series.append(Series(f"SAEs at {site.name}", x, y, error, "points"))
    title = "KL of SAEs, and of random noise of the same cosine with the activation"
    return Result(numbers, members, Figure(title, "cosine", "KL, nats", series, log_y=True))


def _numbers(means: Means, kinds: Sequence[str]) -> dict[str, Number]:
    """Of a member: the control of each kind of error is random noise of the same length."""
    found: dict[str, Number] = {}
    for what in ("kl", "ce_delta"):
        control = means.mean(f"{what}_{REFERENCE}").value
        for kind in dict.fromkeys(("sae", REFERENCE, *kinds)):
            found[f"{what}_{kind}"] = means.mean(f"{what}_{kind}", control)
    ratio = means.ratio("kl_sae", f"kl_{REFERENCE}", 1.0)
    if ratio is not None:
        found["kl_over_random_error"] = ratio
    return {**found, "cosine": means.mean("cosine", 1.0), "norm": means.mean("norm", 1.0)}
