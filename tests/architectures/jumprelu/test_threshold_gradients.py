"""Straight-through gradients of thresholds: on which side, in which unit, with which factor, and to whom."""

from dataclasses import replace

import pytest
import torch

from sae_sweep.architectures.jumprelu.facts import JumpReluConfig
from tests.saes.problems import TOKENS, VARIANCE, Problem, gradient, losses_of, problem

ROUTES = pytest.mark.parametrize("dense", [False, True])
EPS = 1.2
"""The bandwidth of the first member."""
DEEPMIND = ("jumprelu", "jumprelu_target_l0", "jumprelu_frequency")


def distances(made: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """z and theta of the first member, without gradient."""
    p = made.parameters[0]
    centre_D = 0 if made.kind == "jumprelu_anthropic" else p["b_dec"]
    return (made.x_BD - centre_D) @ p["W_enc"].T + p["b_enc"], p["log_threshold"].exp()


@ROUTES
@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("kind", ["jumprelu", "jumprelu_anthropic"])
def test_the_kernel_sees_both_sides_of_the_threshold(kind: str, side: int, dense: bool) -> None:
    """On activations the step would see the right half alone: below its threshold a latent is 0 whatever z is."""
    made = problem(kind)
    z, theta = distances(made)
    inside = ((z - theta).abs() < EPS / 2) & ((z - theta) * side > 0)
    token = inside.any(1).nonzero()[0].item()
    made.x_BD = made.x_BD[token : token + 1]
    losses, p = losses_of(made, 0, dense)
    assert losses.sparsity_M is not None
    found = gradient(losses.sparsity_M, p["log_threshold"])
    band = (z - theta).abs()[token] < EPS / 2
    assert torch.equal(found != 0, band)
    assert inside[token].any()
    assert (found <= 0).all()


@ROUTES
def test_l0_by_hand(dense: bool) -> None:
    """d L0 / d log theta = -theta / eps x how often z is in the band; nothing else feels the penalty."""
    made = problem("jumprelu")
    z, theta = distances(made)
    losses, p = losses_of(made, 0, dense)
    assert losses.sparsity_M is not None
    assert losses.sparsity_M.item() == pytest.approx(float((z > theta).sum()) / TOKENS)
    by_hand = -theta / EPS * ((z - theta).abs() < EPS / 2).sum(0) / TOKENS
    torch.testing.assert_close(gradient(losses.sparsity_M, p["log_threshold"]), by_hand, rtol=1e-12, atol=0)


@ROUTES
@pytest.mark.parametrize("kind", DEEPMIND)
def test_counting_penalties_train_thresholds_alone(kind: str, dense: bool) -> None:
    losses, p = losses_of(problem(kind), 0, dense)
    assert losses.sparsity_M is not None
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert gradient(losses.sparsity_M, p[name]).count_nonzero() == 0, name
    assert gradient(losses.sparsity_M, p["log_threshold"]).count_nonzero() > 0


@ROUTES
def test_target_l0_pulls_towards_its_target_from_both_sides(dense: bool) -> None:
    """Too many fire: thresholds must rise, so the gradient is negative; too few: positive; at the target: none."""
    made = problem("jumprelu_target_l0")
    z, theta = distances(made)
    l0 = float((z > theta).sum()) / TOKENS
    for target, sign in ((l0 / 2, -1), (2 * l0, 1), (l0, 0)):
        made.configs[0] = replace(made.configs[0], l0=target)
        losses, p = losses_of(made, 0, dense)
        assert losses.sparsity_M is not None
        assert losses.sparsity_M.item() == pytest.approx(VARIANCE * (l0 / target - 1) ** 2)
        assert float(gradient(losses.sparsity_M, p["log_threshold"]).sum().sign()) == sign


@ROUTES
def test_frequency_costs_a_latent_by_how_often_it_fires(dense: bool) -> None:
    """sum_i p_i (1 + p_i / omega): its slope is that of L0, times 1 + 2 p_i / omega for each latent."""
    made = problem("jumprelu_frequency")
    z, theta = distances(made)
    p_F = (z > theta).double().mean(0)
    losses, p = losses_of(made, 0, dense)
    assert losses.sparsity_M is not None
    assert losses.sparsity_M.item() == pytest.approx(float((p_F * (1 + p_F / 0.1)).sum()))
    of_l0 = -theta / EPS * ((z - theta).abs() < EPS / 2).double().mean(0)
    found = gradient(losses.sparsity_M, p["log_threshold"])
    torch.testing.assert_close(found, of_l0 * (1 + 2 * p_F / 0.1), rtol=1e-12, atol=0)


@ROUTES
@pytest.mark.parametrize("kind", ["jumprelu", "jumprelu_anthropic"])
def test_reconstruction_pulls_on_thresholds_with_both_thetas(kind: str, dense: bool) -> None:
    """-theta / eps is the definition's, and log_threshold brings another theta."""
    made = problem(kind)
    z, theta = distances(made)
    losses, p = losses_of(made, 0, dense)
    own = made.parameters[0]
    error = made.x_BD - (z * (z > theta)) @ own["W_dec"] - own["b_dec"]
    g_f = -2 / TOKENS * error @ own["W_dec"].T
    in_band = ((z - theta).abs() < EPS / 2).double()
    found = gradient(losses.reconstruction_M, p["log_threshold"])
    torch.testing.assert_close(found, -(theta**2) / EPS * (g_f * in_band).sum(0), rtol=1e-10, atol=1e-12)
    to_z = (z > theta).double() + (theta / EPS * in_band if kind == "jumprelu_anthropic" else 0)
    found = gradient(losses.reconstruction_M, p["b_enc"])
    torch.testing.assert_close(found, (g_f * to_z).sum(0), rtol=1e-10, atol=1e-12)


@ROUTES
@pytest.mark.parametrize("kind", DEEPMIND)
def test_the_bandwidth_is_in_the_members_own_unit(kind: str, dense: bool) -> None:
    """x -> c x with biases, thresholds and bandwidth times c: the same fires, and a penalty on counts is unmoved."""
    c, made = 28.0, problem(kind)
    other = rescaled(made, c, bandwidth=c)
    (losses, gradients), (losses_c, gradients_c) = made.gradients(dense), other.gradients(dense, c**2)
    assert torch.equal(losses.fired_F, losses_c.fired_F)
    assert losses.sparsity_M is not None
    assert losses_c.sparsity_M is not None
    torch.testing.assert_close(losses_c.sparsity_M, losses.sparsity_M, rtol=1e-12, atol=0)
    torch.testing.assert_close(losses_c.reconstruction_M, c**2 * losses.reconstruction_M, rtol=1e-12, atol=0)
    for own, theirs in zip(gradients, gradients_c, strict=True):
        for name, g in own.items():
            torch.testing.assert_close(theirs[name], g * (c if name.startswith("b_") else c**2), rtol=1e-10, atol=1e-9)
    left = rescaled(made, c, bandwidth=1.0).gradients(dense, c**2)[1]
    assert not torch.allclose(left[0]["log_threshold"], gradients_c[0]["log_threshold"], rtol=0.1)


def rescaled(made: Problem, c: float, bandwidth: float) -> Problem:
    parameters = [
        {name: t * c if name.startswith("b_") else t for name, t in p.items()}
        | {"log_threshold": p["log_threshold"] + torch.tensor(c, dtype=torch.float64).log()}
        for p in made.parameters
    ]
    configs = [replace(own, bandwidth=own.bandwidth * bandwidth) for own in jumprelus(made)]
    return replace(made, configs=configs, parameters=parameters, x_BD=c * made.x_BD)


def jumprelus(made: Problem) -> list[JumpReluConfig]:
    return [own for own in made.configs if isinstance(own, JumpReluConfig)]


@ROUTES
def test_anthropic_never_sees_b_dec_in_the_encoder(dense: bool) -> None:
    losses, p = losses_of(problem("jumprelu_anthropic"), 0, dense)
    for term_M in (losses.sparsity_M, losses.auxiliary_M):
        assert term_M is not None
        assert gradient(term_M, p["b_dec"]).count_nonzero() == 0
        for name in ("W_enc", "b_enc", "log_threshold", "W_dec"):
            assert gradient(term_M, p[name]).count_nonzero() > 0, name


@ROUTES
def test_what_lies_below_its_threshold_is_lifted_whether_in_the_band_or_not(dense: bool) -> None:
    """a sum_i ReLU(theta_i - z_i) ||W_dec,i||: each z below has the same slope, each above none."""
    made = problem("jumprelu_anthropic")
    z, theta = distances(made)
    losses, p = losses_of(made, 0, dense)
    assert losses.auxiliary_M is not None
    norm_F = made.parameters[0]["W_dec"].norm(dim=1)
    share_F = (z < theta).double().mean(0)
    torch.testing.assert_close(gradient(losses.auxiliary_M, p["b_enc"]), -0.2 * norm_F * share_F)
    torch.testing.assert_close(gradient(losses.auxiliary_M, p["log_threshold"]), 0.2 * theta * norm_F * share_F)
    below = 0.2 * ((theta - z).clamp(min=0) * norm_F).sum(1).mean()
    torch.testing.assert_close(losses.auxiliary_M[0], below)


@ROUTES
@pytest.mark.parametrize("kind", ["jumprelu", "jumprelu_anthropic"])
def test_a_latent_that_never_fires_can_be_brought_back_from_below(kind: str, dense: bool) -> None:
    """None fires, yet what is in the band has a gradient, and what is out of it has none by the reconstruction."""
    made = problem(kind, "none")
    z, theta = distances(made)
    in_band = ((z - theta).abs() < EPS / 2).any(0)
    losses, p = losses_of(made, 0, dense)
    assert losses.fired_F.sum() == 0
    assert torch.equal(gradient(losses.reconstruction_M, p["log_threshold"]) != 0, in_band)
    assert in_band.any()
