"""Updates by row, by Triton's interpreter against torch's own Adam on a gradient that is made."""

import pytest
import torch
from torch import Tensor
from torch.optim.adam import adam

from sae_sweep.kernels.rows import RowSums, adam_step
from tests.kernels.conftest import Interpret

UPDATING = "sae_sweep.kernels.cuda.updating"
SIZES = [0, 3, 1, 17, 0, 40, 2]
"""Entries of each latent."""


def problem(width: int, dtype: torch.dtype, index: torch.dtype, kind: str) -> tuple[RowSums, Tensor]:
    """Sums, and what they come to."""
    torch.manual_seed(width)
    latents, entries = len(SIZES), sum(SIZES)
    table = torch.randn(width + 3, 30).to(dtype).T[:, 1:][:, :width] if kind == "turned" else torch.randn(30, width)
    table = table.to(dtype)
    spare = 5  # after the last offset, never read
    index_N = torch.cat([torch.randint(30, (entries,)), torch.full((spare,), 10**6)]).to(index)
    weight_N = torch.cat([torch.randn(entries), torch.full((spare,), torch.nan)]).to(dtype)
    offsets = torch.tensor([0, *SIZES]).cumsum(0).to(index)
    dense_FD = torch.zeros(latents, width, dtype=dtype)
    latent_N = torch.repeat_interleave(torch.arange(latents), torch.tensor(SIZES))
    dense_FD.index_add_(0, latent_N, weight_N[:entries, None] * table[index_N[:entries].long()])
    sums = RowSums(table, index_N, weight_N, offsets)
    if kind == "whole":
        factor_F, row_MD, added_FD = (
            torch.randn(latents).to(dtype),
            torch.randn(1, width).to(dtype),
            torch.randn(latents, width).to(dtype),
        )
        sums = RowSums(table, index_N, weight_N, offsets, factor_F, row_MD, added_FD)
        dense_FD += added_FD - factor_F[:, None] * row_MD
    return sums.contiguous(), dense_FD


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("kind", ["lists", "whole", "turned"])
@pytest.mark.parametrize(
    ("width", "dtype", "index"),
    [(1, torch.float64, torch.int64), (70, torch.float64, torch.int32), (300, torch.float32, torch.int32)],
)
def test_an_update_is_adams(
    interpret: Interpret, width: int, dtype: torch.dtype, index: torch.dtype, kind: str, unit: bool
) -> None:
    sums, gradient_FD = problem(width, dtype, index, kind)
    rows_FD = torch.nn.functional.normalize(torch.randn(len(SIZES), width).to(dtype))
    first, second = 0.1 * torch.randn_like(rows_FD), 0.1 * torch.rand_like(rows_FD)
    tight = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-9, "atol": 1e-10}
    if unit:
        gradient_FD = gradient_FD - (gradient_FD * rows_FD).sum(1, keepdim=True) * rows_FD
    squares_F = interpret(f"{UPDATING}:squared_norms", sums, rows_FD, unit)
    torch.testing.assert_close(squares_F, gradient_FD.square().sum(1), **tight)
    lr, beta1, beta2, eps, step, scale = 1e-2, 0.9, 0.99, 1e-6, 3, 0.37
    expected = [rows_FD.clone(), first.clone(), second.clone()]
    adam(
        [expected[0]], [scale * gradient_FD], [expected[1]], [expected[2]], [], [torch.tensor(float(step))],
        foreach=False, amsgrad=False, beta1=beta1, beta2=beta2, lr=lr, weight_decay=0.0, eps=eps, maximize=False,
    )  # fmt: skip
    if unit:
        expected[0] /= expected[0].norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    numbers = adam_step(lr, beta1, beta2, eps, step)
    given = (torch.tensor(scale, dtype=dtype), torch.tensor(False))
    found = interpret("tests.kernels.interpreted:updated", sums, rows_FD, first, second, numbers, *given, unit)
    for own, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(own, theirs, **tight)
    given = (torch.tensor(scale, dtype=dtype), torch.tensor(True))
    lost = interpret("tests.kernels.interpreted:updated", sums, rows_FD, first, second, numbers, *given, unit)
    assert all(map(torch.equal, lost, (rows_FD, first, second)))
