"""Crosscoders: one code over several sites, against Lindsey et al. 2024's sums over sites written out.

The reference keeps one encoder and one decoder per site, as the paper does; our code has them end to end.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sae_sweep.architectures.maths import maths_of
from sae_sweep.saes.bank import Bank, Batch, Chunk
from sae_sweep.saes.spaces import Spaces
from tests.saes import reference
from tests.saes.kinds import KINDS, NO_PRE_BIAS, TOPK_KINDS
from tests.saes.problems import (
    CLOCKS,
    COEFFICIENTS,
    EXPONENTS,
    SCALES,
    TOKENS,
    VARIANCE,
    D,
    Problem,
    problem,
    terms_of,
)
from tests.saes.reference import Terms, Weights, mean_square
from tests.saes.test_losses import close

SITES = 3
SPACES = Spaces(sites=SITES)
WEIGHTED = ("bricken", "april", "gated", "gated_decoder_norm", "p_anneal", "jumprelu_anthropic")
"""The kinds whose penalty is of the size of activations, so that decoder norms are in it."""


def crosscoders(kind: str, dead: bool = False) -> Problem:
    """Three members of three sites of width D, whose latents fire about as often as those of the problem."""
    made = problem(kind, dead=dead)
    generator = torch.Generator().manual_seed(KINDS.index(kind) + 90)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x_BD = torch.cat([made.x_BD, randn(TOKENS, 2 * D)], dim=1)
    parameters = []
    for p in made.parameters:
        width = len(p["W_enc"])
        own = {**p, "W_enc": torch.cat([p["W_enc"], 0.2 * randn(width, 2 * D)], dim=1)}
        own |= {"W_dec": 0.4 * randn(width, SITES * D), "b_dec": 0.7 * randn(SITES * D)}
        if kind not in NO_PRE_BIAS:
            shift_F = p["W_enc"] @ p["b_dec"]
            for name, slope in (("b_enc", 1.0), ("b_gate", 1.0), ("b_mag", p.get("r_mag", shift_F).exp())):
                if name in own:
                    own[name] = own[name] - slope * shift_F
        parameters.append(own)
    return replace(made, parameters=parameters, x_BD=x_BD)


def by_sites(made: Problem, member: int, p: Weights) -> Terms:
    """The terms with sums over sites: f of sum_l W_enc^l a^l, sum_l ||a^l - a_hat^l||^2, f sum_l ||W_dec^l||.

    The codes are those of the member's own autoencoder at a single site whose input is 1-of-sums: an identity over
    the pre-activations' space stands in for the encoder, so that the paper's rule is applied to the sums themselves.
    """
    a = made.x_BD.split(D, dim=1)
    W_enc, W_dec, b_dec = p["W_enc"].split(D, dim=1), p["W_dec"].split(D, dim=1), p["b_dec"].split(D)
    sums_BF = sum(a_l @ W_l.T for a_l, W_l in zip(a, W_enc, strict=True))
    norms_F = sum(W_l.square().sum(1).sqrt() for W_l in W_dec)
    width = len(p["W_enc"])
    if made.kind == "gated":
        norms_F = norms_F.detach()
    # An autoencoder that reads the sums as they are, and gives for each latent all sites' rows.
    eye = torch.eye(width, dtype=torch.float64)
    plain = {
        **{name: w for name, w in p.items() if name not in ("W_enc", "W_dec", "b_dec")},
        "W_enc": torch.cat([eye, torch.zeros(width, SITES * D, dtype=torch.float64)], dim=1),
        "W_dec": torch.cat([torch.zeros(width, width, dtype=torch.float64), *W_dec], dim=1),
        "b_dec": torch.cat([torch.zeros(width, dtype=torch.float64), *b_dec]),
    }
    x_BD = torch.cat([sums_BF, torch.zeros_like(made.x_BD)], dim=1)
    target_BD = torch.cat([torch.zeros(TOKENS, width, dtype=torch.float64), made.x_BD], dim=1)
    terms = terms_of(made.configs[member], plain, x_BD, made.dead[member], member, target_BD)
    reconstruction = sum(
        mean_square(a_l - (terms.f_BF @ W_l + b_l)) for a_l, W_l, b_l in zip(a, W_dec, b_dec, strict=True)
    )
    torch.testing.assert_close(terms.reconstruction, reconstruction)
    if made.kind not in WEIGHTED:
        return terms
    # The same rule on weights whose single norm is the sum over sites has the penalty.
    lengths = {**plain, "W_dec": torch.diag(norms_F)}
    lengths |= {"W_enc": eye, "b_dec": torch.zeros(width, dtype=torch.float64)}
    weighted = terms_of(made.configs[member], lengths, sums_BF, made.dead[member], member, sums_BF)
    sparsity = weighted.sparsity
    auxiliary = terms.auxiliary
    if made.kind == "bricken":
        sparsity = (terms.f_BF * norms_F).sum(1).mean()
    elif made.kind == "p_anneal":
        exponent, scale = EXPONENTS[member], SCALES[member]
        sparsity = scale * reference.lp(terms.f_BF * norms_F, exponent)
    elif made.kind == "gated":
        gate_BF = torch.clamp(sums_BF + p["b_gate"], min=0)
        sparsity = (gate_BF * norms_F).sum(1).mean()
    elif made.kind == "jumprelu_anthropic":
        auxiliary = weighted.auxiliary
    return replace(terms, sparsity=sparsity, auxiliary=auxiliary)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients(kind: str, dense: bool) -> None:
    made = crosscoders(kind, dead=kind in TOPK_KINDS)
    buffers = [made.buffers(member) for member in range(len(made.configs))]
    bank = Bank(maths_of(made.configs[0]), made.configs, made.parameters, buffers, SPACES)
    chunk, batch = Chunk(0, len(made.configs), dense), Batch(made.x_BD, made.token_B)
    losses, gradients = bank.gradients(
        batch, chunk, made.coefficient_M, torch.cat(made.dead), VARIANCE, CLOCKS[: len(made.configs)]
    )
    total_M = losses.total(made.coefficient_M)
    for member, own in enumerate(gradients):
        p = reference.leaves(made.parameters[member])
        terms = by_sites(made, member, p)
        expected = reference.gradients(p, terms.total(COEFFICIENTS[member]))
        assert close(losses.reconstruction_M[member], terms.reconstruction, 1e-10)
        assert close(total_M[member], terms.total(COEFFICIENTS[member]), 1e-10)
        for name, gradient in own.items():
            assert float(gradient.norm()) > 0, name
            assert close(gradient, expected[name], 1e-10), name


@pytest.mark.parametrize("kind", KINDS)
def test_folded_is_unfolded_at_every_scale(kind: str) -> None:
    """Each site has its own scale; codes stay as they were trained."""
    made = crosscoders(kind)
    if kind in TOPK_KINDS:
        for p in made.parameters:
            p["W_dec"] /= p["W_dec"].norm(dim=1, keepdim=True)
    scale_D = torch.tensor([0.5, 3.0, 11.0], dtype=torch.float64).repeat_interleave(D)
    mean_D = torch.linspace(-3, 5, SITES * D, dtype=torch.float64)
    buffers = [made.buffers(member) for member in range(len(made.configs))]
    bank = Bank(maths_of(made.configs[0]), made.configs, made.parameters, buffers, SPACES)
    raw_BD = made.x_BD / scale_D + mean_D
    for member in range(len(made.configs)):
        trained = bank.fold(member, 1.0)
        sae = trained.scaled(scale_D).about(mean_D)
        assert (sae.sites, sae.subtract_b_dec) == (SITES, False)
        codes_BF = trained.encode(made.x_BD)
        torch.testing.assert_close(sae.encode(raw_BD), codes_BF, rtol=1e-10, atol=1e-10)
        hat_BD = trained.decode(codes_BF) / scale_D + mean_D
        torch.testing.assert_close(sae.decode(codes_BF), hat_BD, rtol=1e-10, atol=1e-10)
        per_site = sae.tensors["W_dec"].unflatten(1, (SITES, D)).norm(dim=2)
        torch.testing.assert_close(sae.decoder_norms, per_site.sum(1))
