"""Bounds are never below what they bound, and close enough above it to be of use."""

import pytest
import torch
from torch import Tensor

from sae_sweep.kernels import selection
from sae_sweep.kernels.cpu.screening import Bounds, highest_of, likely_cut, likely_largest, upper_bounds

TOKENS, LATENTS = 64, 96


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(kind: str, d: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [B, D], W [F, D] and offsets [F]: where rounding to bfloat16 does its worst."""
    x_BD, W_FD, offset_F = randn(TOKENS, d, seed=1), randn(LATENTS, d, seed=2), randn(LATENTS, seed=3)
    if kind == "one huge dimension":
        x_BD[:, 0] += 300
    elif kind == "huge tokens":
        x_BD[::7] *= 1e4
    elif kind == "offsets that cancel":
        offset_F = -(x_BD[0] @ W_FD.T) * (1 + 1e-4 * offset_F)
    elif kind == "rounded down":  # every product is lowered as much as it can be
        x_BD, W_FD = (x_BD.abs().bfloat16().double() * (1 + 0.999 * 2.0**-9) for x_BD in (x_BD, W_FD))
    elif kind == "nothing":
        x_BD = torch.zeros_like(x_BD)
    return x_BD, W_FD, offset_F


KINDS = ["normal", "one huge dimension", "huge tokens", "offsets that cancel", "rounded down", "nothing"]


def floats(bounds: Bounds) -> Tensor:
    return bounds.bits_BF.view(torch.bfloat16).double()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [3, 48, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_from_above(kind: str, d: int, dtype: torch.dtype) -> None:
    x_BD, W_FD, offset_F = (t.to(dtype).double() for t in inputs(kind, d))
    floor_F = 3 * randn(LATENTS, seed=4).to(dtype).double()
    for floor in (None, floor_F):
        z_BF = x_BD @ W_FD.T + offset_F - (0 if floor is None else floor)
        bounds = upper_bounds(
            x_BD.to(dtype), W_FD.to(dtype), offset_F.to(dtype), None if floor is None else floor.to(dtype)
        )
        assert (bounds.bits_BF[z_BF > 0] > 0).all()
        # Rounding to bfloat16 is all that may bring a bound below, and the slack all that it is above.
        error_BF = 2.0**-8 * (z_BF.abs() + bounds.slack_B.double()[:, None])
        assert (floats(bounds) >= z_BF - error_BF).all()
        assert (floats(bounds) <= z_BF + bounds.slack_B.double()[:, None] + error_BF).all()


@pytest.mark.parametrize("d", [48, 700])
def test_close_enough(d: int) -> None:
    """One pre-activation in twenty is above 0, and not twice as many have a bound that is."""
    x_BD, W_FD = randn(512, d, seed=1).float(), randn(512, d, seed=2).float()
    offset_F = torch.full((512,), -1.645 * d**0.5)
    z_BF = x_BD @ W_FD.T + offset_F
    assert (upper_bounds(x_BD, W_FD, offset_F).bits_BF > 0).sum() < 2 * (z_BF > 0).sum()


@pytest.mark.parametrize("counts", [(1, 1), (5, 40), (LATENTS - 60, 60)])
@pytest.mark.parametrize("kind", KINDS)
def test_none_of_the_largest_is_left_out(kind: str, counts: tuple[int, int]) -> None:
    """Of either of two parts of a row."""
    x_BD, W_FD, offset_F = inputs(kind, 48)
    widths = (LATENTS - 60, 60)
    offsets, column_N, bits_N = likely_largest(upper_bounds(x_BD, W_FD, offset_F), widths, counts)
    listed_BF = torch.sparse_csr_tensor(offsets, column_N, bits_N.double(), (TOKENS, LATENTS)).to_dense() > 0
    z_BF = x_BD @ W_FD.T + offset_F
    for listed, z, count in zip(listed_BF.split(widths, 1), z_BF.split(widths, 1), counts, strict=True):
        largest_BK = z.topk(count, dim=1).indices
        assert listed.gather(1, largest_BK)[z.gather(1, largest_BK) > 0].all()


def test_few_others_are_listed() -> None:
    """Also where rows that follow each other differ in size, so that the last one's cut says nothing of the next."""
    x_BD, W_FD, offset_F = randn(256, 64, seed=1), randn(1024, 64, seed=2), 0.1 * randn(1024, seed=3)
    x_BD[::3] *= 100
    x_BD[1::3] /= 100
    offsets = likely_largest(upper_bounds(x_BD, W_FD, offset_F), (1024,), (32,)).offsets
    assert offsets.diff().max() < 3 * 32
    assert offsets.diff().min() >= 32


def test_a_likely_cut_leaves_rather_more_than_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "SAMPLE", 2**12)
    bits_BF = randn(300, 700, seed=5).bfloat16().view(torch.int16)
    for count in (2_000, 20_000):
        cut = likely_cut(bits_BF, count)
        assert count < (bits_BF > cut).sum() < 2.5 * count
    assert likely_cut(bits_BF, 150_000) == 0  # more than are above 0
    assert highest_of(cut) > torch.tensor(cut, dtype=torch.int16).view(torch.bfloat16).item()
