"""Whether latents for a first letter stay silent on words that other latents have taken over (Chanin et al. 2024, arXiv
2409.14507).

For each letter a probe on raw activations is fitted on half of the words (token ids) of held-out rows. A letter's main
latents are the one whose firing tells it best in F1, and more as long as F1 grows by `gain`. Of the other words that
begin with the letter and that the probe is right on, one is absorbed where no main latent fires, and one other latent,
whose decoder row has cosine `cosine` or more with the probe, makes `share` or more of the centred activation's
projection on it. The control has the same codes on random directions. Errors leave out one letter at a time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sae_sweep.analyses.probes.letters import LETTERS, Sample, first_letters
from sae_sweep.analyses.probes.logistic import fitted, standardised
from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.jackknife import ratio_standard_error
from sae_sweep.saes.inference import InferenceSae

MOST_MAIN = 8


@dataclass(frozen=True)
class Config:
    """Which words, and what is absorbed."""

    examples: int
    each: int
    fewest: int
    gain: float
    cosine: float
    share: float
    seed: int


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """The share of words absorbed, and how many latents a letter takes, of each member."""
    if config.fewest < 1:
        raise ConfigError(f"analysis.absorption.fewest={config.fewest} must be at least 1")
    for sae in saes:
        if sae.spliced.reads is not None:
            raise ConfigError(
                f"analysis.absorption: {sae.label} is a transcoder, whose decoder rows are no directions in what it"
                " reads, where probes are; --member the others"
            )
    sites = {sae.label: _site(session, sae.label) for sae in saes}
    samples, letters = dict[str, Sample](), dict[str, Tensor]()
    for sae in saes:
        model = session.stream(sae.label).model
        if sites[sae.label] not in samples:
            vocabulary, sizes = model.facts.vocab_size, (config.examples, sae.sae.d)
            samples[sites[sae.label]] = Sample(session.kept, sites[sae.label], sizes, vocabulary, config.each)
            letters[sites[sae.label]] = first_letters(session.strings(sae.label, torch.arange(vocabulary)))
    while (batch := (yield)) is not None:
        for label in {sites[label]: label for label in batch.saes}.values():
            where_RT = batch.counted(label)
            tokens_N = batch.rows.clean.tokens_RT[where_RT]
            samples[sites[label]].add(batch.read(label, where_RT), tokens_N, letters[sites[label]])
    words = {site: Words.of(*sample.taken, letters[site], config) for site, sample in samples.items()}

    def asked(label: str) -> Tensor:
        return words[sites[label]].ask(session.stream(label).saes[label].sae, config)

    found = {}
    for number, sae in enumerate(saes):
        session.told("absorption", number, len(saes))
        found[sae.label] = session.kept.once(f"found/{sae.label}", partial(asked, sae.label))
    return _result(found, {sae.label: words[sites[sae.label]] for sae in saes})


@dataclass(frozen=True)
class Words:
    """Words that begin with letters of which there are enough, and a probe for each of these."""

    x_ND: Tensor
    tokens_N: Tensor
    letter_N: Tensor
    fitted_N: Tensor
    """Whether probes are fitted on it."""
    probes: Mapping[int, tuple[Tensor, float]]
    """By letter: weights [D] on raw activations, and the intercept."""

    @classmethod
    def of(cls, x_ND: Tensor, tokens_N: Tensor, letter_V: Tensor, config: Config) -> "Words":
        """Fit the probes. Raises ConfigError where no letter has enough words."""
        letter_N = letter_V[tokens_N]
        kinds = tokens_N.unique()
        order = torch.randperm(len(kinds), generator=torch.Generator().manual_seed(config.seed))
        fitted_N = torch.isin(tokens_N, kinds[order[: len(kinds) // 2]])
        probes = {}
        for letter in range(len(LETTERS)):
            sides = [len(tokens_N[(letter_N == letter) & side].unique()) for side in (fitted_N, ~fitted_N)]
            if min(sides) >= config.fewest:
                probes[letter] = _probe(x_ND[fitted_N], (letter_N[fitted_N] == letter).double())
        if not probes:
            raise ConfigError(
                f"analysis.absorption.fewest={config.fewest}: no letter begins so many words of the held-out tokens on"
                " both sides; lower it, or train with more evaluation.tokens"
            )
        return cls(x_ND, tokens_N, letter_N, fitted_N, probes)

    @torch.no_grad()
    def ask(self, sae: InferenceSae, config: Config) -> Tensor:
        """[letters, 4]: words that the probe is right on, those absorbed, those that random directions absorb, and how
        many main latents there are."""
        W = sae.tensors["W_enc"]
        f_NF = sae.encode(self.x_ND.to(W), self.tokens_N.to(W.device)).cpu()
        rows_FD = sae.tensors["W_dec"].cpu()
        centred_ND = self.x_ND - self.x_ND[self.fitted_N].mean(0)
        generator = torch.Generator().manual_seed(config.seed)
        random_FD = torch.randn(rows_FD.shape, generator=generator, dtype=rows_FD.dtype)
        random_FD *= rows_FD.norm(dim=1, keepdim=True) / random_FD.norm(dim=1, keepdim=True)
        found = []
        for letter, (w_D, intercept) in self.probes.items():
            fires_NF = f_NF > 0
            main = main_latents(fires_NF[self.fitted_N], (self.letter_N == letter)[self.fitted_N], config.gain)
            right_N = (self.letter_N == letter) & ~self.fitted_N & (self.x_ND @ w_D + intercept > 0)
            silent_N = right_N & ~fires_NF[:, main].any(1)
            x_SD, f_SF = centred_ND[silent_N], f_NF[silent_N].clone()
            f_SF[:, main] = 0
            counts = [int(absorbed(x_SD, f_SF, each_FD, w_D, config).sum()) for each_FD in (rows_FD, random_FD)]
            found.append([int(right_N.sum()), *counts, len(main)])
        return torch.tensor(found, dtype=torch.float64)


def main_latents(fires_NF: Tensor, is_N: Tensor, gain: float) -> list[int]:
    """The latents whose firing tells a letter: the best in F1 by itself, and more as long as F1 of any of them firing
    grows by `gain`."""
    chosen, best, told_N = list[int](), 0.0, torch.zeros_like(is_N)
    while len(chosen) < MOST_MAIN:
        says_NF = fires_NF | told_N[:, None]
        hits_F = (says_NF & is_N[:, None]).sum(0).double()
        f1_F = 2 * hits_F / (says_NF.sum(0) + is_N.sum()).clamp(min=1)
        latent = int(f1_F.argmax())
        if chosen and f1_F[latent] < best + gain:
            break
        chosen.append(latent)
        best, told_N = float(f1_F[latent]), says_NF[:, latent]
    return chosen


def absorbed(x_ND: Tensor, f_NF: Tensor, rows_FD: Tensor, w_D: Tensor, config: Config) -> Tensor:
    """[N] bool: whether one latent, whose row is near the probe, makes enough of the projection on it."""
    along_F = rows_FD @ w_D.to(rows_FD)
    cosine_F = along_F / (rows_FD.norm(dim=1) * w_D.norm().to(rows_FD)).clamp(min=1e-30)
    made_NF = f_NF * torch.where(cosine_F >= config.cosine, along_F, 0.0)
    total_N = x_ND @ w_D
    return (made_NF.amax(1) >= config.share * total_N) & (total_N > 0)


def _probe(x_ND: Tensor, y_N: Tensor) -> tuple[Tensor, float]:
    """On raw activations: what is fitted on standardised ones, in their units."""
    z_ND, _ = standardised(x_ND, x_ND[:1])
    w_D, intercept = fitted(z_ND, y_N)
    std_D = x_ND.std(0, correction=0)
    w_D = torch.where(std_D > 0, w_D / std_D, 0.0)
    return w_D, float(intercept - x_ND.mean(0) @ w_D)


def _site(session: Session, label: str) -> str:
    stream = session.stream(label)
    one = stream.saes[label]
    return f"{session.streams.opened.index(stream)}/{one.reads or '+'.join(one.hooks)}"


def _result(found: Mapping[str, Tensor], words: Mapping[str, Words]) -> Result:
    members, series = {}, []
    for label, counts_L4 in found.items():
        right_L, absorbed_L, chance_L, main_L = counts_L4.T
        total = right_L.sum().clamp(min=1)
        n, letters = int(right_L.sum()), len(right_L)
        error = ratio_standard_error(absorbed_L, right_L)
        spread = main_L.std().item() / letters**0.5 if letters > 1 else None
        members[label] = {
            "absorbed": Number((absorbed_L.sum() / total).item(), error, n, (chance_L.sum() / total).item()),
            "latents_per_letter": Number(main_L.mean().item(), spread, letters, 1.0),
        }
        x = [LETTERS[letter] for letter in words[label].probes]
        series.append(Series(label, x, (absorbed_L / right_L.clamp(min=1)).tolist(), style="bars"))
    return Result(members=members, figure=Figure("Words absorbed, by first letter", "letter", "share", series))
