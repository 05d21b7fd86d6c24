"""How latents go together: sparse linear maps from the codes at one site to those at a later one, and which latents of
a member fire together.

Maps are of standardised codes (`maps/lasso.py`), fitted on the held-out rows with an even number and judged on the odd
ones, for members that differ in their site alone; what they explain is read against targets of other tokens. Clusters
are of the correlations of a member's own codes, found on even rows too; how alike latents of one cluster are on odd
rows is read against clusters of the same sizes at random. Maps and co-activations are written as sparse matrices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sae_sweep.analyses.maps.lasso import explained, sparse_map
from sae_sweep.analyses.maps.together import Together, clustered, matrix_text, within
from sae_sweep.analyses.matches.correlation import Correlation, shifted
from sae_sweep.analyses.matches.pairs import Pair, pairs_of
from sae_sweep.analyses.matching import at_same_tokens
from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.analyses.splitting import share
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.kernels.entries import Entries, rows_where
from sae_sweep.model.sites import HOOK_OF_KIND

MOST = 2**13
"""Latents of a member: of every two some sums are held, 0.5 GiB each time."""
HALVES = (0, 1)
"""Rows with an even number, which is fitted on, and those with an odd one."""


@dataclass(frozen=True)
class Config:
    """How sparse maps are, and what is shown of latents that fire together."""

    l1: list[float]
    clusters: int
    together: int


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """The maps of every pair of sites, and the co-activations of every member."""
    pairs = _checked(session, saes, config)
    sums = _Sums(session, saes, pairs)
    while (batch := (yield)) is not None:
        sums.add(batch)
    members: dict[str, dict[str, Number]] = {sae.label: {} for sae in saes}
    files, series, details = dict[str, str](), list[Series](), dict[str, list[list[int]]]()
    for number, (one, other) in enumerate(pairs):
        session.told("connections: maps", number, len(pairs))
        found = sums.maps(one, other, config.l1)
        members[other.label] |= found.numbers()
        folder = f"{other.label}/{names.ANALYSES}/connections"
        files |= {f"{folder}/from-{one.label}-l1_{l1:g}.mtx": text for l1, text in found.texts().items()}
        series += found.series()
    for number, sae in enumerate(saes):
        session.told("connections: clusters", number, len(saes))
        alike, details[sae.label] = sums.clusters(sae, config.clusters)
        members[sae.label] |= alike
        text = sums.together[sae.label].text(config.together)
        files[f"{sae.label}/{names.ANALYSES}/connections/coactivation.mtx"] = text
    title = "What sparse maps explain of a later site's latents"
    figure = Figure(title, "inputs of a latent", "share of variance", series, log_x=True) if series else None
    return Result(members=members, figure=figure, details=details, files=files)


def _checked(session: Session, saes: Sequence[FinishedSae], config: Config) -> list[Pair]:
    """The pairs between which maps are fitted, the earlier site first. Raises ConfigError for what cannot be asked."""
    if any(l1 <= 0 for l1 in config.l1) or config.clusters < 1:
        raise ConfigError("analysis.connections: every l1 must be above 0, clusters at least 1")
    for sae in saes:
        if sae.sae.width > MOST:
            raise ConfigError(f"analysis.connections: {sae.label} has more than {MOST} latents; --member narrower ones")
    if not config.l1:
        return []
    try:
        pairs = pairs_of(saes, "layer", "connections", widths=False)
    except ConfigError as error:
        raise ConfigError(f"{error}, or give analysis.connections.l1=[] for latents that fire together alone") from None
    for one, other in pairs:
        if session.stream(one.label) is not session.stream(other.label):
            raise ConfigError(f"analysis.connections: {one.label} and {other.label} read other tokens; --member one's")
    return [(one, other) if _depth(one) <= _depth(other) else (other, one) for one, other in pairs]


def _depth(sae: FinishedSae) -> tuple[int, int]:
    """Where in the model a member reads."""
    site, kinds = sae.member.site, list(HOOK_OF_KIND)
    return site.layer or 0, kinds.index(site.kind) if site.kind in kinds else len(kinds)


class _Sums:
    """Sums of products of codes, over rows of either half."""

    def __init__(self, session: Session, saes: Sequence[FinishedSae], pairs: Sequence[Pair]) -> None:
        kept, self._kept = session.kept, session.kept
        self.together = {sae.label: Together(kept, sae.label, sae.sae.width) for sae in saes}
        self._own = {
            (sae.label, half): Correlation(kept, f"{sae.label}/{half}", (sae.sae.width, sae.sae.width))
            for sae in saes
            for half in HALVES
        }
        self._between = {
            (a.label, b.label, kind, half): Correlation(
                kept, f"{a.label}/{b.label}/{kind}/{half}", (a.sae.width, b.sae.width)
            )
            for a, b in pairs
            for kind in ("same", "shifted")
            for half in HALVES
        }
        self._pairs = pairs

    def add(self, batch: Batch) -> None:
        """Take in a batch."""
        for label in batch.saes:
            codes = batch.codes(label)
            self.together[label].add(codes)
            for half, own in _halved(batch.counted(label), batch.first, codes):
                self._own[label, half].add(own, own)
        for one, other in self._pairs:
            if one.label in batch.saes:
                both_RT = batch.counted(one.label) & batch.counted(other.label)
                codes, others = at_same_tokens(batch, one.label, other.label)
                parts = zip(_halved(both_RT, batch.first, codes), _halved(both_RT, batch.first, others), strict=True)
                for (half, own), (_, theirs) in parts:
                    self._between[one.label, other.label, "same", half].add(own, theirs)
                    moved = shifted(theirs, (len(theirs.offsets) - 1) // 2)
                    self._between[one.label, other.label, "shifted", half].add(own, moved)

    def maps(self, one: FinishedSae, other: FinishedSae, l1: Sequence[float]) -> "Maps":
        """Of the latents that vary in both halves, of either member."""
        own, theirs = (self._correlations(each.label) for each in (one, other))
        inputs_A, targets_B = (_varying(each) for each in (own, theirs))
        fitted_AA, judged_AA = (each[inputs_A][:, inputs_A].float() for each in own)
        found: dict[tuple[str, float], Fit] = {}
        for kind in ("same", "shifted"):
            fitted_AB, judged_AB = (
                self._between[one.label, other.label, kind, half].matrix()[inputs_A][:, targets_B].float()
                for half in HALVES
            )
            W: Tensor | None = None
            for each in sorted(l1, reverse=True):
                name = f"map/{one.label}/{other.label}/{kind}/{each}"
                W = self._kept.once(name, partial(sparse_map, fitted_AA, fitted_AB, each, W))
                found[kind, each] = Fit(W, explained(W, judged_AA, judged_AB))
        return Maps((one, other), sorted(l1, reverse=True), found, inputs_A, targets_B)

    def clusters(self, sae: FinishedSae, clusters: int) -> tuple[dict[str, Number], list[list[int]]]:
        """How alike latents of one cluster are, and the clusters of two latents or more, the largest first."""
        found = self._correlations(sae.label)
        alive_A = _varying(found)
        fitted_AA, judged_AA = (each[alive_A][:, alive_A] for each in found)
        cluster_A = clustered(fitted_AA, clusters)
        order = torch.randperm(len(cluster_A), generator=torch.Generator().manual_seed(0))
        numbers = {"within_clusters": share(within(judged_AA, cluster_A), within(judged_AA, cluster_A[order]))}
        lists = [alive_A[cluster_A == each].tolist() for each in cluster_A.unique()]
        return numbers, sorted((each for each in lists if len(each) > 1), key=len, reverse=True)

    def _correlations(self, label: str) -> tuple[Tensor, Tensor]:
        """[F, F] of a member's own codes in each half."""
        first, second = (self._own[label, half].matrix() for half in HALVES)
        return first, second


