"""What a model with an SAE in is worth in training compute (Gao et al. 2024, arXiv 2406.04093).

A family of models has a CE over training compute, which is read where it is that of the sweep's model with the SAE in:
`recovered` is that compute over what the clean CE takes. The control is an error at random of the same length in the
SAE's place. Where a CE is beyond the family `recovered_at_most` is a bound, or with `extrapolate=true`
`recovered_extrapolated` a guess. Errors leave out one held-out sequence at a time, for the SAE, the clean model and the
family's measured models together, and add those that a table has of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

import torch

from sae_sweep.analyses.noise.errors import unit
from sae_sweep.analyses.scaling.compared import Ce, Compared
from sae_sweep.analyses.scaling.family import Row, ce_at, check_models, read_table
from sae_sweep.analyses.session.batch import CLEAN, Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.others import other_model
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session, Stream
from sae_sweep.errors import ConfigError
from sae_sweep.model.load import load_model
from sae_sweep.model.within import within_documents

KEY = "analysis.compute_equivalent"


@dataclass(frozen=True)
class Config:
    """The family, and what is done beyond it."""

    table: str | None
    models: list[str]
    compute: list[float]
    own: float | None
    extrapolate: bool
    seed: int


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """CE of members and of errors at random; then of each model of the family, in a pass of its own."""
    for sae in saes:
        if sae.spliced.models > 1:
            raise ConfigError(f"{KEY}: {sae.label} is of two models, which are of no one family; --member the others")
    table, stream = _check(config), _only(session)
    models = {path: other_model(f"{KEY}.models", stream.model.config, path) for path in config.models}
    means = {sae.label: session.means(sae.label) for sae in saes}
    sites = {label: "+".join(one.sites) for label, one in stream.saes.items()}
    of_site = {site: Means(session.kept, f"site/{site}", stream.evaluator.rows) for site in sites.values()}
    first = {site: label for label, site in reversed(sites.items())}
    while (batch := (yield)) is not None:
        for label in batch.saes:
            _add(means[label], batch, label, config.seed)
        for site, label in first.items():
            _add_site(of_site[site], batch, label)
    for path, of_model in models.items():
        model = None
        while (batch := (yield)) is not None:
            model = model or within_documents(load_model(of_model), batch.rows.of.parting)
            for site, label in first.items():
                target_RT = batch.rows.places(stream.saes[label].sites).target_RT
                ce_N = ce_at(model, batch.rows, target_RT)
                of_site[site].add(f"ce {path}", target_RT.nonzero()[:, 0] + batch.first, ce_N)
    return _result(saes, sites, means, of_site, config, table)


def _check(config: Config) -> list[Row]:
    """The table's rows. Raises ConfigError for what cannot be asked."""
    if (config.table is None) == (not config.models):
        raise ConfigError(f"{KEY}: give either table=FILE or models=[FOLDER,...] with compute=[...]")
    check_models(KEY, config.models, config.compute)
    if config.own is not None and config.own <= 0:
        raise ConfigError(f"{KEY}.own={config.own:g} must be above 0")
    table = [] if config.table is None else read_table(f"{KEY}.table", config.table)
    if len({row.compute for row in table} | set(config.compute)) < 2:
        raise ConfigError(f"{KEY}: a family has at least two models, of different compute")
    return table


def _only(session: Session) -> Stream:
    """The stream that all members read. Raises ConfigError where there are several."""
    streams = session.streams.opened
    if len(streams) > 1:
        raise ConfigError(f"{KEY}: the members are of several models or sources of tokens; --member those of one")
    return streams[0]


def _add(means: Means, batch: Batch, label: str, seed: int) -> None:
    """Take in a batch of one member, and errors of its length."""
    own, where_RT = batch.lost_by(label), batch.replaced(label)
    x_ND = batch.written(label, where_RT)
    sites = len(batch.saes[label].hooks)
    error_ND = x_ND - batch.coded(label)[1]
    generator = torch.Generator().manual_seed(seed * 1_000_003 + batch.first)
    white_ND = torch.randn(x_ND.shape, generator=generator, dtype=torch.float64).to(error_ND)
    parts = zip(error_ND.chunk(sites, 1), white_ND.chunk(sites, 1), strict=True)  # a crosscoder's passes are by site
    random_ND = torch.cat([error.norm(dim=1, keepdim=True) * unit(white) for error, white in parts], dim=1)
    lost = batch.lost(label, {"random": x_ND + random_ND})
    means.add("ce", own.sequence_N, own.ce[label])
    means.add("random", lost.sequence_N, lost.ce["random"])


