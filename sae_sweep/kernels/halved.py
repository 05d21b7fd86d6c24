"""Upper bounds on pre-activations by a product of 16-bit numbers, for GPUs, which do many of them in the time of one in
float32. `cpu/screening.py` has the idea: what a bound leaves out need not be computed, and nothing else is left out.

With X = s x, s a power of two that takes inputs to the middle of the format's range, and ~ the rounding to it,

    s (w . x + offset)  <=  w~ . X~ + s offset + (||w - w~|| + a ||w~||) ||X~|| + ||w|| ||X - X~||
    a = D 2^-24

What rounding took of each row and input is measured, which is less than half of what it can be, and nothing where
inputs are numbers of 16 bits already. a is of sums in float32 on tensor cores, which from sm_80 on add eight products
or more at once and keep two bits more than the sum has (Fasi et al. 2021, "Numerical behavior of NVIDIA tensor
cores"). The terms on the right are columns that are added to both factors, each rounded up. The bound is rounded to 16
bits: that keeps its sign and the order of bounds.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sae_sweep.kernels.device import on_triton

ROUNDOFF = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
SPACING = {torch.float16: 2.0**-24, torch.bfloat16: 2.0**-133}
"""Between the format's smallest numbers; rounding to them is off by half of it."""
EXPONENT = 8
"""The largest input becomes about 2 to this."""
UNIT = 64.0
"""One column is so many times as large in the rows, and so many times smaller in the inputs."""
EXTRA = 4
"""Columns that a bound adds."""
COLUMNS = 64
"""Products are fast for a multiple of so many."""


@dataclass(frozen=True)
class Format:
    """Numbers of 16 bits."""

    half: torch.dtype

    @property
    def roundoff(self) -> float:
        """The unit roundoff u."""
        return ROUNDOFF[self.half]

    @property
    def spacing(self) -> float:
        """Between the smallest numbers."""
        return SPACING[self.half]

    @property
    def most(self) -> float:
        """The largest number."""
        return torch.finfo(self.half).max

    @staticmethod
    def lost(width: int) -> float:
        """a: what a sum of so many products can be off by, of the product of both norms."""
        return width * 2.0**-24


@dataclass(frozen=True)
class Added:
    """What is added to w . x, over `scale`: bias - w . b_pre, less a floor; each as far as it is there."""

    bias_F: Tensor | None
    b_pre_MD: Tensor | None
    member_F: Tensor
    """[F]: the row of b_pre of each latent."""
    floor_F: Tensor | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class Bounds:
    """Upper bounds times s."""

    bound_BF: Tensor
    """[B, F] in 16 bits."""
    offset_F: Tensor
    """bias - w . b_pre, in full precision."""
    scale: Tensor
    """[]: s."""
    _inputs_B2: Tensor
    _rows_F2: Tensor
    """The columns that bounds are raised by."""
    _added: Added
    _of: Format

    @cached_property
    def slack_B(self) -> Tensor:
        """[B]: before rounding, each of a token's bounds is at most this much above what it bounds."""
        raised_B = self._inputs_B2.float() @ self._rows_F2.float().amax(0)
        size = torch.linalg.vector_norm(self.offset_F, torch.inf).float()
        if self._added.floor_F is not None:
            size = size + torch.linalg.vector_norm(self._added.floor_F, torch.inf)
        rest = self.scale * (size * (8 * self._of.roundoff**2 / self._added.scale) + 4 * self._of.spacing)
        return 2 * (1 + 4 * self._of.roundoff) * raised_B + 2 * rest


def columns_of(width: int) -> int:
    """K: numbers of a row with what is added."""
    return -(-(width + EXTRA) // COLUMNS) * COLUMNS


def bounds(x_BD: Tensor, W_FD: Tensor, added: Added, half: torch.dtype) -> Bounds:
    """Bounds on x W^T + what is added."""
    width, of = x_BD.shape[1], Format(half)
    largest = torch.linalg.vector_norm(x_BD, torch.inf).float()
    if on_triton(W_FD):
        from sae_sweep.kernels.cuda import halving

        rows_FK, offset_F = halving.half_rows(W_FD, columns_of(width), added, of)
        X_BK, scale = halving.half_inputs(x_BD, columns_of(width), largest, of)
    else:
        rows_FK, offset_F = _half_rows(W_FD, added, of)
        X_BK, scale = _half_inputs(x_BD, largest, of)
    raised = slice(width + 2, width + EXTRA)
    return Bounds(_product(X_BK, rows_FK), offset_F, scale, X_BK[:, raised], rows_FK[:, raised], added, of)


def _half_rows(W_FD: Tensor, added: Added, of: Format) -> tuple[Tensor, Tensor]:
    (latents, width), up = W_FD.shape, 1 + 4 * of.roundoff
    rows_FK = W_FD.new_zeros(latents, columns_of(width), dtype=of.half)
    rows_FK[:, :width] = W_FD
    kept_FD = rows_FK[:, :width].to(W_FD.dtype)
    offset_F = torch.zeros_like(W_FD[:, 0]) if added.bias_F is None else added.bias_F.clone()
    if added.b_pre_MD is not None:
        offset_F -= (W_FD * added.b_pre_MD.index_select(0, added.member_F)).sum(1)
    added_F, size_F = offset_F, offset_F.abs()
    if added.floor_F is not None:
        added_F, size_F = added_F - added.floor_F, size_F + added.floor_F.abs()
    added_F = added_F / added.scale
    leading_F = added_F.clamp(-of.most, of.most).to(of.half)  # beyond it the rest is infinite, with the right sign
    rows_FK[:, width] = leading_F
    rows_FK[:, width + 1] = (added_F - leading_F) + size_F * (4 * of.roundoff**2 / added.scale) + 2 * of.spacing
    rounded_F = (W_FD - kept_FD).norm(dim=1) + of.lost(width) * kept_FD.norm(dim=1)
    rows_FK[:, width + 2] = rounded_F * (up * UNIT) + of.spacing
    rows_FK[:, width + 3] = W_FD.norm(dim=1) * up + of.spacing
    return rows_FK, offset_F


def _half_inputs(x_BD: Tensor, largest: Tensor, of: Format) -> tuple[Tensor, Tensor]:
    (tokens, width), up = x_BD.shape, 1 + 4 * of.roundoff
    tiny = torch.finfo(torch.float32).tiny
    s = torch.exp2((EXPONENT - 1 - largest.clamp(min=tiny).log2().floor()).clamp(-14, 14))
    X_BD = x_BD.to(s.dtype) * s if x_BD.itemsize < s.itemsize else x_BD * s
    X_BK = X_BD.new_zeros(tokens, columns_of(width), dtype=of.half)
    X_BK[:, :width] = X_BD
    kept_BD = X_BK[:, :width].to(X_BD.dtype)
    X_BK[:, width : width + 2] = s
    X_BK[:, width + 2] = kept_BD.norm(dim=1) * (up / UNIT) + of.spacing
    X_BK[:, width + 3] = (X_BD - kept_BD).norm(dim=1) * up + of.spacing
    return X_BK, s


def _product(X_BK: Tensor, rows_FK: Tensor) -> Tensor:
    """[B, F], of sums in float32."""
    if X_BK.is_cuda:
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        return X_BK @ rows_FK.T
    return (X_BK.float() @ rows_FK.float().T).to(X_BK.dtype)
