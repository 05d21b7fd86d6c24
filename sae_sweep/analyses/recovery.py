"""What SAEs have of the true latents of synthetic activations (`data=toy`), by how often those are active.

`mcc` is the mean absolute cosine of true latents with the learned ones that they are given, each once (mean correlation
coefficient, O'Neill et al. 2024, arXiv 2411.13117). `f1` is how well such a learned latent tells on held-out rows where
its true one is active, over the true latents that are. `cosine` lets several true latents have the same one, as
`mmcs_truth` does. Members' milestones are read too: what is frequent should be found first (Sharkey et al. 2022).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from statistics import fmean, stdev

import torch
from torch import Tensor

from sae_sweep.analyses.matching import random_directions
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.analyses.truth.found import Firing, Matched
from sae_sweep.data.kinds import Synthetic, modelless_kind
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.model.load import resolve_device

KEY = "analysis.recovery"


@dataclass(frozen=True)
class Config:
    """How true latents are grouped."""

    ranks: int
    seed: int


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Result:
    """MCC, F1 and cosines of each member and of its milestones, in all and by frequency rank."""
    if config.ranks < 1:
        raise ConfigError(f"{KEY}.ranks={config.ranks} must be at least 1")
    found: dict[str, _Recovered] = {}
    for group in _by_data(saes):
        found |= _recovered(session, group, config)
    members: dict[str, dict[str, Number]] = {}
    for sae in saes:
        members[sae.label] = found[sae.label].numbers(config.ranks)
        for tokens, one in _milestones(sae).items():
            whole = found[one.label].in_all()
            members[sae.label] |= {f"{name}_at_{tokens}": number for name, number in whole.items()}
    return Result(
        members=members, figure=_figure(saes, found, config.ranks), details=_details(saes, found, config.ranks)
    )


@dataclass(frozen=True)
class _Recovered:
    """What one SAE has of G true latents, and what random directions have."""

    matched: Matched
    chance: Matched
    firing: Firing

    def in_all(self) -> dict[str, Number]:
        """Over all true latents."""
        has_G, by_chance_G = self.matched.partner_G >= 0, self.chance.partner_G >= 0
        active_G = self.firing.active_G > 0
        return {
            "mcc": _mean(self.matched.cosine_G[has_G], self.chance.cosine_G[by_chance_G]),
            "f1": _mean(self.firing.f1_G[active_G], self.firing.chance_G[active_G]),
            "cosine": _mean(self.matched.best_G, self.chance.best_G),
        }

    def numbers(self, ranks: int) -> dict[str, Number]:
        """The same, and by rank: those of a rank that is nowhere active have no F1."""
        found = self.in_all()
        for name, place_g in self.ranked(ranks).items():
            found[f"cosine_{name}"] = _mean(self.matched.best_G[place_g], self.chance.best_G[place_g])
            active_g = place_g[self.firing.active_G[place_g] > 0]
            if len(active_g):
                found[f"f1_{name}"] = _mean(self.firing.f1_G[active_g], self.firing.chance_G[active_g])
        return found

    def ranked(self, ranks: int) -> dict[str, Tensor]:
        """The true latents of each group, from the most frequent on, by the ranks of its first and last."""
        order_G = self.firing.active_G.argsort(descending=True, stable=True)
        parts = order_G.tensor_split(min(ranks, len(order_G)))
        ends = torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
        return {f"rank_{end - len(part) + 1}_{end}": part for part, end in zip(parts, ends, strict=True)}


def _mean(value_G: Tensor, control_G: Tensor) -> Number:
    """Over true latents; of none it is 0 of 0."""
    n, value_G = len(value_G), value_G.double()
    error = value_G.std().item() / sqrt(n) if n > 1 else None
    return Number(value_G.sum().item() / max(1, n), error, n, control_G.double().sum().item() / max(1, len(control_G)))


def _by_data(saes: Sequence[FinishedSae]) -> list[list[FinishedSae]]:
    """Members that were judged on the same rows, together. Raises ConfigError where nobody knows true latents."""
    groups: dict[str, list[FinishedSae]] = {}
    for sae in saes:
        data = sae.member.config.data
        made = modelless_kind(data.kind)
        if made is None or made.STORED:
            raise ConfigError(f"{KEY}: nobody knows the true latents that {sae.label} was trained on; take data=toy")
        said = [getattr(data, key) for key in made.HELDOUT]
        groups.setdefault(repr((said, sae.member.config.evaluation.tokens)), []).append(sae)
    return list(groups.values())


def _milestones(sae: FinishedSae) -> dict[int, FinishedSae]:
    """What a member was on its way, by training tokens."""
    folders = [folder for folder in (sae.folder / names.MILESTONES).glob("*") if (folder / names.METRICS).is_file()]
    tokens = sorted(int(folder.name) for folder in folders if folder.name.isdecimal())
    return {
        each: replace(sae, label=f"{sae.label}@{each}", folder=sae.folder / names.MILESTONES / str(each))
        for each in tokens
    }


def _recovered(session: Session, saes: Sequence[FinishedSae], config: Config) -> dict[str, _Recovered]:
    """What these members and their milestones have, by label."""
    member = saes[0].member.config
    made, device = modelless_kind(member.data.kind), resolve_device(member.model.device)
    assert made is not None
    data = made.open_synthetic(member.data)
    every = [each for sae in saes for each in (sae, *_milestones(sae).values())]
    found = {}
    for number, sae in enumerate(every):
        if f"by chance/{sae.label}" not in session.kept:
            session.told("recovery: matching latents", number, len(every))
        rows_FD = sae.sae.tensors["W_dec"]
        matched, chance = (
            Matched.kept(session.kept, f"{name}/{sae.label}", data.truth_GD, each_FD, sae.alive_F)
            for name, each_FD in (("matched", rows_FD), ("by chance", random_directions(rows_FD, config.seed)))
        )
        firing = Firing(session.kept, sae.label, matched.partner_G, sae.sae.width, device)
        found[sae.label] = _Recovered(matched, chance, firing)
    rows = ceil(member.evaluation.tokens / member.data.context) * member.data.context
    _read(session, data, rows, {sae.label: sae for sae in every}, found, device)
    return found


def _read(
    session: Session,
    data: Synthetic,
    rows: int,
    saes: Mapping[str, FinishedSae],
    found: Mapping[str, _Recovered],
    device: torch.device,
) -> None:
    """Take in the held-out rows; those that were before it was killed are passed over."""
    on_device = {label: sae.sae.mapped(lambda tensor: tensor.to(device)) for label, sae in saes.items()}
    (first,) = list(saes)[:1]
    done, first_row = session.kept.zeros(f"rows/{first}", 1), 0
    for x_bD, codes_bG in data.activations("heldout", 0, rows):
        first_row += len(x_bD)
        if first_row <= int(done):
            continue
        session.told("recovery: held-out rows", first_row - len(x_bD), rows)
        x_bD, active_bG = x_bD.to(device), (codes_bG > 0).to(device)
        for label, sae in on_device.items():
            found[label].firing.add(sae.coded(x_bD.to(sae.tensors["W_enc"]))[0], active_bG)
        done += first_row - int(done)
        session.kept.save_now_and_then()


def _figure(saes: Sequence[FinishedSae], found: Mapping[str, _Recovered], ranks: int) -> Figure:
    """Cosines over training by rank, the mean over trained members with milestones; where there are none, by rank."""
    grown = [sae for sae in saes if _milestones(sae) and not sae.member.config.sae.control]
    if not grown:
        return _by_rank(saes, found, ranks)
    curves: dict[str, dict[int, list[float]]] = {}
    for sae in grown:
        steps = {**_milestones(sae), int(sae.member.config.training.tokens): sae}
        for name, place_g in found[sae.label].ranked(ranks).items():
            for tokens, one in steps.items():
                cosine = found[one.label].matched.best_G[place_g].mean().item()
                curves.setdefault(name, {}).setdefault(tokens, []).append(cosine)
    series = []
    for name, own in curves.items():
        x = sorted(own)
        error = [stdev(own[each]) / sqrt(len(own[each])) if len(own[each]) > 1 else None for each in x]
        series.append(Series(name.replace("_", " "), x, [fmean(own[each]) for each in x], error))
    title = "The largest cosine of true latents with learned ones over training, by frequency rank: mean over members"
    return Figure(title, "training tokens", "cosine", series, log_x=True)


def _by_rank(saes: Sequence[FinishedSae], found: Mapping[str, _Recovered], ranks: int) -> Figure:
    series = []
    for sae in saes:
        numbers = found[sae.label].numbers(ranks)
        names_of = list(found[sae.label].ranked(ranks))
        x = [sum(map(int, name.split("_")[1:])) / 2 for name in names_of]
        y = [numbers[f"cosine_{name}"] for name in names_of]
        series.append(Series(sae.label, x, [one.value for one in y], [one.standard_error for one in y]))
        if sae is saes[0]:
            series.append(Series("random directions", x, [one.control for one in y], style="dashed"))
    title = "The largest cosine of true latents with learned ones, by frequency rank"
    return Figure(title, "rank of the true latent", "cosine", series)


def _details(
    saes: Sequence[FinishedSae], found: Mapping[str, _Recovered], ranks: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Of each member with milestones, the cosine of each rank at each."""
    details = {}
    for sae in saes:
        ranked = found[sae.label].ranked(ranks)
        curves = {
            str(tokens): {name: found[one.label].matched.best_G[place].mean().item() for name, place in ranked.items()}
            for tokens, one in _milestones(sae).items()
        }
        if curves:
            details[sae.label] = curves
    return details
