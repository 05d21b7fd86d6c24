"""What a site's activations measure, and the factors that follow: on inputs, and on a paper's coefficients."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.errors import ConfigError
from sae_sweep.plan.constants import SAMPLE_ROWS

_ROWS_AT_ONCE = 8_192  # in float64, of a block that may fill much of the device


@dataclass(frozen=True)
class SiteStatistics:
    """Of the activations of one block at one site, in raw units. The norms are about `centre`."""

    mean: Tensor
    """[d] float64."""
    mean_norm: float
    mean_square_norm: float
    sample: Tensor
    """[at most SAMPLE_ROWS, d]: the first activations of the block."""
    centre: Tensor | None = None
    """[d] float64: what is subtracted from inputs; None is nothing."""
    covariance: Tensor | None = None
    """[d, d] float64, about the mean; None where nobody asked."""

    @property
    def variance(self) -> float:
        """E||x - mean||^2."""
        if self.centre is not None:
            return self.mean_square_norm
        # Of activations that are all the same the difference is rounding, of either sign.
        return max(0.0, self.mean_square_norm - float(self.mean.square().sum()))


def site_statistics(
    block: Block, hooks: Sequence[str] | None = None, *, centred: bool = False, covariance: bool = False
) -> dict[str, SiteStatistics]:
    """The statistics of sites of a block, summed in float64; `centred`: norms about the mean. Each site of the block by
    itself, or `hooks` together: of the activations that count at all of them."""
    together = [(hook,) for hook in block.activations] if hooks is None else [tuple(hooks)] * len(hooks)
    return {
        hook: _statistics(block, own, hook, centred, covariance)
        for hook, own in zip(hooks or block.activations, together, strict=True)
    }


def _statistics(block: Block, hooks: Sequence[str], hook: str, centred: bool, covariance: bool) -> SiteStatistics:
    x_BD, count = block.activations[hook], block.count(hooks)

    def parts() -> Iterator[Tensor]:
        starts = range(0, count, _ROWS_AT_ONCE)
        return (block.take(hooks, slice(start, min(start + _ROWS_AT_ONCE, count)))[0][hook] for start in starts)

    room = (min(count, _ROWS_AT_ONCE), x_BD.shape[1])
    wide_BD = torch.empty(room, dtype=torch.float64, device=x_BD.device)  # one: the heap would keep each
    mean_D = wide_BD.new_zeros(x_BD.shape[1])
    for part_BD in parts():
        mean_D += wide_BD[: len(part_BD)].copy_(part_BD).sum(0)
    mean_D /= count
    centre_D = mean_D if centred else torch.zeros_like(mean_D)
    covariance_DD = wide_BD.new_zeros(len(mean_D), len(mean_D)) if covariance else None
    norms = squares = wide_BD.new_zeros(())
    for part_BD in parts():
        squares_B = wide_BD[: len(part_BD)].copy_(part_BD).sub_(centre_D).square_().sum(1)
        norms, squares = norms + squares_B.sqrt().sum(), squares + squares_B.sum()
        if covariance_DD is not None:
            about_BD = wide_BD[: len(part_BD)].copy_(part_BD).sub_(mean_D)
            covariance_DD.addmm_(about_BD.T, about_BD, alpha=1 / count)
    sample = block.take(hooks, slice(0, SAMPLE_ROWS))[0][hook].clone()  # a slice would keep the block alive
    about_D = centre_D if centred else None
    return SiteStatistics(mean_D, norms.item() / count, squares.item() / count, sample, about_D, covariance_DD)


def joined(sites: Sequence[SiteStatistics], scales: Sequence[float]) -> SiteStatistics:
    """Of what a crosscoder is trained on: activations of several sites end to end, each centred and times its scale.

    The mean norm is that of the samples, since no average over a site tells it.
    """

    def scaled(numbers: Tensor, site: SiteStatistics, scale: float) -> Tensor:
        return scale * (numbers.double() if site.centre is None else numbers.double() - site.centre)

    pairs = list(zip(sites, scales, strict=True))
    sample = torch.cat([scaled(site.sample, site, scale) for site, scale in pairs], dim=1)
    return SiteStatistics(
        mean=torch.cat([scaled(site.mean, site, scale) for site, scale in pairs]),
        mean_norm=float(sample.norm(dim=1).mean()),
        mean_square_norm=sum(scale**2 * site.mean_square_norm for site, scale in pairs),
        sample=sample,
    )


def input_scale(kind: str, d: int, stats: SiteStatistics) -> float:
    """The c of inputs trained as c x: none is 1, sqrt_d makes the mean norm sqrt(d), unit the mean squared norm 1.
    Beside whiten there is none."""
    match kind:
        case "none" | "whiten":
            return 1.0
        case "sqrt_d":
            return math.sqrt(d) / _above_zero(stats.mean_norm, f"sae.input_scale={kind}")
        case "unit":
            return 1 / math.sqrt(_above_zero(stats.mean_square_norm, f"sae.input_scale={kind}"))
    raise ConfigError(f"sae.input_scale={kind} is not one of none, sqrt_d, unit, whiten")


def coefficient_scale(unit: str, d: int, stats: SiteStatistics, scale: float) -> float:
    """What a coefficient given in `unit` is multiplied by, for a loss that sums squared error over d.

    `scale` is the input scale c: the norms that units divide by are those of c x.
    """
    key = f"sae.coefficient_unit={unit}"
    match unit:
        case "sum":
            return 1.0
        case "mean_d":
            return float(d)
        case "mean_d_norm":
            return d * scale * _above_zero(stats.mean_norm, key)
        case "mean_square":
            return scale**2 * _above_zero(stats.mean_square_norm, key)
        case "variance":
            return scale**2 * _above_zero(stats.variance, key)
    raise ConfigError(f"{key} is not one of sum, mean_d, mean_d_norm, mean_square, variance")


def _above_zero(value: float, key: str) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{key} cannot be computed: the site's activations have norm {value:g} throughout a block")
    return value
