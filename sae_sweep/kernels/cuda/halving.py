"""Rows of weights in 16 bits in Triton, for CUDA, with their norms, in one pass."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sae_sweep.kernels.cuda.updating import warps


def half_rows(rows_FD: Tensor, columns: int, half: torch.dtype) -> tuple[Tensor, Tensor]:
    """[F, columns] in 16 bits, 0 beyond a row's own numbers; and the norm of each row [F]."""
    latents, width = rows_FD.shape
    out_FK = torch.empty(latents, columns, dtype=half, device=rows_FD.device)
    norm_F = torch.empty(latents, dtype=rows_FD.dtype, device=rows_FD.device)
    block = triton.next_power_of_2(columns)
    with torch.cuda.device_of(rows_FD):
        _half_row[(latents,)](
            rows_FD.detach().contiguous(), out_FK, norm_F, width, columns, BLOCK=block, num_warps=warps(block)
        )
    return out_FK, norm_F


@triton.jit
def _half_row(rows: tl.tensor, out: tl.tensor, norms: tl.tensor, width: int, columns: int, BLOCK: tl.constexpr) -> None:
    latent = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    row = tl.load(rows + (latent * width + column), mask=column < width, other=0)
    tl.store(out + (latent * columns + column), row.to(out.dtype.element_ty), mask=column < columns)
    tl.store(norms + latent, tl.sqrt(tl.sum(row * row)))
