"""Where gradients may and may not flow: the traps of the papers' stop-gradients, term by term."""

from dataclasses import replace

import pytest
import torch

from tests.saes import reference, reference_topk
from tests.saes.problems import COEFFICIENTS, TOKENS, VARIANCE, D, Problem, gradient, losses_of, parameters_of, problem

ROUTES = pytest.mark.parametrize("dense", [False, True])
TOPK_KINDS = ("topk", "batchtopk", "matryoshka")
"""Those with nothing else that pulls on what does not fire."""


@ROUTES
@pytest.mark.parametrize("kind", ["gated", "gated_decoder_norm"])
def test_gated_reconstruction_reaches_W_gate_but_never_b_gate(kind: str, dense: bool) -> None:
    losses, p = losses_of(problem(kind), 0, dense)
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
@pytest.mark.parametrize("kind", TOPK_KINDS)
def test_auxk_models_the_frozen_residual_with_b_dec_in_it_once(kind: str, dense: bool) -> None:
    made = problem(kind, dead=True, **({"groups": 1} if kind == "matryoshka" else {}))  # else it is not alone
    losses, p = losses_of(made, 1, dense)
    q = reference.leaves(made.parameters[1])
    dead = made.dead[1]
    pre = (made.x_BD - q["b_dec"]) @ q["W_enc"].t() + q["b_enc"]
    keep = reference_topk.keep_largest if kind == "topk" else reference_topk.keep_largest_of_batch
    f = keep(torch.clamp(pre, min=0), 4)
    e = (made.x_BD - f @ q["W_dec"] - q["b_dec"]).detach()  # b_dec is not 0, and stands here once
    e_hat = torch.clamp(reference_topk.keep_largest(pre[:, dead], 3), min=0) @ q["W_dec"][dead]
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
@pytest.mark.parametrize("kind", ["bricken", "p_anneal"])
def test_bricken_pre_encoder_bias_has_both_its_gradients(kind: str, dense: bool) -> None:
    losses, p = losses_of(problem(kind), 0, dense)
    assert losses.sparsity_M is not None
    assert gradient(losses.sparsity_M, p["b_dec"]).count_nonzero() == D
    assert gradient(losses.sparsity_M, p["W_dec"]).count_nonzero() == 0


@ROUTES
@pytest.mark.parametrize("kind", TOPK_KINDS)
@pytest.mark.parametrize("positive", [0, 1, 2])
def test_topk_never_counts_a_negative_preactivation(positive: int, kind: str, dense: bool) -> None:
    """With fewer than k positive pre-activations, only those fire."""
    made = problem(kind)
    generator = torch.Generator().manual_seed(3)
    p = parameters_of(kind, 9, made.x_BD, "none", generator)
    p["b_enc"][:positive] += 1_000
    made = Problem(kind, made.configs[1:2], [p], made.x_BD, made.dead[1:2])
    losses, gradients = made.gradients(dense)
    assert losses.fired_F.tolist() == [TOKENS] * positive + [0] * (9 - positive)
    assert gradients[0]["W_enc"][positive:].count_nonzero() == 0
    assert gradients[0]["W_dec"][positive:].count_nonzero() == 0


@ROUTES
@pytest.mark.parametrize("kind", ["bricken", "april", "gated", "gated_decoder_norm"])
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


@ROUTES
def test_gated_decoder_norm_freezes_nothing_in_the_auxiliary_term(dense: bool) -> None:
    """Frozen there alone, while the penalty pulls on the decoder's norms, is what its authors warn of."""
    made = problem("gated_decoder_norm")
    losses, p = losses_of(made, 0, dense)
    own = made.parameters[0]
    via = ((made.x_BD - own["b_dec"]) @ own["W_enc"].T + own["b_gate"]).clamp(min=0)
    assert losses.auxiliary_M is not None
    assert losses.sparsity_M is not None
    pulled = -2 / TOKENS * via.T @ (made.x_BD - via @ own["W_dec"] - own["b_dec"])
    torch.testing.assert_close(gradient(losses.auxiliary_M, p["W_dec"]), pulled, rtol=1e-11, atol=1e-12)
    norms = via.sum(0)[:, None] / TOKENS * own["W_dec"] / own["W_dec"].norm(dim=1, keepdim=True)
    torch.testing.assert_close(gradient(losses.sparsity_M, p["W_dec"]), norms, rtol=1e-11, atol=1e-12)


@ROUTES
def test_an_annealed_penalty_pulls_hardest_on_the_smallest(dense: bool) -> None:
    """l1 s p f^(p - 1) for what fires, and nothing, not infinity, for what does not."""
    made = problem("p_anneal")
    losses, p = losses_of(made, 0, dense)
    own = made.parameters[0]
    f = ((made.x_BD - own["b_dec"]) @ own["W_enc"].T + own["b_enc"]).clamp(min=0)
    assert losses.sparsity_M is not None
    slopes = torch.where(f > 0, 1.3 * 0.6 * f**-0.4, 0).sum(0) / TOKENS
    torch.testing.assert_close(gradient(losses.sparsity_M, p["b_enc"]), slopes, rtol=1e-10, atol=1e-12)
    assert (f == 0).any()


