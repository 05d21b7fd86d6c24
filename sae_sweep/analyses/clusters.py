"""Whether an SAE does more than what needs none: components and centroids, controls, and tables of n-grams.

At an SAE's L0 of n stand n - 1 principal components and one of as many centroids as it has latents (PCA + k-means), or
of one for each eight tokens that they are fitted on where these are fewer, which their names say; and the sweep's own
controls (`sae=pca`, `kmeans`, `random`, `frozen_decoder`) of that L0. Explained variance is about the mean of the
training tokens that all of it is fitted on. A latent's or a centroid's tokens are those on which it is the
largest or nearest; purity is how often a held-out one of these is the token that was most frequent among them in
training. N-grams say how much of the model is no more than the last token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from sae_sweep.analyses.clustering.controls import Weights, controls_of, l0_of
from sae_sweep.analyses.clustering.fitting import Beside, Fitting
from sae_sweep.analyses.clustering.naming import strongest
from sae_sweep.analyses.clustering.ngrams import Ngrams, of_stream
from sae_sweep.analyses.session.batch import CLEAN, Batch, Lost
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.jackknife import ratio_standard_error

SHARES = {"explained_variance": ("error", "variance"), "ce_recovered": ("rise", "range")}
"""Each is 1 less the ratio of two sums: squared errors over squares about the mean, and the rise in CE over that of
zero ablation."""


@dataclass(frozen=True)
class Config:
    """What is fitted on how much, and which controls are near enough."""

    tokens: int
    ngram_tokens: float
    within: float
    seed: int


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """Variance and CE of each member and of what needs no SAE, purity of both, and CE of n-grams."""
    _check(session, saes, config)
    streams = session.streams.opened
    beside = _fitted(session, saes, config)
    tables = [
        of_stream(session.kept, f"pairs/{number}", stream, int(config.ngram_tokens), session.told)
        for number, stream in enumerate(streams)
    ]
    means = {sae.label: session.means(sae.label) for sae in saes}
    rows = {beside[label].site: stream.evaluator.rows for stream in streams for label in stream.saes}
    of_site = {site: Means(session.kept, f"site/{site}", count) for site, count in rows.items()}
    of_text = [Means(session.kept, f"text/{number}", stream.evaluator.rows) for number, stream in enumerate(streams)]
    while (batch := (yield)) is not None:
        number = next(number for number, stream in enumerate(streams) if next(iter(batch.saes)) in stream.saes)
        _add_text(of_text[number], batch, tables[number])
        for site in dict.fromkeys(beside[label].site for label in batch.saes):
            here = {label: beside[label] for label in batch.saes if beside[label].site == site}
            ablated = _add_site(of_site[site], batch, here)
            for label, own in here.items():
                _add_member(means[label], batch, label, own, ablated, tables[number])
    members = {}
    for sae in saes:
        site = beside[sae.label].site
        controls = controls_of(sae, [one for one in saes if beside[one.label].site == site], config.within)
        members[sae.label] = _numbers(means, sae.label, of_site[site], beside[sae.label], controls)
    numbers = _of_texts(of_text, tables)
    for site, sums in of_site.items():
        numbers |= _of_site(sums, [one for one in beside.values() if one.site == site], len(streams) > 1)
    return Result(numbers, members, _figure(saes, members, beside))


def _check(session: Session, saes: Sequence[FinishedSae], config: Config) -> None:
    """Raises ConfigError for what cannot be asked."""
    for key in ("tokens", "ngram_tokens"):
        if getattr(config, key) < 1:
            raise ConfigError(f"analysis.clusters.{key}={getattr(config, key):g} must be at least 1")
    if config.within < 0:
        raise ConfigError(f"analysis.clusters.within={config.within:g} must not be negative")
    for sae in saes:
        if len(session.stream(sae.label).saes[sae.label].hooks) > 1:
            raise ConfigError(f"analysis.clusters: {sae.label} is a crosscoder, whose codes are of several sites")


def _fitted(session: Session, saes: Sequence[FinishedSae], config: Config) -> dict[str, Beside]:
    """What stands beside each member."""
    found = {}
    for number, stream in enumerate(session.streams.opened):
        fitting = Fitting(session.kept, number, stream.source.calibration(), config.tokens, config.seed)
        own = [sae for sae in saes if sae.label in stream.saes]
        for place, sae in enumerate(own):
            session.told("clusters: fitting centroids", place, len(own))
            found[sae.label] = fitting.beside(stream.saes[sae.label], l0_of(sae))
    return found


def _add_text(means: Means, batch: Batch, table: Ngrams) -> None:
    """Take in a batch's tokens."""
    lost = batch.lost_by(next(iter(batch.saes)))
    first_N, next_N = _pairs(batch, lost)
    means.add("clean", lost.sequence_N, lost.ce[CLEAN])
    means.add("unigram", lost.sequence_N, table.unigram(next_N))
    means.add("bigram", lost.sequence_N, table.bigram(first_N, next_N))


