"""The factors of a bound (`kernels/halved.py`) in Triton, for CUDA: each in one pass over weights, or inputs."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sae_sweep.kernels.cuda.updating import warps
from sae_sweep.kernels.halved import EXPONENT, UNIT, Added, Format


def half_rows(rows_FD: Tensor, columns: int, added: Added, of: Format) -> tuple[Tensor, Tensor]:
    """[F, columns] in 16 bits: rows, what bounds add to them, and zeros; and what is added to each product [F]."""
    latents, width = rows_FD.shape
    rows_FD = rows_FD.detach().contiguous()
    out_FK = torch.empty(latents, columns, dtype=of.half, device=rows_FD.device)
    offset_F = torch.empty(latents, dtype=rows_FD.dtype, device=rows_FD.device)
    pre = added.b_pre_MD is not None
    block = triton.next_power_of_2(columns)
    with torch.cuda.device_of(rows_FD):
        _half_row[(latents,)](
            rows_FD,
            rows_FD if added.bias_F is None else added.bias_F.detach().contiguous(),
            rows_FD if added.b_pre_MD is None else added.b_pre_MD.detach().contiguous(),
            rows_FD if added.floor_F is None else added.floor_F.detach().contiguous(),
            added.member_F if pre else out_FK,  # what there is not is never read
            out_FK,
            offset_F,
            width,
            columns,
            1 / added.scale,
            BIAS=added.bias_F is not None,
            PRE=pre,
            FLOOR=added.floor_F is not None,
            ROUNDOFF=of.roundoff,
            SPACING=of.spacing,
            MOST=of.most,
            UNIT=UNIT,
            LOST=of.lost(width),
            BLOCK=block,
            num_warps=warps(block),
        )
    return out_FK, offset_F


def half_inputs(x_BD: Tensor, columns: int, largest: Tensor, of: Format) -> tuple[Tensor, Tensor]:
    """[B, columns] in 16 bits: inputs times s, what bounds add to them, and zeros; and s [], by the `largest` [] of
    them in fp32."""
    tokens, width = x_BD.shape
    out_BK = torch.empty(tokens, columns, dtype=of.half, device=x_BD.device)
    scale = torch.empty((), dtype=torch.float32, device=x_BD.device)
    block = triton.next_power_of_2(columns)
    with torch.cuda.device_of(x_BD):
        _half_input[(tokens,)](
            x_BD.detach().contiguous(),
            largest,
            out_BK,
            scale,
            width,
            columns,
            ROUNDOFF=of.roundoff,
            SPACING=of.spacing,
            UNIT=UNIT,
            EXPONENT=EXPONENT,
            BLOCK=block,
            num_warps=warps(block),
        )
    return out_BK, scale


@triton.jit
def _half_row(
    rows: tl.tensor, bias: tl.tensor, pre: tl.tensor, floor: tl.tensor, member: tl.tensor, out: tl.tensor,
    offsets: tl.tensor, width: int, columns: int, per: float,
    BIAS: tl.constexpr, PRE: tl.constexpr, FLOOR: tl.constexpr, ROUNDOFF: tl.constexpr, SPACING: tl.constexpr,
    MOST: tl.constexpr, UNIT: tl.constexpr, LOST: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    UP: tl.constexpr = 1 + 4 * ROUNDOFF
    latent = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    row = tl.load(rows + (latent * width + column), mask=inside, other=0).to(tl.float32)
    kept = row.to(out.dtype.element_ty).to(tl.float32)
    offset = tl.zeros([], tl.float32)
    if BIAS:
        offset += tl.load(bias + latent).to(tl.float32)
    if PRE:
        place = tl.load(member + latent).to(tl.int64) * width
        offset -= tl.sum(row * tl.load(pre + (place + column), mask=inside, other=0).to(tl.float32))
    tl.store(offsets + latent, offset)
    added = offset
    size = tl.abs(offset)
    if FLOOR:
        least = tl.load(floor + latent).to(tl.float32)
        added -= least
        size += tl.abs(least)
    added *= per
    leading = tl.minimum(tl.maximum(added, -MOST), MOST).to(out.dtype.element_ty).to(tl.float32)
    rest = (added - leading) + size * per * (4 * ROUNDOFF * ROUNDOFF) + 2 * SPACING
    off = row - kept
    rounded = (tl.sqrt(tl.sum(off * off)) + LOST * tl.sqrt(tl.sum(kept * kept))) * (UP * UNIT) + SPACING
    norm = tl.sqrt(tl.sum(row * row)) * UP + SPACING
    value = tl.where(column == width, leading, tl.where(column == width + 1, rest, kept))
    value = tl.where(column == width + 2, rounded, tl.where(column == width + 3, norm, value))
    tl.store(out + (latent * columns + column), value.to(out.dtype.element_ty), mask=column < columns)


@triton.jit
def _half_input(
    inputs: tl.tensor, largest: tl.tensor, out: tl.tensor, scale: tl.tensor, width: int, columns: int,
    ROUNDOFF: tl.constexpr, SPACING: tl.constexpr, UNIT: tl.constexpr, EXPONENT: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    UP: tl.constexpr = 1 + 4 * ROUNDOFF
    token = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    bits = tl.load(largest).to(tl.int32, bitcast=True)
    power = EXPONENT - ((bits >> 23) & 255) + 126  # of 2, with which the largest is below 2^EXPONENT
    power = tl.minimum(tl.maximum(power, -14), 14)
    s = ((power + 127) << 23).to(tl.float32, bitcast=True)
    own = tl.load(inputs + (token * width + column), mask=column < width, other=0).to(tl.float32) * s
    kept = own.to(out.dtype.element_ty).to(tl.float32)
    off = own - kept
    size = tl.sqrt(tl.sum(kept * kept)) * (UP / UNIT) + SPACING
    lost = tl.sqrt(tl.sum(off * off)) * UP + SPACING
    value = tl.where(column == width + 2, size, tl.where(column == width + 3, lost, kept))
    value = tl.where((column == width) | (column == width + 1), s, value)
    tl.store(out + (token * columns + column), value.to(out.dtype.element_ty), mask=column < columns)
    if token == 0:
        tl.store(scale, s)
