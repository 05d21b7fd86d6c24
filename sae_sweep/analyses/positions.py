"""What an SAE costs and how many latents fire, by position in the row.

Positions are in bins of `step`. The control of KL, squared error and L0 is the same over all positions, that of CE is
the clean pass at those positions. Beyond the rows of training (`context`) held-out rows are laid end to end and cut
into longer ones; there the control is the same tokens in the rows that they were in (`longer/beyond.py`). At attn_z
there are also the heads' shares of decoder rows' squared norm (Kissane et al. 2024, arXiv 2406.17759), against equal
shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from sae_sweep.analyses.longer.beyond import Beyond
from sae_sweep.analyses.session.batch import CLEAN, Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError


@dataclass(frozen=True)
class Config:
    """How wide bins of positions are, and how long rows."""

    step: int
    context: int | None


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """CE, KL, squared error and L0 of each member by position, and of the clean pass."""
    if config.step < 1:
        raise ConfigError(f"analysis.positions.step={config.step} must be at least 1")
    means = {sae.label: session.means(sae.label) for sae in saes}
    beyond = _beyond(session, config)
    while (batch := (yield)) is not None:
        for label in batch.saes:
            _add(means[label], batch, label, config.step)
        if beyond:
            beyond[next(iter(batch.saes))].take(batch)
    for longer in dict.fromkeys(beyond.values()):
        longer.read()
    members, series = {}, []
    for sae in saes:
        bins = range(0, sae.member.config.data.context, config.step)
        own = members[sae.label] = _numbers(means[sae.label], bins, config.step) | _heads(session, sae)
        names = {first: _name(first, config.step) for first in bins}
        if beyond:
            longer = beyond[sae.label]
            own |= longer.numbers(sae.label)
            names |= dict(zip(longer.firsts, longer.names, strict=True))
            series.append(_curve(f"{sae.label}, the same tokens in rows of training", own, names, longer.firsts, True))
        series.append(_curve(sae.label, own, names, list(names), False))
    return Result(members=members, figure=Figure("KL by position", "position", "KL, nats", series, log_y=True))


def _beyond(session: Session, config: Config) -> dict[str, Beyond]:
    """By label what is asked of longer rows; nothing where none are."""
    if config.context is None:
        return {}
    for sae in session.saes:
        if "document" in (sae.member.config.data.packing, sae.member.config.data.attention):
            raise ConfigError(
                f"analysis.positions.context={config.context}: rows of data.packing=document, or data.attention="
                "document, are no longer than their documents"
            )
    found = [Beyond(session, stream, config.context, config.step) for stream in session.streams.opened]
    return {label: one for one, stream in zip(found, session.streams.opened, strict=True) for label in stream.saes}


def _curve(
    name: str, own: Mapping[str, Number], names: Mapping[int, str], firsts: Sequence[int], short: bool
) -> Series:
    """KL over positions; or its control there, where tokens are those of shorter rows."""
    kl = [own.get(f"kl_{names[first]}") for first in firsts]
    x = [first + (int(names[first].partition("_")[2]) - first) / 2 for first in firsts]
    if short:
        return Series(name, x, [None if one is None else one.control for one in kl], style="dashed")
    values = [None if one is None else one.value for one in kl]
    return Series(name, x, values, [None if one is None else one.standard_error for one in kl])


def _add(means: Means, batch: Batch, label: str, step: int) -> None:
    lost = batch.lost_by(label)
    for first, here_N in _bins(lost.position_N, step):
        name = _name(first, step)
        sequence_N = lost.sequence_N[here_N]
        means.add(f"kl_{name}", sequence_N, lost.kl[label][here_N])
        means.add(f"ce_{name}", sequence_N, lost.ce[label][here_N])
        means.add(f"clean_{name}", sequence_N, lost.ce[CLEAN][here_N])
    means.add("kl", lost.sequence_N, lost.kl[label])
    where_RT, counted_RT = batch.replaced(label), batch.counted(label)
    counts_N = counted_RT[where_RT]
    codes, y_hat_ND = batch.coded(label)
    error_N = (batch.written(label, where_RT) - y_hat_ND).double().square().sum(1)[counts_N]
    l0_N = codes.offsets.diff()[counts_N]
    row_N, position_N = counted_RT.nonzero(as_tuple=True)
    for first, here_N in _bins(position_N, step):
        means.add(f"mse_{_name(first, step)}", row_N[here_N] + batch.first, error_N[here_N])
        means.add(f"l0_{_name(first, step)}", row_N[here_N] + batch.first, l0_N[here_N])
    means.add("mse", row_N + batch.first, error_N)
    means.add("l0", row_N + batch.first, l0_N)


def _bins(position_N: Tensor, step: int) -> list[tuple[int, Tensor]]:
    """The first position of each bin that has some, and which these are."""
    bin_N = position_N // step
    return [(int(each) * step, bin_N == each) for each in bin_N.unique()]


def _name(first: int, step: int) -> str:
    return f"{first}_{first + step - 1}"


def _numbers(means: Means, bins: Sequence[int], step: int) -> dict[str, Number]:
    """Those of bins that have tokens."""
    found: dict[str, Number] = {}
    overall = {what: means.mean(what).value for what in ("kl", "mse", "l0")}
    for name in (_name(first, step) for first in bins):
        numbers = {f"{what}_{name}": means.mean(f"{what}_{name}", control) for what, control in overall.items()}
        numbers[f"ce_{name}"] = means.mean(f"ce_{name}", means.mean(f"clean_{name}").value)
        found |= {key: number for key, number in numbers.items() if number.n}
    return found


def _heads(session: Session, sae: FinishedSae) -> dict[str, Number]:
    """At attn_z the share of decoder rows that each head has, over alive latents; elsewhere nothing."""
    if sae.member.site.written.kind != "attn_z" or not sae.alive_F.any():
        return {}
    shares_AH = head_shares(sae.sae.tensors["W_dec"][sae.alive_F], session.stream(sae.label).model.facts.n_heads)
    A, H = shares_AH.shape
    error_H = shares_AH.std(0) / sqrt(A) if A > 1 else None
    return {
        f"head_{head}": Number(share.item(), None if error_H is None else error_H[head].item(), A, 1 / H)
        for head, share in enumerate(shares_AH.mean(0))
    }


def head_shares(rows_FD: Tensor, heads: int) -> Tensor:
    """[F, H]: of each row's squared norm, what lies in each head's numbers."""
    squares_FH = rows_FD.double().unflatten(1, (heads, -1)).square().sum(2)
    return squares_FH / squares_FH.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