def _pairs(batch: Batch, lost: Lost) -> tuple[Tensor, Tensor]:
    """The token at each position where something is lost, and the next."""
    row_N, tokens_RT = lost.sequence_N - batch.first, batch.rows.clean.tokens_RT
    return tokens_RT[row_N, lost.position_N], tokens_RT[row_N, lost.position_N + 1]


def _add_site(means: Means, batch: Batch, here: Mapping[str, Beside]) -> Lost:
    """Take in a batch of what stands beside members of one site; what the model loses with zeros there comes back."""
    label = next(iter(here))
    where_RT, counted_RT = batch.replaced(label), batch.counted(label)
    counts_N = counted_RT[where_RT]
    y_ND, token_N = _written(batch, label), batch.rows.clean.tokens_RT[counted_RT]
    sequence_N = counted_RT.nonzero()[:, 0] + batch.first
    made = {name: each for one in here.values() for name, each in one.made.items()}
    values = {name: each.reconstructed(y_ND) for name, each in made.items()}
    lost = batch.lost(label, {"zero": torch.zeros_like(y_ND), **values})
    mean_D = here[label].alone.mean_D.to(y_ND)
    means.add("variance", sequence_N, _squares(y_ND - mean_D)[counts_N])
    means.add("range", lost.sequence_N, lost.ce["zero"] - lost.ce[CLEAN])
    for name, value_ND in values.items():
        means.add(f"error {name}", sequence_N, _squares(y_ND - value_ND)[counts_N])
        means.add(f"rise {name}", lost.sequence_N, lost.ce[name] - lost.ce[CLEAN])
    means.add("guess", sequence_N, (here[label].cluster_names[-1].to(token_N.device) == token_N).double())
    for count, one in {one.centroids: one for one in here.values()}.items():
        guess_N = one.cluster_names.to(token_N.device)[one.clusters.clusters(y_ND[counts_N])]
        means.add(f"purity {count}", sequence_N, (guess_N == token_N).double())
    return lost


def _written(batch: Batch, label: str) -> Tensor:
    """What a member is to reconstruct, in float32 at least: in bfloat16 nothing can be taken about a mean."""
    y_ND = batch.written(label, batch.replaced(label))
    return y_ND.to(torch.promote_types(y_ND.dtype, torch.float32))


def _squares(x_ND: Tensor) -> Tensor:
    return x_ND.double().square().sum(1)


def _add_member(means: Means, batch: Batch, label: str, own: Beside, ablated: Lost, table: Ngrams) -> None:
    """Take in a batch of one member; `ablated` is what the model loses with zeros at its site."""
    where_RT, counted_RT = batch.replaced(label), batch.counted(label)
    counts_N, sequence_N = counted_RT[where_RT], counted_RT.nonzero()[:, 0] + batch.first
    y_ND, lost = _written(batch, label), batch.lost_by(label)
    means.add("error", sequence_N, _squares(y_ND - batch.coded(label)[1])[counts_N])
    means.add("variance", sequence_N, _squares(y_ND - own.alone.mean_D.to(y_ND))[counts_N])
    means.add("rise", lost.sequence_N, lost.ce[label] - lost.ce[CLEAN])
    means.add("range", lost.sequence_N, ablated.ce["zero"] - lost.ce[CLEAN])
    means.add("ce", lost.sequence_N, lost.ce[label])
    means.add("bigram", lost.sequence_N, table.bigram(*_pairs(batch, lost)))
    codes, token_N = batch.codes(label), batch.rows.clean.tokens_RT[counted_RT]
    means.add("l0", sequence_N, codes.offsets.diff())
    guess_N = own.latent_names.to(token_N.device)[strongest(codes, own.width)]
    means.add("purity", sequence_N, (guess_N == token_N).double())


