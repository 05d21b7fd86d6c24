"""Upper bounds on pre-activations by a product of 16-bit numbers, for GPUs, which do many of them in the time of one in
float32. `cpu/screening.py` has the idea: what a bound leaves out need not be computed, and nothing else is left out.

With X = s x, s a power of two that takes inputs to the middle of the format's range, and ~ the rounding to it,

    s (w . x + offset)  <=  w~ . X~ + s offset + ||X|| (e ||w|| + a) + a ||w||
    e = 2 u + u^2 + D 2^-22,   a = sqrt(D) 2^-25 (for float16, whose smallest numbers are that far apart)

u is the format's unit roundoff, 2^-11 for float16 and 2^-8 for bfloat16, and the sums are in float32. The terms on the
right are columns that are added to both factors, each rounded up. The bound is rounded to 16 bits: that keeps its sign
and the order of bounds.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from sae_sweep.kernels.device import on_triton

ROUNDOFF = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SPACING = {torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133}
"""Between the format's smallest numbers; rounding to them is off by half of it."""
EXPONENT = 8.0
"""The largest input becomes about 2 to this."""
UNIT = 64.0
"""The last column is so many times as large in the rows, and so many times smaller in the inputs."""
EXTRA = 4
"""Columns that a bound adds."""
COLUMNS = 64
"""Products are fast for a multiple of so many."""


@dataclass(frozen=True)
class Bounds:
    """Upper bounds times s, and how far above what they bound they can be."""

    bound_BF: Tensor
    """[B, F] in 16 bits."""
    slack_B: Tensor
    """[B]: before rounding, each of a token's bounds is at most this much above what it bounds."""
    scale: Tensor
    """[]: s."""


@dataclass(frozen=True)
class HalfRows:
    """Rows of weights as a product takes them, and what else was learned of them on the way."""

    rows_FK: Tensor
    norm_F: Tensor


def columns_of(width: int) -> int:
    """K: numbers of a row with what is added."""
    return -(-(width + EXTRA) // COLUMNS) * COLUMNS


def bounds(x_BD: Tensor, W_FD: Tensor, offset_F: Tensor, floor_F: Tensor | None, half: torch.dtype) -> Bounds:
    """Bounds on x W^T + offset - floor."""
    (tokens, width), u = x_BD.shape, ROUNDOFF[half]
    up = 1 + 4 * u
    share = 2 * u + u**2 + width * 2.0**-22
    apart = sqrt(width) * SPACING[half] * up
    size_F = offset_F.abs() if floor_F is None else offset_F.abs() + floor_F.abs()
    added_F = offset_F if floor_F is None else offset_F - floor_F
    half_rows = _half_rows(W_FD, added_F, size_F, (share, apart), half)
    largest = x_BD.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
    s = torch.exp2((EXPONENT - largest.log2().ceil()).clamp(-14, 14)).to(half).to(x_BD.dtype)
    X_BD = x_BD * s
    norm_B = X_BD.norm(dim=1)
    X_BK = X_BD.new_zeros(tokens, columns_of(width), dtype=half)
    X_BK[:, :width] = X_BD
    X_BK[:, width : width + 2] = s
    X_BK[:, width + 2] = norm_B * up
    X_BK[:, width + 3] = 1 / UNIT
    most = half_rows.norm_F.amax()
    rest = s * (size_F.amax() * (8 * u**2) + 4 * SPACING[half])
    slack_B = 2 * up**4 * (norm_B * (share * most + apart) + apart * most) + 2 * rest
    return Bounds(_product(X_BK, half_rows.rows_FK), slack_B, s)


def _half_rows(
    W_FD: Tensor, added_F: Tensor, size_F: Tensor, terms: tuple[float, float], half: torch.dtype
) -> HalfRows:
    (latents, width), (share, apart) = W_FD.shape, terms
    u = ROUNDOFF[half]
    up = 1 + 4 * u
    if on_triton(W_FD):
        from sae_sweep.kernels.cuda import halving

        rows_FK, norm_F = halving.half_rows(W_FD, columns_of(width), half)
    else:
        norm_F = W_FD.norm(dim=1)
        rows_FK = W_FD.new_zeros(latents, columns_of(width), dtype=half)
        rows_FK[:, :width] = W_FD
    most = torch.finfo(half).max  # beyond it the rest is infinite, with the right sign
    leading_F = added_F.clamp(-most, most).to(half)
    rows_FK[:, width] = leading_F
    rows_FK[:, width + 1] = (added_F - leading_F) + size_F * (4 * u**2) + 2 * SPACING[half]
    rows_FK[:, width + 2] = (norm_F * share + apart) * up
    rows_FK[:, width + 3] = norm_F * (apart * up * UNIT) + SPACING[half]
    return HalfRows(rows_FK, norm_F)


def _product(X_BK: Tensor, rows_FK: Tensor) -> Tensor:
    """[B, F], of sums in float32."""
    if X_BK.is_cuda:
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        return X_BK @ rows_FK.T
    return (X_BK.float() @ rows_FK.float().T).to(X_BK.dtype)
