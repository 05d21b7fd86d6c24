"""What a site's activations measure, and the factors that follow: on inputs, and on a paper's coefficients."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.activations.stream import Block
from sae_sweep.errors import ConfigError

_ROWS_AT_ONCE = 8_192  # in float64, of a block that may fill much of the device


@dataclass(frozen=True)
class SiteStatistics:
    """Averages over the activations of one block at one site, in raw units."""

    mean: Tensor
    """[d] float64."""
    mean_norm: float
    mean_square_norm: float


def site_statistics(block: Block) -> dict[str, SiteStatistics]:
    """The statistics of each site of a block, summed in float64."""
    return {hook: _statistics(x_BD) for hook, x_BD in block.activations.items()}


def _statistics(x_BD: Tensor) -> SiteStatistics:
    total_D = torch.zeros(x_BD.shape[1], dtype=torch.float64, device=x_BD.device)
    norms = torch.zeros((), dtype=torch.float64, device=x_BD.device)
    squares = torch.zeros_like(norms)
    for part_BD in torch.split(x_BD, _ROWS_AT_ONCE):
        wide_BD = part_BD.double()
        squares_B = wide_BD.square().sum(1)
        total_D += wide_BD.sum(0)
        norms += squares_B.sqrt().sum()
        squares += squares_B.sum()
    count = x_BD.shape[0]
    return SiteStatistics(total_D / count, norms.item() / count, squares.item() / count)


def input_scale(kind: str, d: int, stats: SiteStatistics) -> float:
    """The c of inputs trained as c x: none is 1, sqrt_d makes the mean norm sqrt(d), unit the mean squared norm 1."""
    match kind:
        case "none":
            return 1.0
        case "sqrt_d":
            return math.sqrt(d) / _above_zero(stats.mean_norm, f"sae.input_scale={kind}")
        case "unit":
            return 1 / math.sqrt(_above_zero(stats.mean_square_norm, f"sae.input_scale={kind}"))
    raise ConfigError(f"sae.input_scale={kind} is not one of none, sqrt_d, unit")


def coefficient_scale(unit: str, d: int, stats: SiteStatistics, scale: float) -> float:
    """What a coefficient given in `unit` is multiplied by, for a loss that sums squared error over d.

    `scale` is the input scale c: the norm that mean_d_norm divides by is that of c x.
    """
    match unit:
        case "sum":
            return 1.0
        case "mean_d":
            return float(d)
        case "mean_d_norm":
            return d * scale * _above_zero(stats.mean_norm, f"sae.coefficient_unit={unit}")
    raise ConfigError(f"sae.coefficient_unit={unit} is not one of sum, mean_d, mean_d_norm")


def _above_zero(value: float, key: str) -> float:
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{key} cannot be computed: the site's activations have norm {value:g} throughout a block")
    return value