@dataclass(frozen=True)
class Fit:
    """One map, and what it explains of each target on other rows."""

    W: Tensor
    explained_B: Tensor


@dataclass(frozen=True)
class Maps:
    """Those of one pair, the sparsest first."""

    pair: Pair
    l1: Sequence[float]
    found: dict[tuple[str, float], Fit]
    inputs_A: Tensor
    targets_B: Tensor

    def numbers(self) -> dict[str, Number]:
        """What each explains, and how many inputs it has for a target; over targets."""
        made = {}
        for l1 in self.l1:
            own, chance = self.found["same", l1], self.found["shifted", l1]
            named = f"{l1:g} {self.pair[0].label}"
            made[f"explained_l1_{named}"] = share(own.explained_B, chance.explained_B)
            made[f"inputs_l1_{named}"] = share(_inputs(own), _inputs(chance))
        return made

    def series(self) -> list[Series]:
        """What is explained over the number of inputs, and the same of other tokens at these l1."""
        name = f"{self.pair[0].label} to {self.pair[1].label}"
        numbers = list(self.numbers().values())
        shown, x = numbers[::2], [one.value for one in numbers[1::2]]
        values, errors = [one.value for one in shown], [one.standard_error for one in shown]
        chance = Series(f"{name}, other tokens", x, [one.control for one in shown], style="dashed")
        return [Series(name, x, values, errors), chance]

    def texts(self) -> dict[float, str]:
        """Each map as a file: from latents of the one member, rows, to those of the other, by their own numbers."""
        found = {}
        for l1 in self.l1:
            W = self.found["same", l1].W
            row_N, column_N = W.nonzero(as_tuple=True)
            entries = W[row_N, column_N], self.inputs_A[row_N], self.targets_B[column_N]
            shape = tuple(each.sae.width for each in self.pair)
            found[l1] = matrix_text(entries, shape, "of standardised codes, from latents (rows) to latents (columns)")
        return found


def _inputs(fit: Fit) -> Tensor:
    return (fit.W != 0).sum(0)


def _varying(halves: Iterable[Tensor]) -> Tensor:
    """The latents that vary in both halves."""
    first_F, second_F = (each.diagonal() > 0 for each in halves)
    return (first_F & second_F).nonzero()[:, 0]


def _halved(where_RT: Tensor, first: int, codes: Entries) -> list[tuple[int, Entries]]:
    """The codes of rows with an even number, and of those with an odd one."""
    half_N = (where_RT.nonzero()[:, 0] + first) % 2
    return [(half, rows_where(half_N == half, codes)) for half in HALVES]
