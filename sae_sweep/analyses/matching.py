"""Whether members find the same latents: by the directions that they write or read, or by when they fire.

Of every latent of one member the largest cosine with a latent of another is taken (mean of maximum cosine similarities,
Sharkey et al. 2022). One way alone misleads: every latent of a small dictionary may have its like in a large one, and
not the reverse; and several may have the same like, so each is also given one of its own (`matches/assignment.py`).
The control is as many random directions as the other member has latents; by activation, the other's codes at other
tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt

import torch
from torch import Tensor

from sae_sweep.analyses.matches.assignment import assigned, assigned_of, held_bytes
from sae_sweep.analyses.matches.correlation import Correlation, shifted
from sae_sweep.analyses.matches.pairs import Pair, pairs_of
from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.recovery import best_cosines
from sae_sweep.host.machine import host_bytes
from sae_sweep.kernels.entries import Entries, rows_where
from sae_sweep.plan.sizes import bytes_text

BINS = 20


@dataclass(frozen=True)
class Config:
    """Which members are compared, by what, and which of their latents."""

    pairs: str
    by: str
    density_above: float | None
    density_below: float
    near: float
    candidates: int


@dataclass(frozen=True)
class Likeness:
    """Of one member's latents to another's."""

    best_F: Tensor
    """Of each, the largest."""
    assigned_P: Tensor
    """Of the pairs that the assignment makes."""


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Result | Reading[Batch]:
    """Compare every pair, each way; a member's numbers end with the label of the other."""
    if config.by not in ("decoder", "encoder", "activation"):
        raise ConfigError(f"analysis.matching.by={config.by} is not one of decoder, encoder, activation")
    if config.by == "activation":
        return _by_activation(session, saes, config)
    pairs = pairs_of(saes, config.pairs)
    for pair in pairs:
        _check_room(pair, config.candidates)
    found: Found = {}
    for number, (one, other) in enumerate(pairs):
        session.told("matching", number, len(pairs))
        rows_FD, others_GD = (_rows(each, config) for each in (one, other))
        if not len(rows_FD) or not len(others_GD):
            continue
        found |= _both_ways(session, (one.label, other.label), rows_FD, others_GD, config.candidates)
    return _result(saes, pairs, found, config)


def _check_room(pair: Pair, candidates: int) -> None:
    """Raises ConfigError where this machine has not the memory for what one assignment holds."""
    (one, other), host = pair, host_bytes()
    needed = held_bytes(one.sae.width, other.sae.width, candidates)
    if host is not None and needed > host:
        raise ConfigError(
            f"analysis.matching: {one.label} and {other.label} have {one.sae.width} and {other.sae.width} latents,"
            f" whose assignment holds {bytes_text(needed)}, and this machine has {bytes_text(host)}; lower"
            " analysis.matching.candidates, or --member narrower ones"
        )


def _rows(sae: FinishedSae, config: Config) -> Tensor:
    """The directions of the latents that are compared."""
    tensors = sae.sae.tensors
    rows_FD = tensors["W_dec"] if config.by == "decoder" else tensors["W_enc"].T
    return rows_FD[chosen(sae, config)]


def chosen(sae: FinishedSae, config: Config) -> Tensor:
    """[F] bool: the latents that are compared."""
    frequency_F = sae.frequency_F
    if config.density_above is None:
        return frequency_F <= config.density_below
    return (frequency_F > config.density_above) & (frequency_F <= config.density_below)


def _both_ways(
    session: Session, labels: tuple[str, str], rows_FD: Tensor, others_GD: Tensor, candidates: int
) -> "Found":
    """What both find in each other, and what they find in random directions."""
    a, b = labels
    once, F, (G, D) = session.kept.once, len(rows_FD), others_GD.shape
    random_FD, random_GD = random_directions(rows_FD, 1), random_directions(others_GD)
    sizes = f"{min(F, G)}/{max(F, G)}/{D}"
    assigned_P = once(f"assigned/{a}/{b}", lambda: assigned(rows_FD, others_GD, candidates))
    chance_P = once(f"assigned at random/{sizes}", lambda: assigned(random_FD, random_GD, candidates))
    best = (
        once(f"largest/{a}/{b}", lambda: best_cosines(rows_FD, others_GD)),
        once(f"largest at random/{F}/{G}/{D}", lambda: best_cosines(random_FD, random_GD)),
    )
    back = (
        once(f"largest/{b}/{a}", lambda: best_cosines(others_GD, rows_FD)),
        once(f"largest at random/{G}/{F}/{D}", lambda: best_cosines(random_GD, random_FD)),
    )
    return {
        pair: (Likeness(own_F, assigned_P), Likeness(chance_F, chance_P))
        for pair, (own_F, chance_F) in (((a, b), best), ((b, a), back))
    }


