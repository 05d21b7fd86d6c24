"""A folded member on raw activations is the trained one on c x, divided by c, with decoder rows at unit norm."""

import pytest
import torch
from torch import Tensor

from sae_sweep.saes.registry import maths_of
from tests.saes import reference
from tests.saes.problems import KINDS, Problem, problem, terms_of

SCALES = (1.0, 0.25, 13.0)
SUBTRACTS = {"bricken": True, "april": False, "gated": True, "topk": True}


def unit_rows_where_assumed(made: Problem) -> None:
    """TopK keeps its rows at unit norm and its folding relies on that; every other kind is given rows of any norm."""
    if made.kind == "topk":
        for p in made.parameters:
            p["W_dec"] /= p["W_dec"].norm(dim=1, keepdim=True)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("density", ["none", "half", "all"])
@pytest.mark.parametrize("kind", KINDS)
def test_folded_is_unfolded_in_raw_units(kind: str, density: str, scale: float) -> None:
    made = problem(kind, density)
    unit_rows_where_assumed(made)
    raw_BD = made.x_BD / scale  # so that the trained-on inputs are c x raw
    for config, p, dead in zip(made.configs, made.parameters, made.dead, strict=True):
        terms = terms_of(config, reference.leaves(p), made.x_BD, dead)
        sae = maths_of(config).fold(config, p, scale)
        norms_F = p["W_dec"].norm(dim=1)
        f_BF = sae.encode(raw_BD)
        torch.testing.assert_close(f_BF, terms.f_BF.detach() * norms_F / scale, rtol=1e-10, atol=1e-12)
        assert torch.equal(f_BF > 0, terms.f_BF > 0)
        torch.testing.assert_close(sae.decode(f_BF), terms.x_hat_BD.detach() / scale, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_folded_shapes_and_norms(kind: str) -> None:
    made = problem(kind)
    unit_rows_where_assumed(made)
    config, p = made.configs[0], made.parameters[0]
    before = {name: t.clone() for name, t in p.items()}
    sae = maths_of(config).fold(config, p, 2.0)
    width, d = p["W_dec"].shape
    assert (sae.d, sae.width, sae.subtract_b_dec) == (d, width, SUBTRACTS[kind])
    assert sae.tensors["W_enc"].shape == (d, width)
    assert sae.tensors["W_dec"].shape == (width, d)
    torch.testing.assert_close(sae.tensors["W_dec"].norm(dim=1), torch.ones(width, dtype=torch.float64))
    assert all(t.is_contiguous() for t in sae.tensors.values())
    assert all(torch.equal(p[name], t) for name, t in before.items())  # the member trains on


@pytest.mark.parametrize("kind", KINDS)
def test_folding_copies(kind: str) -> None:
    """A judged member must not change when training goes on."""
    made = problem(kind)
    sae = maths_of(made.configs[0]).fold(made.configs[0], made.parameters[0], 1.0)
    before = {name: t.clone() for name, t in sae.tensors.items()}
    for t in made.parameters[0].values():
        t.add_(1)
    assert all(torch.equal(sae.tensors[name], t) for name, t in before.items())


def test_a_threshold_is_strict() -> None:
    """A gate or pre-activation of exactly 0 does not fire."""
    one = torch.ones(1, 1, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    p: dict[str, Tensor] = {"W_enc": one, "W_dec": one, "b_dec": zero, "b_gate": zero, "b_mag": zero + 1, "r_mag": zero}
    made = problem("gated")
    sae = maths_of(made.configs[0]).fold(made.configs[0], p, 1.0)
    x_BD = torch.tensor([[-1.0], [0.0], [1.0]], dtype=torch.float64)
    assert sae.encode(x_BD).flatten().tolist() == [0, 0, 2]
