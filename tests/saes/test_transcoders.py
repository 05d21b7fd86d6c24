"""Transcoders and skips: losses, gradients and folded forms are those of dense equations, for every activation rule.

The reference is the papers' autoencoders themselves: a transcoder from x to y is an autoencoder of [x, y] whose encoder
is blind to y and whose decoder is silent on x. It never sees what our code does for transcoders.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sae_sweep.architectures.maths import maths_of
from sae_sweep.saes.bank import Bank, Batch, Chunk
from sae_sweep.saes.base import Losses, Parameters
from sae_sweep.saes.inference import Units
from sae_sweep.saes.initial import Start
from sae_sweep.saes.spaces import TRANSCODER
from tests.saes import reference
from tests.saes.kinds import BATCH_KINDS, KINDS, NO_PRE_BIAS, TOPK_KINDS, config
from tests.saes.problems import CLOCKS, COEFFICIENTS, THRESHOLDS, TOKENS, VARIANCE, D, Problem, problem, terms_of
from tests.saes.reference import Terms, Weights
from tests.saes.test_losses import close

D_OUT = 5
TARGET_SCALE, READS = 0.3, Units(2.5, torch.linspace(-3, 5, D, dtype=torch.float64))
TARGET_MEAN = torch.linspace(1, 4, D_OUT, dtype=torch.float64)


def transcoders(kind: str, skip: bool, dead: bool = False) -> tuple[Problem, Tensor]:
    """Three members that read [D] and give [D_OUT], firing as often as those of the problem; and their targets."""
    made = problem(kind, dead=dead)
    generator = torch.Generator().manual_seed(KINDS.index(kind) + 50)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    parameters = []
    for p in made.parameters:
        W_dec = 0.4 * randn(len(p["W_enc"]), D_OUT)
        if kind in TOPK_KINDS:  # they fold rows of unit norm only
            W_dec /= W_dec.norm(dim=1, keepdim=True)
        own = {**p, "W_dec": W_dec, "b_dec": 0.7 * randn(D_OUT)}
        if kind not in NO_PRE_BIAS:
            shift_F = p["W_enc"] @ p["b_dec"]
            for name, slope in (("b_enc", 1.0), ("b_gate", 1.0), ("b_mag", p.get("r_mag", shift_F).exp())):
                if name in own:
                    own[name] = own[name] - slope * shift_F
        parameters.append(own | ({"W_skip": 0.3 * randn(D_OUT, D)} if skip else {}))
    configs = [replace(c, skip=skip) for c in made.configs]
    return replace(made, configs=configs, parameters=parameters), randn(TOKENS, D_OUT) + 0.3


def bank_of(made: Problem) -> Bank:
    buffers = [made.buffers(member) for member in range(len(made.configs))]
    return Bank(maths_of(made.configs[0]), made.configs, made.parameters, buffers, TRANSCODER)


def found(made: Problem, y_BD: Tensor, dense: bool) -> tuple[Losses, list[Parameters]]:
    chunk, batch = Chunk(0, len(made.configs), dense), Batch(made.x_BD, made.token_B, y_BD)
    clocks = CLOCKS[: len(made.configs)]
    return bank_of(made).gradients(batch, chunk, made.coefficient_M, torch.cat(made.dead), VARIANCE, clocks)


def in_joint_space(made: Problem, member: int, p: Weights, y_BD: Tensor) -> Terms:
    joint = {
        **{name: w for name, w in p.items() if name != "W_skip"},
        "W_enc": torch.cat([p["W_enc"], torch.zeros(len(p["W_enc"]), D_OUT, dtype=torch.float64)], dim=1),
        "W_dec": torch.cat([torch.zeros(len(p["W_dec"]), D, dtype=torch.float64), p["W_dec"]], dim=1),
        "b_dec": torch.cat([torch.zeros(D, dtype=torch.float64), p["b_dec"]]),
    }
    rest_BD = y_BD - made.x_BD @ p["W_skip"].T if "W_skip" in p else y_BD
    x_BD = torch.cat([made.x_BD, torch.zeros_like(y_BD)], dim=1)
    target_BD = torch.cat([torch.zeros_like(made.x_BD), rest_BD], dim=1)
    return terms_of(made.configs[member], joint, x_BD, made.dead[member], member, target_BD)


@pytest.mark.parametrize(("skip", "dense"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients(kind: str, skip: bool, dense: bool) -> None:
    made, y_BD = transcoders(kind, skip, dead=kind in TOPK_KINDS)
    losses, gradients = found(made, y_BD, dense)
    total_M = losses.total(made.coefficient_M)
    for member, own in enumerate(gradients):
        p = reference.leaves(made.parameters[member])
        terms = in_joint_space(made, member, p, y_BD)
        expected = reference.gradients(p, terms.total(COEFFICIENTS[member]))
        assert close(losses.reconstruction_M[member], terms.reconstruction, 1e-10)
        assert close(total_M[member], terms.total(COEFFICIENTS[member]), 1e-10)
        assert own.keys() == expected.keys()
        for name, gradient in own.items():
            assert gradient.shape == made.parameters[member][name].shape
            assert float(gradient.norm()) > 0, name
            assert close(gradient, expected[name], 1e-10), name


def test_a_skip_transcoder_in_full() -> None:
    """Paulo et al. 2025 with a ReLU, written out: no bias before the encoder, W_skip x beside the latents."""
    made, y_BD = transcoders("bricken", skip=True)
    losses, gradients = found(made, y_BD, dense=False)
    for member, own in enumerate(gradients):
        p = reference.leaves(made.parameters[member])
        f_BF = torch.relu(made.x_BD @ p["W_enc"].T + p["b_enc"])
        error_BD = y_BD - (f_BF @ p["W_dec"] + made.x_BD @ p["W_skip"].T + p["b_dec"])
        reconstruction = (error_BD**2).sum(1).mean()
        expected = reference.gradients(p, reconstruction + COEFFICIENTS[member] * f_BF.sum(1).mean())
        assert close(losses.reconstruction_M[member], reconstruction, 1e-12)
        for name, gradient in own.items():
            assert close(gradient, expected[name], 1e-10), name


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_folded_is_unfolded_in_raw_units(kind: str, skip: bool) -> None:
    """W_skip and W_enc times c_in / c_out, biases over c_out, both means in the biases."""
    made, y_BD = transcoders(kind, skip)
    raw_BD, bank = made.x_BD / READS.scale + READS.mean_D, bank_of(made)
    for member, p in enumerate(made.parameters):
        terms = in_joint_space(made, member, p, y_BD)
        f_BF = terms.f_BF
        if kind in BATCH_KINDS:
            pre_BF = made.x_BD @ p["W_enc"].T + p["b_enc"]
            f_BF = pre_BF * (pre_BF > THRESHOLDS[member])
        y_hat_BD = f_BF @ p["W_dec"] + p["b_dec"] + (made.x_BD @ p["W_skip"].T if skip else 0)
        sae = bank.fold(member, TARGET_SCALE, TARGET_MEAN, READS)
        assert (sae.d, sae.d_out, sae.subtract_b_dec, sae.transcodes) == (D, D_OUT, False, True)
        for form in (sae, sae.as_saved()):
            codes_BF = form.encode(raw_BD)
            assert torch.equal(codes_BF > 0, f_BF > 0)
            raw_BF = f_BF * p["W_dec"].norm(dim=1) / TARGET_SCALE
            torch.testing.assert_close(codes_BF, raw_BF, rtol=1e-10, atol=1e-10)
            decoded_BD = form.decode(codes_BF, None, raw_BD)
            torch.testing.assert_close(decoded_BD, y_hat_BD / TARGET_SCALE + TARGET_MEAN, rtol=1e-10, atol=1e-10)


def test_a_skip_asks_for_inputs() -> None:
    sae = bank_of(transcoders("topk", skip=True)[0]).fold(0, 1.0)
    with pytest.raises(ValueError, match="needs its inputs"):
        sae.decode(torch.zeros(2, sae.width, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_it_starts_in_both_spaces(kind: str) -> None:
    """Encoder rows in the space that is read, none of them a decoder row; decoder and b_dec in the other."""
    generator = torch.Generator().manual_seed(0)
    x_ND, y_ND = torch.randn(300, D, generator=generator), 2 + torch.randn(300, D_OUT, generator=generator)
    start = Start(x_ND, y_ND.mean(0), TRANSCODER, y_ND)
    for encoder_init, factor in (("transpose", 1.0), ("scaled_transpose", 14 / 24), ("divided_transpose", 7 / 24)):
        made = config(kind, encoder_init=encoder_init, decoder_init="data")
        p = maths_of(made).initialise(made, start, 24, torch.Generator().manual_seed(1))
        assert (p["W_enc"].shape, p["W_dec"].shape) == ((24, D), (24, D_OUT))
        torch.testing.assert_close(p["W_enc"].norm(dim=1), factor * p["W_dec"].norm(dim=1))
        about_ND = (y_ND - y_ND.mean(0)) / (y_ND - y_ND.mean(0)).norm(dim=1, keepdim=True)
        directions = p["W_dec"] / p["W_dec"].norm(dim=1, keepdim=True)
        assert float((directions @ about_ND.T).amax(1).min()) > 1 - 1e-5, "directions of targets"
        if made.b_dec_init == "mean":
            torch.testing.assert_close(p["b_dec"], y_ND.mean(0))


def test_a_matched_start_is_as_large_as_the_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    x_ND, y_ND = torch.randn(300, D, generator=generator), 5 * torch.randn(300, D_OUT, generator=generator)
    made = config("bricken", encoder_init="matched_transpose", b_dec_init="zero")
    p = maths_of(made).initialise(made, Start(x_ND, y_ND.mean(0), TRANSCODER, y_ND), 24, generator)
    first_ND = torch.relu(x_ND @ p["W_enc"].T) @ p["W_dec"]
    torch.testing.assert_close(first_ND.square().sum(), y_ND.square().sum())
