"""Every encoder makes the choice that the whole product gives."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sae_sweep.kernels import entries
from sae_sweep.kernels.cpu import products
from sae_sweep.kernels.entries import Room
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.encoders import pieces
from sae_sweep.saes.encoders import screened as screened_encoder
from sae_sweep.saes.encoders.base import Encoder
from sae_sweep.saes.encoders.halved import HalvedEncoder
from sae_sweep.saes.encoders.pieces import PiecewiseEncoder
from sae_sweep.saes.encoders.screened import ScreenedEncoder
from sae_sweep.saes.encoders.whole import WholeEncoder
from sae_sweep.saes.layout import Layout
from sae_sweep.saes.sparse_codes import SparseCodes

B, D, WIDTHS = 50, 40, (64, 24, 40)
LAYOUT = Layout(WIDTHS, torch.device("cpu"))


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(kind: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    latents = sum(WIDTHS)
    x_BD, W_enc = randn(B, D, seed=1), randn(latents, D, seed=2) / D**0.5
    bias_F, b_pre_MD = 0.3 * randn(latents, seed=3), 0.1 * randn(len(WIDTHS), D, seed=4)
    if kind == "ties":  # two latents in three are the same one, and pre-activations are exact
        x_BD, W_enc = x_BD.round(), (4 * W_enc).round() / 4
        W_enc[::3], W_enc[1::3] = W_enc[2].clone(), W_enc[2].clone()
        bias_F, b_pre_MD = bias_F.round(), b_pre_MD.round()
    elif kind == "none":
        bias_F = bias_F - 100
    elif kind == "all":
        bias_F = bias_F + 100
    elif kind == "a few tokens":
        x_BD[5:], bias_F = 0.1 * x_BD[5:], bias_F - 2
    return x_BD, W_enc, bias_F, b_pre_MD


@pytest.fixture(params=["pieces", "screened", "halved float16", "halved bfloat16"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Encoder]:
    """The encoder in question, of some inputs; pieces are small, and the last is smaller."""
    monkeypatch.setattr(products, "PIECE_ROWS", 16)
    if request.param.startswith("halved"):
        return lambda kind: HalvedEncoder(*inputs(kind), LAYOUT, roomy(getattr(torch, request.param.split()[1])))
    of = ScreenedEncoder if request.param == "screened" else PiecewiseEncoder
    return lambda kind: of(*inputs(kind), LAYOUT)


def roomy(half: torch.dtype) -> Room:
    """Room for everything."""
    return Room(B * sum(WIDTHS), torch.tensor(False), half)


def whole(kind: str) -> WholeEncoder:
    return WholeEncoder(*inputs(kind), LAYOUT)


def matrix(found: tuple[Codes, Tensor], positive: bool = False) -> Tensor:
    """Values at their places, NaN elsewhere."""
    codes, values = found
    assert isinstance(codes, SparseCodes)
    values_BF = torch.full((B, sum(WIDTHS)), torch.nan, dtype=torch.float64)
    real = int(codes.token_offsets[-1])
    values_BF[codes.token_N[:real], codes.latent_N[:real]] = values.detach()[:real]
    assert not values[real:].any()
    return torch.where(values_BF > 0, values_BF, torch.nan) if positive else values_BF


def same(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.isnan(), second.isnan()) and torch.allclose(first.nan_to_num(), second.nan_to_num())


KINDS = ["normal", "none", "all", "a few tokens"]


@pytest.mark.parametrize("kind", [*KINDS, "ties"])
@pytest.mark.parametrize("floor", [None, 0.7, -0.4])
def test_above(kind: str, floor: float | None, encoder: Callable[[str], Encoder]) -> None:
    floor_F = None if floor is None else floor + 0.1 * randn(sum(WIDTHS), seed=5)
    found = matrix(encoder(kind).above(floor_F))
    assert same(matrix(whole(kind).above(floor_F)), found)
    x_BD, W_enc, bias_F, b_pre_MD = inputs(kind)
    own = LAYOUT.slices[1]
    z_BF = (x_BD - b_pre_MD[1]) @ W_enc[own].T + bias_F[own]
    expected_BF = torch.where(z_BF > (0 if floor_F is None else floor_F[own]), z_BF, torch.nan)
    assert same(found[:, own], expected_BF)


@pytest.mark.parametrize("counts", [(1, 1, 1), (7, 3, 20), WIDTHS])
@pytest.mark.parametrize("kind", KINDS)
def test_largest_of_rows(kind: str, counts: tuple[int, ...], encoder: Callable[[str], Encoder]) -> None:
    found = matrix(encoder(kind).largest_of_rows(counts))
    assert same(matrix(whole(kind).largest_of_rows(counts), positive=True), found)
    for own, count in zip(LAYOUT.slices, counts, strict=True):
        assert (~found[:, own].isnan()).sum(1).amax() <= count


def test_ties_in_a_row_are_cut_at_the_count(encoder: Callable[[str], Encoder]) -> None:
    """Which of equal ones are taken is open; how many and how large is not."""
    counts = (7, 3, 20)
    found = [one.largest_of_rows(counts) for one in (whole("ties"), encoder("ties"))]
    for own in LAYOUT.slices:
        taken = [matrix(each, positive=True)[:, own].nan_to_num().sort(dim=1).values for each in found]
        assert torch.equal(*taken)


@pytest.mark.parametrize(
    ("counts", "misled"),
    [
        ((1, 1, 1), False),
        ((100, 30, 700), False),
        (tuple(B * width for width in WIDTHS), False),
        ((100, 30, 700), True),
    ],
)
@pytest.mark.parametrize("kind", [*KINDS, "ties"])
def test_largest_of_all(
    kind: str,
    counts: tuple[int, ...],
    misled: bool,
    encoder: Callable[[str], Encoder],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if misled:  # a guessed cut that is too high must be noticed
        guess = torch.tensor(1.5).bfloat16().view(torch.int16).item()
        monkeypatch.setattr(screened_encoder, "likely_cut", lambda bits_BF, count: guess)
        monkeypatch.setattr(pieces, "sampled_cut", lambda flat, count: torch.tensor(1.5, dtype=flat.dtype))
    found = encoder(kind).largest_of_all(counts)
    assert same(matrix(whole(kind).largest_of_all(counts)), matrix(found))


@pytest.mark.parametrize("kind", KINDS)
def test_more_entries_than_narrow_integers_count(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = matrix(whole(kind).above())
    monkeypatch.setattr(products, "PIECE_ROWS", 16)
    monkeypatch.setattr(entries, "NARROW", 100)
    codes, z = PiecewiseEncoder(*inputs(kind), LAYOUT).above()
    assert isinstance(codes, SparseCodes)
    assert codes.latent_N.dtype == (torch.int64 if len(z) > 100 else torch.int32)
    assert same(expected, matrix((codes, z)))
