"""What members and their latents do to a number of one's own: any function of the model's logits.

The number is that of each prompt, or held-out row, of the model as it is and with a member's reconstructions in place.
Faithfulness is the share of what ablating the site costs that the member keeps (Marks et al. 2024, arXiv 2403.19647):
(with it - ablated) / (clean - ablated); the control has random noise as long as the member's error instead.

A latent's effect is what the number becomes more by when the latent is taken out of the spliced reconstructions. That
is found exactly for those latents that the gradient at the reconstructions estimates to have the largest effects
(attribution: -f W_dec . gradient, summed over the row), and for as many others that fire, drawn at random.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sae_sweep.analyses.noise.errors import unit
from sae_sweep.analyses.scores.effects import Effect, Effects, estimate_of, faithfulness
from sae_sweep.analyses.scores.function import Lines, Score
from sae_sweep.analyses.scores.prompts import Prompts
from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session, Stream
from sae_sweep.errors import ConfigError
from sae_sweep.kernels.sparse import bag_of_each, sampled_products

ABLATED = ("zero", "mean")


@dataclass(frozen=True)
class Config:
    """Whose number it is, of which rows, and of how many latents."""

    function: str
    prompts: str | None
    latents: int
    seed: int


@dataclass(frozen=True)
class _Some:
    """A batch of rows whose numbers are asked."""

    batch: Batch
    sequence_R: Tensor
    """The number of each row among all."""
    lines: Lines | None


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """The number with and without each member, and each of some latents."""
    if config.latents < 0:
        raise ConfigError(f"analysis.downstream.latents={config.latents} must be at least 0")
    asked = _Asked(session, saes, config)
    while (batch := (yield)) is not None:
        asked.take_mean(batch)
    yield from asked.each("downstream: with and without members", asked.measure)
    if config.latents:
        yield from asked.each("downstream: without latents", asked.ablate)
    return asked.result()


class _Asked:
    """All that is found, in what the analysis keeps."""

    def __init__(self, session: Session, saes: Sequence[FinishedSae], config: Config) -> None:
        self._session, self._saes, self._config = session, saes, config
        self._score = Score(config.function)
        self._prompts = None if config.prompts is None else Prompts.read(config.prompts)
        for sae in saes:
            if len(sae.spliced.hooks) > 1:
                raise ConfigError(f"analysis.downstream: {sae.label} is a crosscoder, which writes at several sites")
        self._sites = {sae.label: self._site(sae.label) for sae in saes}
        self._own = {sae.label: self._means(sae.label, sae.label) for sae in saes}

    def _site(self, label: str) -> "_Site":
        stream = self._session.stream(label)
        one, number = stream.saes[label], self._session.streams.opened.index(stream)
        name = one.hook if len(self._session.streams.opened) == 1 else f"{one.hook} of stream {number}"
        sums = self._session.kept.zeros(f"sums/{name}", 1 + one.sae.d_out, device=stream.model.device)
        return _Site(name, one.hook, self._means(f"site/{name}", label), sums)

    def _means(self, name: str, label: str) -> Means:
        rows = self._session.stream(label).evaluator.rows if self._prompts is None else len(self._prompts.lines)
        return Means(self._session.kept, name, rows)

    def _first_of_sites(self, batch: Batch) -> set[str]:
        """The first member at each site, which stands for it."""
        return set({self._sites[label].name: label for label in reversed(list(batch.saes))}.values())

    def take_mean(self, batch: Batch) -> None:
        """Take in the activations that mean ablation puts the mean of."""
        for label in self._first_of_sites(batch):
            x_ND = batch.written(label, batch.counted(label)).double()
            self._sites[label].sums[0] += len(x_ND)
            self._sites[label].sums[1:] += x_ND.sum(0)

    def each(self, what: str, take: Callable[[_Some], None]) -> Generator[None, Batch | None, None]:
        """Give all rows to a function: a pass over held-out ones, or those of the prompts now."""
        if self._prompts is not None:
            for stream in self._session.streams.opened:
                for some in self._of_prompts(self._prompts, stream, what):
                    take(some)
            return
        while (batch := (yield)) is not None:
            rows_R = torch.arange(len(batch.rows.clean.tokens_RT), device=batch.model.device)
            take(_Some(batch, batch.first + rows_R, None))

    def _of_prompts(self, prompts: Prompts, stream: Stream, what: str) -> Iterator[_Some]:
        number = self._session.streams.opened.index(stream)
        for rows in prompts.rows(stream):
            name = f"{what}, {rows.tokens_RT.shape[1]} tokens each{f', stream {number}' if number else ''}"
            for batch in self._session.over(stream, rows.tokens_RT, stream.evaluator.rows_per_forward, name):
                count = len(batch.rows.clean.tokens_RT)
                sequence_R = rows.first + batch.first + torch.arange(count, device=stream.model.device)
                yield _Some(batch, sequence_R, rows.lines[batch.first : batch.first + count])

    def _number(self, some: _Some, final_RTD: Tensor) -> Tensor:
        return self._score.of(some.batch.model, final_RTD, some.batch.rows.clean.tokens_RT, some.lines)

    @torch.no_grad()
    def measure(self, some: _Some) -> None:
        """The number of rows as they are, with the site ablated, with members, and with noise; and estimates."""
        batch, first = some.batch, self._first_of_sites(some.batch)
        clean_R = self._number(some, batch.rows.clean.final_RTD)
        for label in batch.saes:
            site, where_RT = self._sites[label], batch.replaced(label)
            x_ND, s_ND = batch.written(label, where_RT), batch.coded(label)[1]
            spliced = partial(batch.final, site.hook, where_RT=where_RT)
            if label in first:
                site.means.add("clean", some.sequence_R, clean_R)
                for kind, value_D in zip(ABLATED, (torch.zeros_like(site.mean_D), site.mean_D), strict=True):
                    ablated_RTD = spliced(value_D.to(x_ND).expand_as(x_ND))
                    site.means.add(kind, some.sequence_R, self._number(some, ablated_RTD))
            generator = torch.Generator().manual_seed(self._config.seed * 1_000_003 + int(some.sequence_R[0]))
            white_ND = torch.randn(x_ND.shape, generator=generator, dtype=torch.float64).to(x_ND)
            noise_ND = (x_ND - s_ND).norm(dim=1, keepdim=True) * unit(white_ND)
            self._own[label].add("noise", some.sequence_R, self._number(some, spliced(x_ND + noise_ND)))
            self._own[label].add("with", some.sequence_R, self._number(some, spliced(s_ND)))
            if self._config.latents:
                self._estimate(some, label)

    def _estimate(self, some: _Some, label: str) -> None:
        """Take in what the gradient says of every latent, row by row."""
        batch, where_RT = some.batch, some.batch.replaced(label)
        codes, s_ND = batch.coded(label)
        with torch.enable_grad():
            value_ND = s_ND.detach().requires_grad_()
            final_RTD = batch.final(self._sites[label].hook, value_ND, where_RT)
            g_RTD = self._score.gradient(batch.model, final_RTD, batch.rows.clean.tokens_RT, some.lines)
            (g_ND,) = torch.autograd.grad(final_RTD, value_ND, g_RTD.to(final_RTD))
        W_dec = batch.saes[label].sae.tensors["W_dec"]
        along_N = sampled_products(g_ND.to(W_dec), W_dec, codes.column_N, codes.offsets)
        row_N = where_RT.nonzero()[:, 0][bag_of_each(codes.offsets, len(codes.value_N)).long()]
        effect_RF = along_N.new_zeros(len(where_RT), len(W_dec), dtype=torch.float64)
        flat_N = row_N * len(W_dec) + codes.column_N.long()
        effect_RF.view(-1).index_add_(0, flat_N, -(along_N * codes.value_N).double())
        sums_2F = self._estimates(label)
        sums_2F += torch.stack([effect_RF.sum(0), effect_RF.square().sum(0)]).to(sums_2F)

    def _estimates(self, label: str) -> Tensor:
        """[2, F]: of every latent the sum and the sum of squares over rows."""
        return self._session.kept.zeros(f"estimates/{label}", 2, self._session.stream(label).saes[label].sae.width)

    def _chosen(self, label: str) -> tuple[list[int], list[int]]:
        """Those that are estimated to have the largest effects, and as many of the others that fired."""
        sums_2F = self._estimates(label)
        fired = (sums_2F[1] > 0).nonzero()[:, 0]
        count = min(self._config.latents, len(fired))
        top = fired[sums_2F[0][fired].abs().argsort(descending=True, stable=True)][:count]
        others = fired[~torch.isin(fired, top)]
        order = torch.randperm(len(others), generator=torch.Generator().manual_seed(self._config.seed))
        return top.tolist(), others[order[:count]].tolist()

    @torch.no_grad()
    def ablate(self, some: _Some) -> None:
        """Take each chosen latent out of the reconstructions."""
        batch = some.batch
        for label in batch.saes:
            (codes, s_ND), where_RT = batch.coded(label), batch.replaced(label)
            token_N = bag_of_each(codes.offsets, len(codes.value_N)).long()
            W_dec, hook = batch.saes[label].sae.tensors["W_dec"], self._sites[label].hook
            own_R = self._number(some, batch.final(hook, s_ND, where_RT))
            for latent in (each for kind in self._chosen(label) for each in kind):
                here_N = codes.column_N == latent
                effect_R = torch.zeros_like(own_R)
                if here_N.any():
                    f_B = s_ND.new_zeros(len(s_ND)).index_add_(0, token_N[here_N], codes.value_N[here_N].to(s_ND))
                    without_ND = s_ND - f_B[:, None] * W_dec[latent].to(s_ND)
                    effect_R = self._number(some, batch.final(hook, without_ND, where_RT)) - own_R
                self._own[label].add(f"without {latent}", some.sequence_R, effect_R)

    def result(self) -> Result:
        """What was found, of sites, members and latents."""
        numbers: dict[str, Number] = {}
        for site in {one.name: one for one in self._sites.values()}.values():
            clean = site.means.mean("clean").value
            numbers |= {f"{site.name} {kind}": site.means.mean(kind, clean) for kind in ABLATED}
        effects = {label: self._effects(label) for label in self._own} if self._config.latents else {}
        members = {
            label: {
                "with": own.mean("with", self._sites[label].means.mean("clean").value),
                **faithfulness(own, self._sites[label].means, ABLATED),
                **(effects[label].numbers() if effects else {}),
            }
            for label, own in self._own.items()
        }
        series = [Series(label, one.estimated, one.values, one.errors, "points") for label, one in effects.items()]
        title = "What the number becomes more by without a latent"
        figure = Figure(title, "as the gradient estimates", "exactly", series) if effects else None
        return Result(numbers, members, figure, {label: one.details() for label, one in effects.items()})

    def _effects(self, label: str) -> Effects:
        own, sums_2F = self._own[label], self._estimates(label)
        n, (top, drawn) = own.mean("with").n, self._chosen(label)
        found = [
            Effect(latent, latent in drawn, estimate_of(sums_2F[:, latent], n), own.mean(f"without {latent}"))
            for latent in (*top, *drawn)
        ]
        return Effects(found, self._config.seed)


@dataclass(frozen=True)
class _Site:
    """Where members write."""

    name: str
    hook: str
    means: Means
    sums: Tensor
    """How many activations there were, and their sum [1 + d]."""

    @property
    def mean_D(self) -> Tensor:
        """Over counted held-out positions."""
        return self.sums[1:] / self.sums[0].clamp(min=1)
