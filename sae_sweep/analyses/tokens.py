"""How much of an SAE is about single tokens (Dooms and Wilhelm 2025, arXiv 2502.17332).

A token's direction is what the model gives for it by itself, less the mean over tokens (`residual`) or as it is
(`unigram`); a tokenized SAE has its lookup rows besides. `latents_near` is the share of latents whose decoder row is
near some token's direction, read against random directions. The detector guesses the token at the end of each held-out
row as the one whose direction the activation is nearest; its control is a guess.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.activations.unigrams import unigram_activations
from sae_sweep.analyses.matching import mean_of, random_directions
from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.recovery import best_cosines
from sae_sweep.model.harvest import harvest

BINS = 20


@dataclass(frozen=True)
class Config:
    """What is near."""

    near: float


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """The latents near tokens, and the detector by each table, of every member."""
    for sae in saes:
        if len(session.stream(sae.label).saes[sae.label].hooks) > 1:
            raise ConfigError(f"analysis.tokens: {sae.label} is a crosscoder, whose rows are at no one site")
    unigrams = _unigrams(session)
    tables = {sae.label: tables_of(unigrams[_site(session, sae.label)], _lookup(session, sae.label)) for sae in saes}
    means = {sae.label: session.means(sae.label) for sae in saes}
    while (batch := (yield)) is not None:
        for label in batch.saes:
            last_RT = last_of_rows(batch.counted(label))
            x_ND = batch.written(label, last_RT)
            token_N = batch.rows.clean.tokens_RT[last_RT]
            sequence_N = last_RT.nonzero()[:, 0] + batch.first
            for name, table_VD in tables[label].items():
                means[label].add(name, sequence_N, (nearest_token(x_ND, table_VD) == token_N).double())
    members, series = {}, []
    for sae in saes:
        rows_AD = sae.sae.tensors["W_dec"][sae.alive_F]
        chance_AD = random_directions(rows_AD)
        found: dict[str, Number] = {}
        for name, table_VD in tables[sae.label].items():
            best_A, chance_A = (best_cosines(each, table_VD.cpu()) for each in (rows_AD, chance_AD))
            if len(best_A):
                found[f"latents_near_{name}"] = mean_of(best_A >= config.near, chance_A >= config.near)
                found[f"cosine_{name}"] = mean_of(best_A, chance_A)
            found[f"detector_{name}"] = means[sae.label].mean(name, 1 / len(table_VD))
            if name == "residual" and len(best_A):
                series.append(_histogram(sae.label, best_A))
        members[sae.label] = found
    title = "The largest cosine of a latent's decoder row with a token's residual"
    return Result(members=members, figure=Figure(title, "cosine", "share of latents", series))


def tables_of(unigram_VD: Tensor, lookup_VD: Tensor | None) -> dict[str, Tensor]:
    """The directions of tokens, by name; in float32 at least, or many tokens would be equally near in bfloat16."""
    unigram_VD = unigram_VD.to(torch.promote_types(unigram_VD.dtype, torch.float32))
    found = {"unigram": unigram_VD, "residual": unigram_VD - unigram_VD.mean(0)}
    return found if lookup_VD is None else {**found, "lookup": lookup_VD}


def nearest_token(x_ND: Tensor, table_VD: Tensor) -> Tensor:
    """[N]: the token whose direction has the largest cosine with each activation."""
    return (x_ND.to(table_VD) @ torch.nn.functional.normalize(table_VD, dim=1).T).argmax(1)


def last_of_rows(counted_RT: Tensor) -> Tensor:
    """[R, T] bool: each row's last position that counts, where it has one."""
    position_T = torch.arange(counted_RT.shape[1], device=counted_RT.device)
    last_R = torch.where(counted_RT, position_T, -1).amax(1)
    return position_T == last_R[:, None]


def _site(session: Session, label: str) -> tuple[int, str]:
    stream = session.stream(label)
    return session.streams.opened.index(stream), stream.saes[label].hook


def _lookup(session: Session, label: str) -> Tensor | None:
    lookup = session.stream(label).saes[label].sae.lookup
    return None if lookup is None else lookup.rows_VD


def _unigrams(session: Session) -> Mapping[tuple[int, str], Tensor]:
    """What the model gives for each token by itself, by stream and hook."""
    found: dict[tuple[int, str], Tensor] = {}
    for number, stream in enumerate(session.streams.opened):
        hooks = tuple(dict.fromkeys(one.hook for one in stream.saes.values()))
        made = unigram_activations(stream.model, hooks, harvest)
        found |= {(number, hook): table_VD for hook, table_VD in made.items()}
    return found


def _histogram(label: str, best_A: Tensor) -> Series:
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
    shares = torch.histogram(best_A.cpu().clamp(0, 1), edges).hist / len(best_A)
    return Series(label, ((edges[1:] + edges[:-1]) / 2).tolist(), shares.tolist())