def random_directions(like_GD: Tensor, seed: int = 0) -> Tensor:
    """As many directions, in the same space."""
    return torch.randn(like_GD.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _by_activation(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    pairs = pairs_of(saes, config.pairs, widths=False)
    for one, other in pairs:
        if session.stream(one.label) is not session.stream(other.label):
            raise ConfigError(
                f"analysis.matching.by=activation: {one.label} and {other.label} read other tokens, or another model;"
                " ask by decoder, or --member those of one"
            )
    sums = {
        (a.label, b.label, kind): Correlation(session.kept, f"{a.label}/{b.label}/{kind}", (a.sae.width, b.sae.width))
        for a, b in pairs
        for kind in ("same", "shifted")
    }
    while (batch := (yield)) is not None:
        for one, other in pairs:
            if one.label in batch.saes:
                codes, others = at_same_tokens(batch, one.label, other.label)
                sums[one.label, other.label, "same"].add(codes, others)
                sums[one.label, other.label, "shifted"].add(codes, shifted(others, (len(others.offsets) - 1) // 2))
    found: Found = {}
    for number, (one, other) in enumerate(pairs):
        session.told("matching", number, len(pairs))
        rows_F, columns_G = chosen(one, config), chosen(other, config)
        if rows_F.any() and columns_G.any():
            alike, control = (
                sums[one.label, other.label, kind].matrix()[rows_F][:, columns_G] for kind in ("same", "shifted")
            )
            pair = assigned_of(alike), assigned_of(control)
            found[one.label, other.label] = (Likeness(alike.amax(1), pair[0]), Likeness(control.amax(1), pair[1]))
            found[other.label, one.label] = (Likeness(alike.amax(0), pair[0]), Likeness(control.amax(0), pair[1]))
    return _result(saes, pairs, found, config)


def at_same_tokens(batch: Batch, one: str, other: str) -> tuple[Entries, Entries]:
    """The codes of both at the positions that count for both."""
    mine_RT, theirs_RT = batch.counted(one), batch.counted(other)
    both_RT = mine_RT & theirs_RT
    codes, others = batch.codes(one), batch.codes(other)
    if not torch.equal(mine_RT, theirs_RT):
        codes, others = rows_where(both_RT[mine_RT], codes), rows_where(both_RT[theirs_RT], others)
    return codes, others


Found = dict[tuple[str, str], tuple[Likeness, Likeness]]
"""What each member finds in another, by their labels, and what it finds by chance."""


def _result(saes: Sequence[FinishedSae], pairs: Sequence[Pair], found: Found, config: Config) -> Result:
    members: dict[str, dict[str, Number]] = {}
    for (own, other), (alike, control) in found.items():
        named = {
            "largest": mean_of(alike.best_F, control.best_F),
            "assigned": mean_of(alike.assigned_P, control.assigned_P),
            "near": mean_of(alike.best_F >= config.near, control.best_F >= config.near),
            "assigned_near": mean_of(alike.assigned_P >= config.near, control.assigned_P >= config.near),
        }
        members.setdefault(own, {}).update({f"{name} {other}": number for name, number in named.items()})
    numbers = stability(pairs, found, config.near) if config.pairs == "seed" else {}
    title = f"The largest likeness of each latent, by {config.by}, to one of another member"
    return Result(numbers, members, Figure(title, "likeness", "share of latents", _histograms(found)))


def mean_of(values: Tensor, control: Tensor) -> Number:
    """The mean over latents; neither may be empty."""
    n, values = len(values), values.double()
    return Number(
        values.mean().item(), values.std().item() / sqrt(n) if n > 1 else None, n, control.double().mean().item()
    )


def stability(pairs: Sequence[Pair], found: Found, near: float) -> dict[str, Number]:
    """How alike the seeds of each kind of member are, over their pairs: the mean of what is assigned, and the share of
    it that is near. Errors leave out one seed at a time, so they take three."""
    families: list[dict[str, FinishedSae]] = []
    for pair in pairs:
        family = next((each for each in families if any(pair[0].alike(one, "seed") for one in each.values())), None)
        if family is None:
            families.append(family := {})
        family.update({one.label: one for one in pair})
    numbers = {}
    for family in families:
        own = [(a, b) for a, b in combinations(family, 2) if (a, b) in found]
        for what, cut in (("assigned", None), ("assigned_near", near)):
            value, control = ([_mean(found[pair][i].assigned_P, cut) for pair in own] for i in (0, 1))
            if own:
                error = _seed_error(list(family), dict(zip(own, value, strict=True)))
                centre, chance = sum(value) / len(value), sum(control) / len(control)
                numbers[f"{what} over seeds of {next(iter(family))}"] = Number(centre, error, len(own), chance)
    return numbers


def _mean(values: Tensor, cut: float | None) -> float:
    return (values if cut is None else values >= cut).double().mean().item()


def _seed_error(labels: Sequence[str], value: dict[tuple[str, str], float]) -> float | None:
    """The jackknife's, over members: pairs share them, and are not independent."""
    if len(labels) < 3:
        return None
    without = [[number for pair, number in value.items() if label not in pair] for label in labels]
    means = torch.tensor([sum(numbers) / len(numbers) for numbers in without if numbers], dtype=torch.float64)
    n = len(means)
    return sqrt((n - 1) / n * (means - means.mean()).square().sum().item())


def _histograms(found: Found) -> list[Series]:
    """Of each member, over all that it is compared with, and of random directions."""
    edges = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)
    x = ((edges[1:] + edges[:-1]) / 2).tolist()

    def shares(parts: Sequence[Tensor]) -> list[float]:
        best_F = torch.cat(list(parts)).clamp(0, 1).cpu()
        return (torch.histogram(best_F, edges).hist / len(best_F)).tolist()

    owners = dict.fromkeys(own for own, _ in found)
    series = [
        Series(own, x, shares([one.best_F for pair, (one, _) in found.items() if pair[0] == own])) for own in owners
    ]
    if found:
        series.append(Series("by chance", x, shares([chance.best_F for _, chance in found.values()]), style="dashed"))
    return series
