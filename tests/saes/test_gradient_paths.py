"""Where gradients may and may not flow: the traps of the papers' stop-gradients, term by term."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sae_sweep.saes.base import Losses, Step
from sae_sweep.saes.layout import Layout
from sae_sweep.saes.registry import maths_of
from tests.saes import reference
from tests.saes.problems import COEFFICIENTS, TOKENS, VARIANCE, D, Problem, parameters_of, problem

ROUTES = pytest.mark.parametrize("dense", [False, True])
CPU = torch.device("cpu")


def losses_of(made: Problem, member: int, dense: bool) -> tuple[Losses, dict[str, Tensor]]:
    """One member's losses, and its parameters as leaves."""
    leaves = reference.leaves(made.parameters[member])
    leaves["b_dec"] = leaves["b_dec"].detach()[None].requires_grad_()
    config = made.configs[member]
    step = Step((config,), Layout((len(leaves["W_enc"]),), CPU), dense, made.dead[member], VARIANCE)
    return maths_of(config).losses(leaves, made.x_BD.double(), step), leaves


def gradient(total: Tensor, leaf: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(total.sum(), [leaf], allow_unused=True, retain_graph=True)
    return torch.zeros_like(leaf) if found is None else found


@ROUTES
def test_gated_reconstruction_reaches_W_gate_but_never_b_gate(dense: bool) -> None:
    losses, p = losses_of(problem("gated"), 0, dense)
    bare = replace(losses, auxiliary_M=None).total(torch.zeros(1, dtype=torch.float64))
    assert gradient(bare, p["b_gate"]).count_nonzero() == 0
    for name in ("W_enc", "r_mag", "b_mag", "W_dec", "b_dec"):
        assert gradient(bare, p[name]).count_nonzero() > 0, name


@ROUTES
def test_gated_penalty_and_auxiliary_reach_the_gate_alone(dense: bool) -> None:
    losses, p = losses_of(problem("gated"), 0, dense)
    for term_M in (losses.sparsity_M, losses.auxiliary_M):
        assert term_M is not None
        for name in ("W_dec", "r_mag", "b_mag"):
            assert gradient(term_M, p[name]).count_nonzero() == 0, name
        for name in ("W_enc", "b_gate"):
            assert gradient(term_M, p[name]).count_nonzero() > 0, name


@ROUTES
def test_gated_auxiliary_freezes_b_dec_in_the_decoder_but_not_in_the_encoder(dense: bool) -> None:
    made = problem("gated")
    losses, p = losses_of(made, 0, dense)
    q = reference.leaves(made.parameters[0])
    b_dec = q["b_dec"].detach()
    pi = (made.x_BD - q["b_dec"]) @ q["W_enc"].t() + q["b_gate"]
    error_BD = made.x_BD - (torch.clamp(pi, min=0) @ q["W_dec"].detach() + b_dec)
    # By hand: d/d b_dec of ||error||^2 through pi alone is 2/B sum_b W_enc^T (1[pi > 0] * (W_dec error)).
    through_encoder = 2 / TOKENS * ((error_BD @ q["W_dec"].t()) * (pi > 0)).sum(0) @ q["W_enc"]
    assert losses.auxiliary_M is not None
    found = gradient(losses.auxiliary_M, p["b_dec"])[0]
    torch.testing.assert_close(found, through_encoder.detach(), rtol=1e-11, atol=1e-12)
    assert found.norm() > 1e-3


@ROUTES
def test_auxk_models_the_frozen_residual_with_b_dec_in_it_once(dense: bool) -> None:
    made = problem("topk", dead=True)
    losses, p = losses_of(made, 1, dense)
    q = reference.leaves(made.parameters[1])
    dead = made.dead[1]
    f = torch.clamp(reference.keep_largest((made.x_BD - q["b_dec"]) @ q["W_enc"].t() + q["b_enc"], 4), min=0)
    e = (made.x_BD - f @ q["W_dec"] - q["b_dec"]).detach()  # b_dec is not 0, and stands here once
    pre = ((made.x_BD - q["b_dec"]) @ q["W_enc"].t() + q["b_enc"])[:, dead]
    e_hat = torch.clamp(reference.keep_largest(pre, 3), min=0) @ q["W_dec"][dead]
    expected = VARIANCE / 32 * ((e - e_hat) ** 2).sum() / ((e - e.mean(0)) ** 2).sum()
    assert q["b_dec"].norm() > 0.5
    assert losses.auxiliary_M is not None
    torch.testing.assert_close(losses.auxiliary_M[0], expected, rtol=1e-12, atol=0)
    alive = ~dead
    for name in ("W_enc", "W_dec", "b_enc"):
        assert gradient(losses.auxiliary_M, p[name])[alive].count_nonzero() == 0, name
        assert gradient(losses.auxiliary_M, p[name])[dead].count_nonzero() > 0, name


@ROUTES
def test_april_penalty_pulls_on_decoder_norms(dense: bool) -> None:
    losses, p = losses_of(problem("april"), 0, dense)
    q = reference.leaves(problem("april").parameters[0])
    f = torch.clamp(problem("april").x_BD @ q["W_enc"].t() + q["b_enc"], min=0)
    by_hand = f.sum(0)[:, None] / TOKENS * q["W_dec"] / q["W_dec"].norm(dim=1, keepdim=True)
    assert losses.sparsity_M is not None
    found = gradient(losses.sparsity_M, p["W_dec"])
    torch.testing.assert_close(found, by_hand.detach(), rtol=1e-11, atol=1e-13)
    assert gradient(losses.sparsity_M, p["b_dec"]).count_nonzero() == 0


@ROUTES
def test_bricken_pre_encoder_bias_has_both_its_gradients(dense: bool) -> None:
    losses, p = losses_of(problem("bricken"), 0, dense)
    assert losses.sparsity_M is not None
    assert gradient(losses.sparsity_M, p["b_dec"]).count_nonzero() == D
    assert gradient(losses.sparsity_M, p["W_dec"]).count_nonzero() == 0


@ROUTES
@pytest.mark.parametrize("positive", [0, 1, 2])
def test_topk_never_counts_a_negative_preactivation(positive: int, dense: bool) -> None:
    """With fewer than k positive pre-activations, only those fire."""
    made = problem("topk")
    generator = torch.Generator().manual_seed(3)
    p = parameters_of("topk", 9, made.x_BD, "none", generator)
    p["b_enc"][:positive] += 1_000
    made = Problem("topk", made.configs[1:2], [p], made.x_BD, made.dead[1:2])
    losses, gradients = made.gradients(dense)
    assert losses.fired_F.tolist() == [TOKENS] * positive + [0] * (9 - positive)
    assert gradients[0]["W_enc"][positive:].count_nonzero() == 0
    assert gradients[0]["W_dec"][positive:].count_nonzero() == 0


@ROUTES
@pytest.mark.parametrize("kind", ["bricken", "april"])
def test_scaling_inputs_and_coefficient_together_changes_nothing_but_the_unit(kind: str, dense: bool) -> None:
    """x -> c x with biases -> c biases and l1 -> c l1: the same latents fire, and the loss is c^2 as large."""
    c = 3.5
    made = problem(kind)
    scaled = [{name: t * (c if name.startswith("b_") else 1) for name, t in p.items()} for p in made.parameters]
    other = Problem(kind, made.configs, scaled, c * made.x_BD, made.dead)
    (losses, gradients), (losses_c, gradients_c) = made.gradients(dense), other.gradients(dense, c)
    assert torch.equal(losses.fired_F, losses_c.fired_F)
    l1_M = torch.tensor(COEFFICIENTS, dtype=torch.float64)
    torch.testing.assert_close(losses_c.total(c * l1_M), c**2 * losses.total(l1_M), rtol=1e-12, atol=0)
    for own, theirs in zip(gradients, gradients_c, strict=True):
        for name, g in own.items():
            torch.testing.assert_close(theirs[name], g * (c if name.startswith("b_") else c**2), rtol=1e-10, atol=1e-11)