def _add_site(means: Means, batch: Batch, label: str) -> None:
    """Take in a batch at a site, for which a member stands."""
    lost = batch.lost(label, {"zero": torch.zeros_like(batch.written(label, batch.replaced(label)))})
    means.add("clean", lost.sequence_N, lost.ce[CLEAN])
    means.add("zero", lost.sequence_N, lost.ce["zero"])


def _result(
    saes: Sequence[FinishedSae],
    sites: Mapping[str, str],
    means: Mapping[str, Means],
    of_site: Mapping[str, Means],
    config: Config,
    table: Sequence[Row],
) -> Result:
    numbers, members, series = dict[str, Number](), dict[str, dict[str, Number]](), list[Series]()
    for site, own in of_site.items():
        models = zip(config.compute, config.models, strict=True)
        measured = [(compute, Ce.of(*own.per_sequence(f"ce {path}"))) for compute, path in models]
        family: list[tuple[float, Ce | Row]] = [*((row.compute, row) for row in table), *measured]
        compared = Compared(family, Ce.of(*own.per_sequence("clean")), config.own, config.extrapolate)
        _check_curve(compared)
        name, zero = compared.recovered(Ce.of(*own.per_sequence("zero")), 1.0)
        if config.extrapolate or compared.curve.holds(compared.clean.mean):
            numbers[f"{site} compute_clean"] = compared.compute_clean()
        numbers |= {
            f"{site} ce_clean": own.mean("clean", own.mean("zero").value),
            f"{site} zero_{name}": zero,
        }
        here = {sae.label: _numbers(means[sae.label], compared) for sae in saes if sites[sae.label] == site}
        members |= here
        series += [*([] if series else [_family(compared)]), _points(site, compared, here)]
    figure = Figure("CE over training compute, and where SAEs are on it", "compute", "CE, nats", series, log_x=True)
    return Result(numbers, members, figure)


def _check_curve(compared: Compared) -> None:
    """Raises ConfigError for a family in which CE does not fall, and for a model that it does not reach."""
    curve, clean = compared.curve, compared.clean.mean
    if len(curve.ce) < 2:
        raise ConfigError(f"{KEY}: CE does not fall with compute in this family")
    if compared.own is None and not compared.extrapolate and not curve.holds(clean):
        raise ConfigError(
            f"{KEY}: the clean CE of {clean:.4g} is not between the family's {curve.ce[-1]:.4g} and {curve.ce[0]:.4g};"
            " give own=COMPUTE, a wider family, or extrapolate=true"
        )


def _numbers(own: Means, compared: Compared) -> dict[str, Number]:
    """A member's, read against errors at random."""
    known, control = compared.recovered(Ce.of(*own.per_sequence("random")), None)
    is_bound = known in ("recovered_at_most", "recovered_at_least")
    name, number = compared.recovered(Ce.of(*own.per_sequence("ce")), None if is_bound else control.value)
    return {name: number, "ce": own.mean("ce", own.mean("random").value)}


def _family(compared: Compared) -> Series:
    """The family's own curve."""
    curve = compared.curve
    return Series("family", [exp(x) for x in curve.log_compute], list(curve.ce), style="dashed")


def _points(site: str, compared: Compared, members: Mapping[str, Mapping[str, Number]]) -> Series:
    """Members of a site on it, as far as it goes."""
    curve, ces = compared.curve, [numbers["ce"] for numbers in members.values()]
    shown = [one for one in ces if compared.extrapolate or curve.holds(one.value)]
    x, y = [curve.compute(one.value) for one in shown], [one.value for one in shown]
    return Series(f"SAEs at {site}", x, y, [one.standard_error for one in shown], "points")
