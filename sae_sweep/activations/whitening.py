"""Whitened inputs: members train on W x, whose numbers are uncorrelated and of variance about 1.

    W = ((1 - r) S + r tr(S) / d I)^(-1/2)

is symmetric (ZCA: of all whitenings the one that leaves x most as it is), S the covariance of the first block's
activations about their mean and r the shrinkage (Ledoit and Wolf 2004, with a fixed r), which keeps directions that a
block hardly has from being blown up. The squared error that is optimised is ||W (x - x_hat)||^2: an error counts by how
unusual it is in its direction, and so those in directions of little variance count for more than in ||x - x_hat||^2,
which SAEs are judged by. What is saved takes raw activations.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sae_sweep.activations.scaling import SiteStatistics
from sae_sweep.errors import ConfigError

SHRINKAGE = 0.01
"""r. The largest factor in W is then at most sqrt(1 / r) over that of a direction of mean variance."""


@dataclass(frozen=True)
class Whitening:
    """W, and its inverse."""

    matrix_DD: Tensor
    """Symmetric, float64."""
    inverse_DD: Tensor

    def of(self, numbers: Tensor) -> Tensor:
        """W times activations [..., D]."""
        return numbers.double() @ self.matrix_DD


def whitening(stats: SiteStatistics) -> Whitening:
    """That of a site. Raises ConfigError where its activations are all the same."""
    assert stats.covariance is not None
    d, trace = len(stats.covariance), stats.covariance.trace()
    if not (trace > 0 and trace.isfinite()):
        raise ConfigError(
            f"sae.input_scale=whiten cannot be computed: the site's activations have variance {float(trace):g}"
        )
    eye_DD = torch.eye(d, dtype=torch.float64, device=trace.device)
    values_D, vectors_DD = torch.linalg.eigh((1 - SHRINKAGE) * stats.covariance + SHRINKAGE * trace / d * eye_DD)
    roots_D = values_D.sqrt()
    return Whitening((vectors_DD / roots_D) @ vectors_DD.T, (vectors_DD * roots_D) @ vectors_DD.T)


def whitened(stats: SiteStatistics, by: Whitening) -> SiteStatistics:
    """Of what members are trained on: activations of a site, centred where they are to be, times W. The mean norm is
    that of the sample."""
    assert stats.covariance is not None
    centre_D = torch.zeros_like(stats.mean) if stats.centre is None else stats.centre
    mean_D, sample_ND = by.of(stats.mean - centre_D), by.of(stats.sample.double() - centre_D)
    variance = float((by.of(stats.covariance) * by.matrix_DD).sum())
    return replace(
        stats,
        mean=mean_D,
        mean_norm=float(sample_ND.norm(dim=1).mean()),
        mean_square_norm=variance + float(mean_D.square().sum()),
        sample=sample_ND,
        centre=None,
    )
