"""The equations of both JumpReLU SAEs for one member, written densely (see `reference`).

What has no derivative is written as a constant plus a line through the point where it stands: the value is that of
the step, and ordinary differentiation finds the slope that the papers define. theta = exp(log_threshold) is part of
the graph, so the slope in log_threshold carries a factor theta.
"""

import torch
from torch import Tensor

from tests.saes.reference import Terms, Weights, mean_square, preactivations, row_norms, target, zero


def deepmind(
    p: Weights,
    x_BD: Tensor,
    bandwidth: float,
    penalty: str,
    goal: float | tuple[float, float] | None = None,
    target_BD: Tensor | None = None,
    variance: float = 1.0,
) -> Terms:
    """Rajamanoharan et al. 2024 (2407.14435); `goal` is the L0 of target_l0, the omega of frequency,
    or both."""
    z = preactivations(p, x_BD)
    theta = p["log_threshold"].exp()
    kernel = rectangle((z - theta) / bandwidth)
    step = (z > theta).to(z.dtype).detach()
    # z H(z - theta): slope H in z, and -(theta / eps) K in theta.
    f = z * step + line(-theta / bandwidth * kernel, theta)
    # H(z - theta): no slope in z, and -(1 / eps) K in theta.
    fires = step + line(-kernel / bandwidth, theta)
    x_hat = f @ p["W_dec"] + p["b_dec"]
    frequency_F = fires.mean(0)
    if penalty == "l0":
        sparsity = frequency_F.sum()
    elif penalty == "quadratic_frequency":  # Gemma Scope 2: the quadratic parts of both
        assert isinstance(goal, tuple)
        l0, omega = goal
        sparsity = variance * ((frequency_F.sum() / l0 - 1) ** 2 + (frequency_F**2).sum() / (omega * l0))
    elif penalty == "target_l0":
        assert isinstance(goal, float)
        sparsity = variance * (frequency_F.sum() / goal - 1) ** 2
    else:
        assert penalty == "frequency"
        assert isinstance(goal, float)
        sparsity = (frequency_F * (1 + frequency_F / goal)).sum()
    return Terms(mean_square(target(x_BD, target_BD) - x_hat), sparsity, zero(x_BD), f, x_hat)


def anthropic(
    p: Weights,
    x_BD: Tensor,
    bandwidth: float,
    preact_coefficient: float,
    c: float = 4.0,
    target_BD: Tensor | None = None,
) -> Terms:
    """Anthropic, January 2025: no pre-encoder bias, a tanh penalty, and a pull on what stays below its threshold."""
    z = x_BD @ p["W_enc"].t() + p["b_enc"]
    theta = p["log_threshold"].exp()
    slope = theta / bandwidth * rectangle((z - theta) / bandwidth)
    step = (z > theta).to(z.dtype).detach()
    f = z * step + line(slope, z) + line(-slope, theta)
    x_hat = f @ p["W_dec"] + p["b_dec"]
    norms = row_norms(p["W_dec"])
    # |f| is f: the absolute value's slope of 0 at 0 would cut the straight-through slope below the threshold.
    sparsity = torch.tanh(c * f * norms).sum(1).mean()
    below = (torch.clamp(theta - z, min=0) * norms).sum(1).mean()
    return Terms(mean_square(target(x_BD, target_BD) - x_hat), sparsity, preact_coefficient * below, f, x_hat)


def rectangle(u: Tensor) -> Tensor:
    """K(u) = 1 for |u| < 1/2."""
    return (u.abs() < 0.5).to(u.dtype).detach()


def line(slope: Tensor, at: Tensor) -> Tensor:
    """0 in value, with this slope in `at`."""
    return slope.detach() * (at - at.detach())
