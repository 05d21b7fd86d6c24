"""Bounds by products of 16 bits are bounds, and no further off than they say."""

import pytest
import torch
from torch import Tensor

from sae_sweep.kernels.halved import ROUNDOFF, bounds, columns_of
from tests.kernels.conftest import Interpret

HALVES = [torch.float16, torch.bfloat16]


def numbers(kind: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs [B, D], rows [F, D], offsets and floors [F], in float32."""
    generator = torch.Generator().manual_seed(7)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x_BD, W_FD, offset_F, floor_F = randn(30, 90), randn(50, 90), 3 * randn(50), randn(50)
    match kind:
        case "large inputs":
            x_BD *= 10.0 ** torch.linspace(-4, 6, 30)[:, None]
        case "small inputs":
            x_BD *= 1e-9
        case "small rows":
            W_FD *= 10.0 ** -torch.linspace(0, 12, 50)[:, None]
        case "rows of one kind":  # all roundings go one way
            W_FD, x_BD = torch.full_like(W_FD, 1 + 2.0**-8.5), torch.full_like(x_BD, 1 + 2.0**-8.5)
            W_FD[::2] *= -1
        case "nothing":
            x_BD[::3], W_FD[::4], offset_F[::2] = 0, 0, 0
        case "large offsets":
            offset_F *= 1e4
    return x_BD, W_FD, offset_F, floor_F


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize(
    "kind",
    ["normal", "large inputs", "small inputs", "small rows", "rows of one kind", "nothing", "large offsets"],
)
def test_nothing_is_above_its_bound(kind: str, half: torch.dtype) -> None:
    x_BD, W_FD, offset_F, floor_F = numbers(kind)
    for floor in (None, floor_F):
        found = bounds(x_BD, W_FD, offset_F, floor, half)
        z_BF = x_BD.double() @ W_FD.double().T + offset_F.double() - (0 if floor is None else floor.double())
        scaled_BF, bound_BF = z_BF * found.scale.double(), found.bound_BF.double()
        up = 1 + 2 * ROUNDOFF[half]
        held_BF = bound_BF * torch.where(bound_BF > 0, up, 1 / up) >= scaled_BF
        assert (held_BF | (bound_BF == -torch.inf) & (scaled_BF < 0)).all()  # beyond what 16 bits hold
        assert ((bound_BF >= 0) | (scaled_BF <= 0)).all(), "the sign of a bound is never lower"
        finite = bound_BF.isfinite()
        slack_BF = found.slack_B.double()[:, None] + 2 * ROUNDOFF[half] * bound_BF.abs() + 1e-6
        assert ((bound_BF - scaled_BF <= slack_BF) | ~finite).all()


def test_float16_leaves_few() -> None:
    """Of a thousand candidates at most so many more than fire, at a width of real models."""
    generator = torch.Generator().manual_seed(0)
    x_BD, W_FD = torch.randn(64, 2304, generator=generator), torch.randn(512, 2304, generator=generator) / 48
    offset_F = torch.full((512,), -2.9)
    z_BF = x_BD @ W_FD.T + offset_F
    counts = {half: int((bounds(x_BD, W_FD, offset_F, None, half).bound_BF >= 0).sum()) for half in HALVES}
    fires = int((z_BF > 0).sum())
    assert fires <= counts[torch.float16] < 1.6 * fires
    assert counts[torch.float16] < counts[torch.bfloat16] < 8 * fires


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("width", [1, 60, 300])
def test_half_rows(interpret: Interpret, half: torch.dtype, width: int) -> None:
    rows_FD = torch.randn(9, width)
    rows_FK, norm_F = interpret("sae_sweep.kernels.cuda.halving:half_rows", rows_FD, columns_of(width), half)
    torch.testing.assert_close(rows_FK[:, :width].float(), rows_FD, rtol=2 * ROUNDOFF[half], atol=1e-7)
    assert not rows_FK[:, width:].any()
    torch.testing.assert_close(norm_F, rows_FD.norm(dim=1))
