"""Bounds by products of 16 bits are bounds, and no further off than they say."""

import pytest
import torch
from torch import Tensor

from sae_sweep.kernels.halved import (
    EXTRA,
    ROUNDOFF,
    Added,
    Bounds,
    Format,
    _half_inputs,
    _half_rows,
    bounds,
    columns_of,
)
from tests.kernels.conftest import Interpret

HALVES = [torch.float16, torch.bfloat16]


def bounds_of(x_BD: Tensor, W_FD: Tensor, offset_F: Tensor, floor_F: Tensor | None, half: torch.dtype) -> Bounds:
    none_F = torch.zeros(len(W_FD), dtype=torch.int32)
    return bounds(x_BD, W_FD, Added(offset_F, None, none_F, floor_F), half)


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
        found = bounds_of(x_BD, W_FD, offset_F, floor, half)
        z_BF = x_BD.double() @ W_FD.double().T + offset_F.double() - (0 if floor is None else floor.double())
        scaled_BF, bound_BF = z_BF * found.scale.double(), found.bound_BF.double()
        up = 1 + 2 * ROUNDOFF[half]
        held_BF = bound_BF * torch.where(bound_BF > 0, up, 1 / up) >= scaled_BF
        assert (held_BF | (bound_BF == -torch.inf) & (scaled_BF < 0)).all()  # beyond what 16 bits hold
        assert ((bound_BF >= 0) | (scaled_BF <= 0)).all(), "the sign of a bound is never lower"
        finite = bound_BF.isfinite()
        slack_BF = found.slack_B.double()[:, None] + 2 * ROUNDOFF[half] * bound_BF.abs() + 1e-6
        assert ((bound_BF - scaled_BF <= slack_BF) | ~finite).all()


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_what_is_added(half: torch.dtype) -> None:
    """A bias less what a row says of a point, less a floor, all over a number."""
    x_BD, W_FD, bias_F, floor_F = numbers("normal")
    pre_MD, member_F = torch.randn(2, 90, generator=torch.Generator().manual_seed(3)), (torch.arange(50) % 2).int()
    found = bounds(x_BD, W_FD, Added(bias_F, pre_MD, member_F, floor_F, 0.3), half)
    offset_F = bias_F.double() - (W_FD.double() * pre_MD.double()[member_F.long()]).sum(1)
    torch.testing.assert_close(found.offset_F.double(), offset_F, rtol=1e-5, atol=1e-5)
    z_BF = found.scale.double() * (x_BD.double() @ W_FD.double().T + (offset_F - floor_F) / 0.3)
    off_BF = found.bound_BF.double() - z_BF
    rounded_BF = 2 * ROUNDOFF[half] * found.bound_BF.double().abs() + 1e-4
    assert (off_BF >= -rounded_BF).all()
    assert (off_BF <= found.slack_B.double()[:, None] + rounded_BF).all()


def test_inputs_of_16_bits_lose_nothing() -> None:
    """What is not rounded needs no room in a bound."""
    x_BD, W_FD, offset_F, _ = numbers("normal")
    x_BD = x_BD.bfloat16()
    exact, rounded = (bounds_of(each, W_FD, offset_F, None, torch.float16) for each in (x_BD, 1.1 * x_BD.float()))
    assert (exact.slack_B / exact.scale < 0.7 * rounded.slack_B / rounded.scale / 1.1).all()
    z_BF = x_BD.double() @ W_FD.double().T + offset_F.double()
    assert (exact.bound_BF.double() * (1 + 2.0**-10) >= exact.scale.double() * z_BF - 1e-9).logical_or(z_BF < 0).all()


def test_float16_leaves_few() -> None:
    """At most so many more than fire, at a width of real models and as many as fire there."""
    generator = torch.Generator().manual_seed(0)
    x_BD, W_FD = torch.randn(128, 2304, generator=generator), torch.randn(1024, 2304, generator=generator) / 48
    offset_F = torch.full((1024,), -2.66)
    z_BF = x_BD @ W_FD.T + offset_F
    counts = {half: int((bounds_of(x_BD, W_FD, offset_F, None, half).bound_BF >= 0).sum()) for half in HALVES}
    fires = int((z_BF > 0).sum())
    assert fires <= counts[torch.float16] < 1.15 * fires
    assert counts[torch.float16] < counts[torch.bfloat16] < 2.5 * fires


HALVING = "sae_sweep.kernels.cuda.halving"


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize(("width", "there"), [(1, "all"), (60, "bias"), (300, "all"), (60, "none")])
def test_factors(interpret: Interpret, half: torch.dtype, width: int, there: str) -> None:
    """In one pass what torch's operators make of rows and inputs, but that the interpreter cuts bfloat16 off."""
    rows_FD, bias_F, pre_MD, floor_F = torch.randn(9, width), torch.randn(9), torch.randn(2, width), torch.randn(9)
    member_F = (torch.arange(9) % 2).int()
    added = Added(bias_F, pre_MD, member_F, floor_F, 0.7) if there == "all" else Added(bias_F, None, member_F)
    added = Added(None, None, member_F) if there == "none" else added
    of, columns = Format(half), columns_of(width)
    found, expected = interpret(f"{HALVING}:half_rows", rows_FD, columns, added, of), _half_rows(rows_FD, added, of)
    alike(found[0], expected[0], width, half)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)
    x_BD = torch.randn(5, width) * 37
    for inputs_BD in (x_BD, x_BD.bfloat16()):
        largest = torch.linalg.vector_norm(inputs_BD, torch.inf).float()
        found, expected = (
            interpret(f"{HALVING}:half_inputs", inputs_BD, columns, largest, of),
            _half_inputs(inputs_BD, largest, of),
        )
        alike(found[0], expected[0], width, half)
        assert torch.equal(found[1], expected[1])


def alike(found: Tensor, expected: Tensor, width: int, half: torch.dtype) -> None:
    rounded = {"rtol": 2 * ROUNDOFF[half], "atol": 1e-6}
    assert not found[:, width + EXTRA :].any()
    torch.testing.assert_close(found[:, :width].float(), expected[:, :width].float(), **rounded)
    if half == torch.float16:  # of what is lost by cutting off there is twice as much
        torch.testing.assert_close(found[:, width:].float(), expected[:, width:].float(), rtol=4e-3, atol=1e-5)
