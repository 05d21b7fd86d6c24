"""Rows taken by their places, and sums at places, whose order is fixed: against torch's own, which add as they like."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sae_sweep.architectures.temporal.maths import contrastive, contrastive_among
from sae_sweep.kernels import sparse
from sae_sweep.saes.layout import Layout
from sae_sweep.saes.sparse_codes import SparseCodes
from sae_sweep.saes.taking import _Once, _Ordered
from tests.device.padded import padded

LAYOUT = Layout((5, 3), torch.device("cpu"))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("places", [[3, 0, 2], [1, 1, 4, 1, 0]])
def test_rows_and_their_gradients(places: list[int]) -> None:
    rows_FD, towards_KD = randn(6, 4).requires_grad_(), randn(len(places), 4, seed=1)
    index_K = torch.tensor(places)
    expected = torch.autograd.grad((rows_FD.index_select(0, index_K) * towards_KD).sum(), rows_FD)
    for function in (_Ordered, *((_Once,) if len(set(places)) == len(places) else ())):
        found_KD = function.apply(rows_FD, index_K)
        assert torch.equal(found_KD, rows_FD[index_K])
        torch.testing.assert_close(torch.autograd.grad((found_KD * towards_KD).sum(), rows_FD), expected)


def test_sums_at_places_by_hand() -> None:
    """In the order of the values: a large number takes what comes before it with it."""
    index_N, values_N = torch.tensor([2, 0, 2, 2, 0]), torch.tensor([1.0, 3.0, 1e8, -1e8, 4.0])
    assert sparse._sums_at(index_N, values_N, 4).tolist() == [7, 0, 0, 0]
    sums_R = torch.tensor([1.0, 1.0, 1.0])
    sparse.add_at(sums_R, index_N, values_N)
    assert sums_R.tolist() == [8, 1, 0]


def codes_of(support_BF: Tensor, spare: int) -> SparseCodes:
    """Codes with so much padding."""
    _, latent_N = support_BF.nonzero(as_tuple=True)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), support_BF.sum(1).cumsum(0)]).int()
    latent_N = torch.cat([latent_N, torch.full((spare,), LAYOUT.latents - 1)]).int()
    return SparseCodes(offsets, latent_N, LAYOUT, padded=spare > 0)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> list[tuple[SparseCodes, Tensor]]:
    """The same codes in lists of their length and in longer ones, with values."""
    z_BF = randn(7, LAYOUT.latents, seed=3)
    z_BF[2] = 0
    values_N = z_BF[z_BF > 0]
    padded(monkeypatch)
    return [(codes_of(z_BF > 0, n), torch.cat([values_N, torch.zeros(n)]).requires_grad_()) for n in (0, 4)]


def test_ranks_without_asking_for_a_length(both: list[tuple[SparseCodes, Tensor]]) -> None:
    W_dec, found = randn(LAYOUT.latents, 3, seed=4), list[tuple[Tensor, Tensor]]()
    for codes, values in both:
        parts, ranked = codes.ranked(values, [[1, 3, 5], [1, 3]])
        decoded_BGD = parts.decode(ranked, W_dec)
        (slopes_N,) = torch.autograd.grad((decoded_BGD * randn(*decoded_BGD.shape, seed=5)).sum(), values)
        found.append((decoded_BGD, slopes_N[: both[0][1].shape[0]]))
        assert decoded_BGD.shape == (7, 5, 3)
    torch.testing.assert_close(*found)


def test_dense_codes_without_asking_for_a_length(both: list[tuple[SparseCodes, Tensor]]) -> None:
    for latents in (slice(0, 2), slice(1, 5), slice(5, 8)):
        found: list[tuple[Tensor, Tensor]] = []
        for codes, values in both:
            f_Bf = codes.dense(values, latents)
            (slopes_N,) = torch.autograd.grad((f_Bf * randn(*f_Bf.shape, seed=6)).sum(), values)
            found.append((f_Bf, slopes_N[: both[0][1].shape[0]]))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("there", [[True, False, True, True, False], [True] * 5, [False] * 5])
def test_contrast_among_those_that_are_there(there: list[bool]) -> None:
    own_BH, other_BH = (functional.relu(randn(5, 6, seed=n)).requires_grad_() for n in (8, 9))
    there_B = torch.tensor(there)
    expected = contrastive(own_BH[there_B], other_BH[there_B])
    found = contrastive_among(own_BH, other_BH, there_B)
    torch.testing.assert_close(found, expected, check_dtype=False)
    slopes = [torch.autograd.grad(loss, (own_BH, other_BH)) for loss in (found, expected)]
    torch.testing.assert_close(*slopes)
