"""Straight-through estimators for thresholds (Rajamanoharan et al. 2024, arXiv 2407.14435, section 4).

K(u) = 1 for |u| < 1/2, else 0, and e is the bandwidth. They act on pre-activations z, on both sides of the threshold:
an activation is 0 below it, so it would see half of the kernel only.
"""

from typing import Any

import torch
from torch import Tensor


class Jump(torch.autograd.Function):
    """z H(z - theta), elementwise.

    Gradient of theta: -(theta / e) K((z - theta) / e). Of z: H(z - theta), plus the same kernel where `to_z`.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, bandwidth: Tensor, to_z: bool) -> Tensor:
        ctx.save_for_backward(z, theta, bandwidth)
        ctx.to_z = to_z
        return z * (z > theta)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        z, theta, bandwidth = ctx.saved_tensors
        through = g * theta * kernel(z, theta, bandwidth)
        g_z = g * (z > theta)
        return g_z + through if ctx.to_z else g_z, -through, None, None


class Heaviside(torch.autograd.Function):
    """H(z - theta), elementwise. Gradient of theta: -(1 / e) K((z - theta) / e); z has none."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, bandwidth: Tensor) -> Tensor:
        ctx.save_for_backward(z, theta, bandwidth)
        return (z > theta).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = gradients
        z, theta, bandwidth = ctx.saved_tensors
        return None, -g * kernel(z, theta, bandwidth), None


def kernel(z: Tensor, theta: Tensor, bandwidth: Tensor) -> Tensor:
    """(1 / e) K((z - theta) / e)."""
    return ((z - theta).abs() < bandwidth / 2) / bandwidth