def _numbers(
    means: Mapping[str, Means], label: str, site: Means, own: Beside, controls: Mapping[str, Weights]
) -> dict[str, Number]:
    """A member's, read against components with centroids; and how much more it has than each control in the sweep."""
    mine = means[label]
    found = {"l0": mine.mean("l0", own.l0)}
    for name, (lost, whole) in SHARES.items():
        beside = _share(site, f"{lost} {own.name}", whole)
        number = _share(mine, lost, whole, None if beside is None else beside.value)
        if number is not None:
            found[name] = number
        for kind, weights in controls.items():
            more = more_than(mine, {means[each]: weight for each, weight in weights.items()}, lost, whole)
            if more is not None:
                found[f"{name}_over_{kind}"] = more
    found["purity"] = mine.mean("purity", site.mean(f"purity {own.centroids}").value)
    found["ce"] = mine.mean("ce", mine.mean("bigram").value)
    return found


def _share(means: Means, lost: str, whole: str, control: float | None = None) -> Number | None:
    """1 less a ratio."""
    ratio = means.ratio(lost, whole)
    return None if ratio is None else Number(1 - ratio.value, ratio.standard_error, ratio.n, control)


def more_than(mine: Means, theirs: Mapping[Means, float], lost: str, whole: str) -> Number | None:
    """How much larger a member's share is than that of others together, each with its weight; of no difference it is 0.
    What they share is in no error. None where there is nothing to have a share of."""
    lost_R, count_R = mine.per_sequence(lost)
    whole_R, _ = mine.per_sequence(whole)
    if whole_R.sum() == 0:
        return None
    less_R = sum(weight * each.per_sequence(lost)[0] for each, weight in theirs.items()) - lost_R
    value = (less_R.sum() / whole_R.sum()).item()
    return Number(value, ratio_standard_error(less_R, whole_R), int(count_R.sum()), 0.0)


def _of_texts(texts: Sequence[Means], tables: Sequence[Ngrams]) -> dict[str, Number]:
    """CE of the model and of tables, each read against what knows less."""
    found = {}
    for number, (means, table) in enumerate(zip(texts, tables, strict=True)):
        unigram, bigram = (means.mean(name).value for name in ("unigram", "bigram"))
        where = f" of stream {number}" if len(texts) > 1 else ""
        found[f"ce_clean{where}"] = means.mean("clean", bigram)
        found[f"ce_bigram{where}"] = means.mean("bigram", unigram)
        found[f"ce_unigram{where}"] = means.mean("unigram", log(table.vocabulary))
    return found


def _of_site(means: Means, beside: Sequence[Beside], several: bool) -> dict[str, Number]:
    """What stands beside members, read against as many components and nothing else; purity against one guess."""
    found, where = {}, f"{beside[0].hooks}{' of stream ' + beside[0].site.split('/')[0] if several else ''}"
    for one in {one.name: one for one in beside}.values():
        for name, (lost, whole) in SHARES.items():
            alone = _share(means, f"{lost} pca_{one.l0}", whole)
            number = _share(means, f"{lost} {one.name}", whole, None if alone is None else alone.value)
            if number is not None:
                found[f"{where} {name} {one.name}"] = number
    for count in dict.fromkeys(one.centroids for one in beside):
        found[f"{where} purity kmeans_{count}"] = means.mean(f"purity {count}", means.mean("guess").value)
    return found


def _figure(
    saes: Sequence[FinishedSae], members: Mapping[str, Mapping[str, Number]], beside: Mapping[str, Beside]
) -> Figure:
    """Explained variance over L0: trained members and each kind of control, and components with centroids."""
    series = []
    kinds = [
        (sae.member.config.sae.method() if sae.member.config.sae.control else "trained", sae.label) for sae in saes
    ]
    for kind in dict.fromkeys(kind for kind, _ in kinds):
        own = [members[label] for each, label in kinds if each == kind and "explained_variance" in members[label]]
        found = [numbers["explained_variance"] for numbers in own]
        x, y = [numbers["l0"].value for numbers in own], [one.value for one in found]
        series.append(Series(kind, x, y, [one.standard_error for one in found], "points"))
    for name in dict.fromkeys(f"{one.hooks}, {one.centroids} centroids" for one in beside.values()):
        of = {
            one.l0: members[label]["explained_variance"].control
            for label, one in beside.items()
            if f"{one.hooks}, {one.centroids} centroids" == name and "explained_variance" in members[label]
        }
        series.append(Series(f"PCA + k-means, {name}", sorted(of), [of[l0] for l0 in sorted(of)], style="dashed"))
    return Figure("Explained variance at each L0", "L0", "explained variance", series, log_x=True)
