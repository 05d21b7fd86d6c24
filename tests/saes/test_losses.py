"""Loss terms and the gradient of every parameter are those of the papers' equations, on both routes."""

import pytest
import torch
from torch import Tensor

from sae_sweep.saes.base import Losses
from tests.saes.problems import COEFFICIENTS, DENSITIES, KINDS, Problem, problem

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
AUXILIARY = {"gated", "topk"}


def close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Norm-wise; what is 0 must be 0."""
    return bool((found.detach().double() - expected.detach()).norm() <= tolerance * expected.detach().norm())


def check_against_reference(made: Problem, dense: bool, tolerance: float) -> Losses:
    losses, gradients = made.gradients(dense)
    total_M = losses.total(torch.tensor(COEFFICIENTS, dtype=made.x_BD.dtype))
    start = 0
    for member, found in enumerate(gradients):
        terms, expected = made.expected(member)
        assert close(losses.reconstruction_M[member], terms.reconstruction, tolerance)
        assert close(total_M[member], terms.total(COEFFICIENTS[member]), tolerance)
        if losses.sparsity_M is not None:
            assert close(losses.sparsity_M[member], terms.sparsity, tolerance)
        if losses.auxiliary_M is not None:
            assert close(losses.auxiliary_M[member], terms.auxiliary, tolerance)
        width = len(terms.f_BF[0])
        assert torch.equal(losses.fired_F[start : start + width].double(), (terms.f_BF > 0).sum(0).double())
        start += width
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            assert gradient.shape == made.parameters[member][name].shape
            assert close(gradient, expected[name], tolerance), f"{name} of member {member}"
    return losses


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_terms_and_gradients_are_the_papers(kind: str, density: str, dense: bool, dtype: torch.dtype) -> None:
    losses = check_against_reference(problem(kind, density, dtype), dense, TOLERANCE[dtype])
    assert (losses.sparsity_M is None) == (kind == "topk")
    assert (losses.auxiliary_M is None) == (kind != "gated")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("density", DENSITIES)
def test_auxk_of_one_member_with_dead_latents(density: str, dense: bool, dtype: torch.dtype) -> None:
    losses = check_against_reference(problem("topk", density, dtype, dead=True), dense, TOLERANCE[dtype])
    assert losses.auxiliary_M is not None
    assert losses.auxiliary_M[[0, 2]].tolist() == [0, 0]
    assert losses.auxiliary_M[1] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_densities_are_what_they_are_called(kind: str) -> None:
    shares = {}
    for density in DENSITIES:
        made = problem(kind, density)
        fired = made.gradients(dense=False)[0].fired_F.sum() / made.x_BD.shape[0]
        shares[density] = float(fired) / sum(len(p["W_enc"]) for p in made.parameters)
    assert shares["none"] == 0
    assert shares["all"] == 1
    assert 0 < shares["rare"] < 0.005
    assert 0.2 < shares["half"] < 0.7


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("kind", KINDS)
def test_sparse_equals_dense(kind: str, density: str, dead: bool) -> None:
    made = problem(kind, density, dead=dead)
    sparse, dense = made.gradients(dense=False), made.gradients(dense=True)
    for name in ("reconstruction_M", "sparsity_M", "auxiliary_M", "fired_F"):
        torch.testing.assert_close(getattr(sparse[0], name), getattr(dense[0], name), rtol=1e-12, atol=1e-14)
    for own, other in zip(sparse[1], dense[1], strict=True):
        for name, gradient in own.items():
            torch.testing.assert_close(gradient, other[name], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_member_among_others_has_the_gradients_it_has_alone(kind: str, dense: bool) -> None:
    made = problem(kind, "half", dead=True)
    together = made.gradients(dense)[1]
    alone = Problem(kind, made.configs[:1], made.parameters[:1], made.x_BD, made.dead[:1]).gradients(dense)[1][0]
    for name, gradient in together[0].items():
        torch.testing.assert_close(gradient, alone[name], rtol=1e-12, atol=1e-14)
