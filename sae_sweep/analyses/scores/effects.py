"""Effects of latents on a number, as a gradient estimates them and as they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.result import Number
from sae_sweep.evaluation.jackknife import ratio_standard_error


@dataclass(frozen=True)
class Effect:
    """What becomes of the number without one latent, over rows."""

    latent: int
    drawn: bool
    """Whether it was drawn at random; else its estimate is among the largest."""
    estimate: Number
    exact: Number


@dataclass(frozen=True)
class Effects:
    """Those of one member's latents, in any order."""

    found: Sequence[Effect]
    seed: int

    def numbers(self) -> dict[str, Number]:
        """The effects of those that were chosen, the largest first, each against that of the drawn latent at its place;
        their mean size; and how well estimates tell exact effects, against estimates in another order."""
        chosen, drawn = ([one.exact for one in self.ranked if one.drawn == which] for which in (False, True))
        made = {
            f"effect_{rank}": Number(
                one.value, one.standard_error, one.n, drawn[rank - 1].value if rank <= len(drawn) else None
            )
            for rank, one in enumerate(chosen, 1)
        }
        if chosen:
            sizes, chance = (torch.tensor([abs(one.value) for one in each]).double() for each in (chosen, drawn))
            error = sizes.std().item() / sqrt(len(sizes)) if len(sizes) > 1 else None
            control = chance.mean().item() if len(chance) else None
            made["effect_size"] = Number(sizes.mean().item(), error, len(sizes), control)
        estimate_L, exact_L = (torch.tensor(each).double() for each in (self.estimated, self.values))
        correlation = correlated(estimate_L, exact_L)
        if correlation is not None:
            order = torch.randperm(len(exact_L), generator=torch.Generator().manual_seed(self.seed))
            chance_of = correlated(estimate_L[order], exact_L)
            control = None if chance_of is None else chance_of.value
            made["estimate_correlation"] = Number(correlation.value, correlation.standard_error, len(exact_L), control)
        return made

    @cached_property
    def ranked(self) -> list[Effect]:
        """The largest exact effect first."""
        return sorted(self.found, key=lambda one: -abs(one.exact.value))

    @property
    def estimated(self) -> list[float]:
        """The estimate of each."""
        return [one.estimate.value for one in self.ranked]

    @property
    def values(self) -> list[float]:
        """The exact effect of each."""
        return [one.exact.value for one in self.ranked]

    @property
    def errors(self) -> list[float | None]:
        """The standard error of each exact effect."""
        return [one.exact.standard_error for one in self.ranked]

    def details(self) -> list[dict[str, Any]]:
        """All of them, in JSON's types."""
        return [
            {
                "latent": one.latent,
                "drawn_at_random": one.drawn,
                "effect": one.exact.value,
                "effect_standard_error": one.exact.standard_error,
                "estimate": one.estimate.value,
                "estimate_standard_error": one.estimate.standard_error,
                "n": one.exact.n,
            }
            for one in self.ranked
        ]


def estimate_of(sum_2: Tensor, n: int) -> Number:
    """The mean over n rows of what has this sum and sum of squares."""
    mean, square = (sum_2 / max(1, n)).tolist()
    return Number(mean, sqrt(max(0.0, square - mean * mean) / (n - 1)) if n > 1 else None, n)


def correlated(one_L: Tensor, other_L: Tensor) -> Number | None:
    """Pearson's correlation, its error by leaving out one pair at a time; None where one of the two does not vary, or
    there are fewer than four."""
    n = len(one_L)
    value = _pearson(one_L, other_L)
    if n < 4 or value is None:
        return None
    keep_LL = ~torch.eye(n, dtype=torch.bool)
    left = [each for keep_L in keep_LL if (each := _pearson(one_L[keep_L], other_L[keep_L])) is not None]
    spread = torch.tensor(left).double()
    error = sqrt((n - 1) / n * (spread - spread.mean()).square().sum().item()) if len(left) == n else None
    return Number(value, error, n)


def _pearson(one_L: Tensor, other_L: Tensor) -> float | None:
    a_L, b_L = one_L - one_L.mean(), other_L - other_L.mean()
    scale = (a_L.norm() * b_L.norm()).item()
    return (a_L @ b_L).item() / scale if scale > 0 else None


def faithfulness(own: Means, site: Means, ablated: Sequence[str]) -> dict[str, Number]:
    """Of a member the share of what each ablation of its site costs that it keeps, over rows; the control has noise."""
    found = {}
    clean_R = site.per_sequence("clean")[0].cpu()
    for kind in ablated:
        ablated_R = site.per_sequence(kind)[0].cpu()
        cost_R = clean_R - ablated_R
        if cost_R.sum() != 0:
            kept_R, noise_R = (own.per_sequence(each)[0].cpu() - ablated_R for each in ("with", "noise"))
            control = (noise_R.sum() / cost_R.sum()).item()
            error = ratio_standard_error(kept_R, cost_R)
            value = (kept_R.sum() / cost_R.sum()).item()
            found[f"faithfulness_{kind}"] = Number(value, error, own.mean("with").n, control)
    return found