@ROUTES
def test_inner_prefixes_send_no_gradient_to_outer_latents(dense: bool) -> None:
    """The first of three prefixes of 24 latents is 3, the second 9; all send one to what every prefix has."""
    made = problem("matryoshka")
    losses, p = losses_of(made, 0, dense)
    assert losses.auxiliary_M is not None  # the inner prefixes' errors: no latent is dead
    for name in ("W_enc", "W_dec", "b_enc"):
        found = gradient(losses.auxiliary_M, p[name])
        assert found[9:].count_nonzero() == 0, name
        assert found[:9].count_nonzero() > 0, name
        whole = gradient(losses.reconstruction_M, p[name])
        assert whole[9:].count_nonzero() > 0, name
    assert gradient(losses.auxiliary_M, p["b_dec"]).count_nonzero() == D


@ROUTES
def test_the_largest_latents_feel_every_budget_and_the_smallest_one_alone(dense: bool) -> None:
    """Of 12 latents a token: its largest is in the errors of 1, 2, 4, 8 and 12, its ninth in that of 12 alone."""
    made = problem("hierarchical_topk").alone(0)
    made.x_BD, made.parameters[0]["b_enc"] = made.x_BD[:1], made.parameters[0]["b_enc"] + 10  # all fire, and one token
    losses, p = losses_of(made, 0, dense)
    pre_F = (made.x_BD - made.parameters[0]["b_dec"]) @ made.parameters[0]["W_enc"].T + made.parameters[0]["b_enc"]
    order_F = pre_F[0].argsort(descending=True)
    assert losses.auxiliary_M is not None
    smaller, whole = (gradient(term, p["b_enc"]) for term in (losses.auxiliary_M, losses.reconstruction_M))
    assert (smaller[order_F] != 0).tolist() == [True] * 8 + [False] * 16
    assert (whole[order_F] != 0).tolist() == [True] * 12 + [False] * 12


@ROUTES
def test_the_nearest_rows_alone_are_pushed_apart(dense: bool) -> None:
    """By hand: of three rows at 0, 60 and 180 degrees the nearest cosines are 1/2, 1/2 and -1/2; no row's length is
    pulled on, and the encoder is not."""
    made = problem("ortsae", orthogonality=1.0, orthogonality_chunk=8).alone(2)
    p = {name: t[:3] if name != "b_dec" else t for name, t in made.parameters[0].items()}
    angles = torch.tensor([0.0, torch.pi / 3, torch.pi], dtype=torch.float64)
    p["W_dec"] = torch.zeros(3, D, dtype=torch.float64)
    p["W_dec"][:, 0], p["W_dec"][:, 1] = 2 * angles.cos(), 2 * angles.sin()
    made = Problem("ortsae", made.configs, [p], made.x_BD, [torch.zeros(3, dtype=torch.bool)])
    losses, leaves = losses_of(made, 0, dense)
    assert losses.auxiliary_M is not None
    torch.testing.assert_close(losses.auxiliary_M[0].item(), VARIANCE / 4)
    pulled = gradient(losses.auxiliary_M, leaves["W_dec"])
    assert (pulled * p["W_dec"]).sum(1).abs().max() < 1e-12
    assert pulled[0, 1] > 0 > pulled[2, 1], "downhill the first leaves the second, and the third comes nearer to it"
    assert gradient(losses.auxiliary_M, leaves["W_enc"]).count_nonzero() == 0


@ROUTES
def test_every_prefix_weighs_the_same(dense: bool) -> None:
    """With a silent dictionary each of the G errors is ||x - b_dec||^2: the sum is G of them, not their mean."""
    made = problem("matryoshka", "none")
    losses, _ = losses_of(made, 2, dense)
    alone = ((made.x_BD - made.parameters[2]["b_dec"]) ** 2).sum(1).mean()
    assert losses.auxiliary_M is not None
    torch.testing.assert_close(losses.reconstruction_M[0], alone)
    torch.testing.assert_close(losses.auxiliary_M[0], 3 * alone)


@ROUTES
@pytest.mark.parametrize("subtract", [False, True])
def test_a_learned_row_feels_its_own_tokens_alone(subtract: bool, dense: bool) -> None:
    """Without `subtract` by the error alone: -2 / B times its summed errors; no penalty reaches it."""
    made = problem("bricken").tokenized("learned", subtract).alone(1)
    made.parameters[0]["W_dec"] *= 0  # x_hat is b_dec: the encoder pulls on nothing
    losses, gradients = made.gradients(dense)
    row_VD = made.parameters[0]["lookup"]
    error_BD = made.x_BD - row_VD[made.token_B] - made.parameters[0]["b_dec"]
    sums = torch.zeros_like(row_VD).index_add_(0, made.token_B, error_BD)
    missing = set(range(len(row_VD))) - set(made.token_B.tolist())
    assert missing
    assert losses.sparsity_M is not None
    assert gradients[0]["lookup"][sorted(missing)].count_nonzero() == 0
    if not subtract:
        torch.testing.assert_close(gradients[0]["lookup"], -2 / TOKENS * sums)
    else:
        assert not torch.allclose(gradients[0]["lookup"], -2 / TOKENS * sums)
