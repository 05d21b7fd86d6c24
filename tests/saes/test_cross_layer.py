"""Cross-layer transcoders: losses, gradients and folded forms are those of dense equations, for every activation rule.

The reference is the papers' autoencoders: a cross-layer transcoder is an autoencoder of [x^1..x^L, y^1..y^L] whose
encoder has a block for each layer's x and whose decoder one for each y of that layer and later ones; all else is 0.
TopK, which chooses layer by layer, is written out from Ameisen et al. 2025, and so is their own JumpReLU.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.architectures.maths import maths_of
from sae_sweep.kernels.entries import Entries, Room, side_by_side
from sae_sweep.saes.bank import Bank, Batch, Chunk
from sae_sweep.saes.base import Losses, Parameters
from sae_sweep.saes.cross_layer import CrossLayerSae
from sae_sweep.saes.encoders import layered
from sae_sweep.saes.encoders.whole import WholeEncoder
from sae_sweep.saes.initial import Start
from sae_sweep.saes.layered_start import first_parameters
from sae_sweep.saes.spaces import Spaces
from tests.device.padded import padded
from tests.saes import reference
from tests.saes.kinds import BATCH_KINDS, KINDS, NO_PRE_BIAS, TOPK_KINDS, config
from tests.saes.problems import CLOCKS, COEFFICIENTS, THRESHOLDS, TOKENS, VARIANCE, D, Problem, problem, terms_of
from tests.saes.reference import Terms, Weights, mean_square
from tests.saes.test_losses import close

LAYERS, D_OUT, WIDTH = 3, 5, 24
OWN = WIDTH // LAYERS
SPACES = Spaces(same=False, layers=LAYERS)
NESTED = ("matryoshka", "hierarchical_topk", "ortsae", "jumprelu_gemma_scope_2")
CROSSING = [kind for kind in KINDS if kind not in NESTED]
JOINT = [kind for kind in CROSSING if kind != "topk"]


def cross_layer(kind: str, dead: bool = False) -> tuple[Problem, Tensor]:
    """One member of three layers, whose latents fire as often as the problem's; and its targets."""
    made = problem(kind, dead=dead).alone(0)
    generator = torch.Generator().manual_seed(KINDS.index(kind) + 70)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    (p,) = made.parameters
    W_dec = 0.4 * randn(WIDTH * (LAYERS + 1) // 2, D_OUT)
    if kind in TOPK_KINDS:  # they fold rows of unit norm only
        tables = [table / table.norm(dim=1, keepdim=True) for table in SPACES.tables(W_dec)]
        W_dec = torch.cat([table.reshape(-1, D_OUT) for table in tables])
    own = {**p, "W_dec": W_dec, "b_dec": 0.7 * randn(LAYERS * D_OUT)}
    if kind not in NO_PRE_BIAS:
        shift_F = p["W_enc"] @ p["b_dec"]
        for name, slope in (("b_enc", 1.0), ("b_gate", 1.0), ("b_mag", p.get("r_mag", shift_F).exp())):
            if name in own:
                own[name] = own[name] - slope * shift_F
    dead_F = torch.zeros(WIDTH, dtype=torch.bool)
    dead_F[[1, 9, 10, 12, 20]] = dead
    x_BD = torch.cat([made.x_BD[torch.randperm(TOKENS, generator=generator)] for _ in range(LAYERS)], dim=1)
    return replace(made, parameters=[own], x_BD=x_BD, dead=[dead_F]), randn(TOKENS, LAYERS * D_OUT) + 0.3


def bank_of(made: Problem) -> Bank:
    return Bank(maths_of(made.configs[0]), made.configs, made.parameters, [made.buffers(0)], SPACES)


def found(made: Problem, y_BD: Tensor, dense: bool) -> tuple[Losses, Parameters]:
    batch = Batch(made.x_BD, made.token_B, y_BD)
    arguments = made.coefficient_M, torch.cat(made.dead), VARIANCE, CLOCKS[:1]
    losses, (gradients,) = bank_of(made).gradients(batch, Chunk(0, 1, dense), *arguments)
    return losses, gradients


def whole(p: Weights) -> tuple[Tensor, Tensor]:
    """W_enc [F, L x D] and W_dec [F, L x D_OUT] with all that is 0."""
    nothing = torch.zeros(OWN, D, dtype=torch.float64)
    rows, encoders, decoders = p["W_dec"].split([OWN * (LAYERS - n) for n in range(LAYERS)]), [], []
    for layer, W in enumerate(p["W_enc"].split(OWN)):
        encoders.append(torch.cat([W if other == layer else nothing for other in range(LAYERS)], dim=1))
        table = rows[layer].reshape(OWN, LAYERS - layer, D_OUT)
        earlier = torch.zeros(OWN, layer, D_OUT, dtype=torch.float64)
        decoders.append(torch.cat([earlier, table], dim=1).flatten(1))
    return torch.cat(encoders), torch.cat(decoders)


def in_joint_space(made: Problem, p: Weights, y_BD: Tensor) -> Terms:
    W_enc, W_dec = whole(p)
    joint = {
        **p,
        "W_enc": torch.cat([W_enc, torch.zeros_like(W_dec)], dim=1),
        "W_dec": torch.cat([torch.zeros_like(W_enc), W_dec], dim=1),
        "b_dec": torch.cat([torch.zeros(LAYERS * D, dtype=torch.float64), p["b_dec"]]),
    }
    x_BD = torch.cat([made.x_BD, torch.zeros_like(y_BD)], dim=1)
    target_BD = torch.cat([torch.zeros_like(made.x_BD), y_BD], dim=1)
    return terms_of(made.configs[0], joint, x_BD, made.dead[0], 0, target_BD)


def summed(codes: list[Tensor], p: Weights) -> list[Tensor]:
    """y_hat^m = sum_{l <= m} W_dec^{l->m} f^l + b_dec^m, a sum after the other."""
    rows = p["W_dec"].split([OWN * (LAYERS - n) for n in range(LAYERS)])
    tables = [own.reshape(OWN, LAYERS - n, D_OUT) for n, own in enumerate(rows)]
    given = []
    for written, b_d in enumerate(p["b_dec"].split(D_OUT)):
        y_hat = torch.zeros(TOKENS, D_OUT, dtype=torch.float64) + b_d
        for read in range(written + 1):
            y_hat = y_hat + codes[read] @ tables[read][:, written - read]
        given.append(y_hat)
    return given


def preactivations(made: Problem, p: Weights) -> list[Tensor]:
    layers = zip(made.x_BD.split(D, dim=1), p["W_enc"].split(OWN), p["b_enc"].split(OWN), strict=True)
    return [x @ W.T + b for x, W, b in layers]


def check(made: Problem, losses: Losses, gradients: Parameters, total: Tensor, p: Weights) -> None:
    expected = reference.gradients(p, total)
    assert close(losses.total(made.coefficient_M)[0], total, 1e-10)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert gradient.shape == made.parameters[0][name].shape
        assert float(gradient.norm()) > 0, name
        assert close(gradient, expected[name], 1e-10), name


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("kind", JOINT)
def test_losses_and_gradients(kind: str, dense: bool) -> None:
    made, y_BD = cross_layer(kind, dead=kind in TOPK_KINDS)
    losses, gradients = found(made, y_BD, dense)
    p = reference.leaves(made.parameters[0])
    terms = in_joint_space(made, p, y_BD)
    assert close(losses.reconstruction_M[0], terms.reconstruction, 1e-10)
    check(made, losses, gradients, terms.total(COEFFICIENTS[0]), p)
    if kind in TOPK_KINDS:
        assert losses.auxiliary_M is not None


@pytest.mark.parametrize("dense", [True, False])
def test_topk_fires_as_many_of_each_layer(dense: bool) -> None:
    made, y_BD = cross_layer("topk")
    k = 6
    made = replace(made, configs=[replace(made.configs[0], k=k)])
    losses, gradients = found(made, y_BD, dense)
    p = reference.leaves(made.parameters[0])
    codes = []
    for pre in preactivations(made, p):
        least = pre.sort(dim=1, descending=True).values[:, k // LAYERS - 1, None]
        codes.append(torch.where(pre >= least, pre, 0.0).clamp(min=0))
    errors = [hat - y for hat, y in zip(summed(codes, p), y_BD.split(D_OUT, dim=1), strict=True)]
    check(made, losses, gradients, sum(mean_square(error) for error in errors), p)


@pytest.mark.parametrize("dense", [True, False])
def test_the_papers_loss_in_full(dense: bool) -> None:
    """Ameisen et al. 2025: sum_l ||y_hat^l - y^l||^2 + lambda sum_l sum_i tanh(c ||W_dec,i^l|| a_i^l), JumpReLU whose
    estimator has a kernel K((z - theta) / e) / e that reaches z and theta; and what lifts pre-activations."""
    made, y_BD = cross_layer("jumprelu_anthropic")
    (own,) = made.configs
    losses, gradients = found(made, y_BD, dense)
    p = reference.leaves(made.parameters[0])
    thetas = p["log_threshold"].exp().split(OWN)
    rows = p["W_dec"].split([OWN * (LAYERS - n) for n in range(LAYERS)])
    codes, sparsity, lifting = [], 0.0, 0.0
    for layer, (z, theta) in enumerate(zip(preactivations(made, p), thetas, strict=True)):
        # What z H(z - theta) has for a gradient is that of a number with the same value.
        near = ((z - theta).abs() < own.bandwidth / 2).double().detach() / own.bandwidth
        step = (z > theta).double()
        bend = (theta.detach() * near) * ((z - theta) - (z - theta).detach())
        codes.append(z.detach() * step + step * (z - z.detach()) + bend)
        norm = rows[layer].reshape(OWN, -1).square().sum(1).sqrt()
        sparsity = sparsity + torch.tanh(own.tanh_scale * codes[layer] * norm).sum(1).mean()
        lifting = lifting + (torch.clamp(theta - z, min=0) * norm).sum(1).mean()
    errors = [hat - y for hat, y in zip(summed(codes, p), y_BD.split(D_OUT, dim=1), strict=True)]
    total = sum(mean_square(error) for error in errors) + COEFFICIENTS[0] * sparsity
    check(made, losses, gradients, total + own.preactivation_coefficient * lifting, p)


@pytest.mark.parametrize("kind", CROSSING)
def test_folded_is_unfolded_in_raw_units(kind: str) -> None:
    """Each layer has a scale and a mean of what it reads and of what it gives."""
    made, y_BD = cross_layer(kind)
    reads, writes = [0.5, 3.0, 11.0], [2.0, 0.1, 5.0]
    read_D, written_D = (torch.linspace(-3, 5, LAYERS * d, dtype=torch.float64) for d in (D, D_OUT))
    raw_BD = made.x_BD / torch.tensor(reads, dtype=torch.float64).repeat_interleave(D) + read_D
    p, bank = made.parameters[0], bank_of(made)
    f_BF = in_joint_space(made, p, y_BD).f_BF
    if kind in (*BATCH_KINDS, "topk"):
        pre_BF = torch.cat(preactivations(made, p), dim=1)
        f_BF = pre_BF * (pre_BF > THRESHOLDS[0])
    if kind == "topk":
        bank.configs = (replace(made.configs[0], k=6),)
        tops = [pre.relu() * (pre >= pre.topk(2, dim=1).values[:, 1:]) for pre in preactivations(made, p)]
        f_BF = torch.cat(tops, dim=1)
    y_hat_BD = f_BF @ whole(p)[1] + p["b_dec"]
    sae = bank.fold(0, 1.0)
    assert isinstance(sae, CrossLayerSae)
    sae = sae.in_raw_units(reads, read_D, writes, written_D)
    assert (sae.d, sae.d_out, sae.width, sae.places) == (LAYERS * D, LAYERS * D_OUT, WIDTH, LAYERS)
    divisor_D = torch.tensor(writes, dtype=torch.float64).repeat_interleave(D_OUT)
    for form in (sae, sae.as_saved()):
        codes_BF = form.encode(raw_BD)
        assert torch.equal(codes_BF > 0, f_BF > 0)
        given_BD = form.decode(codes_BF)
        torch.testing.assert_close(given_BD, y_hat_BD / divisor_D + written_D, rtol=1e-10, atol=1e-10)
        entries, listed_BD = form.coded(raw_BD)
        torch.testing.assert_close(listed_BD, given_BD, rtol=1e-10, atol=1e-10)
        row_N = torch.repeat_interleave(torch.arange(TOKENS), entries.offsets.diff())
        dense_BF = torch.zeros_like(codes_BF).index_put((row_N, entries.column_N.long()), entries.value_N)
        torch.testing.assert_close(dense_BF, codes_BF, rtol=1e-10, atol=1e-10)
        for latent in (0, OWN, WIDTH - 1):
            alone_1F = torch.zeros(1, WIDTH, dtype=torch.float64)
            alone_1F[0, latent] = 1
            torch.testing.assert_close(form.row(latent), (form.decode(alone_1F) - form.tensors["b_dec"])[0])
        norms = torch.stack([form.row(latent).norm() for latent in range(WIDTH)])
        torch.testing.assert_close(form.decoder_norms, norms)


def test_it_starts_layer_by_layer() -> None:
    """Unit norms of all that a latent writes; the first outputs are as large as the targets; k is shared out."""
    generator = torch.Generator().manual_seed(0)
    x_ND, y_ND = torch.randn(400, LAYERS * D, generator=generator), 4 * torch.randn(400, 15, generator=generator)
    start, made = Start(x_ND, y_ND.mean(0), SPACES, y_ND), config("batchtopk", encoder_init="matched_transpose", k=6)
    p = first_parameters(maths_of(made), made, start, 600, generator)
    assert {name: tuple(t.shape) for name, t in p.items()} == {
        "W_enc": (600, D),
        "b_enc": (600,),
        "W_dec": (1200, D_OUT),
        "b_dec": (15,),
    }
    torch.testing.assert_close(SPACES.decoder_norms(p["W_dec"]), torch.ones(600))
    torch.testing.assert_close(p["b_dec"], y_ND.mean(0))
    codes = [x @ W.T for x, W in zip(x_ND.chunk(3, dim=1), p["W_enc"].chunk(3), strict=True)]
    tops = [z.relu() * (z >= z.topk(2, dim=1).values[:, 1:]) for z in codes]
    tables = SPACES.tables(p["W_dec"])
    whole_ND = torch.zeros(400, 15)
    for layer, (f, table) in enumerate(zip(tops, tables, strict=True)):
        whole_ND[:, layer * D_OUT :] += f @ table
    ratio = whole_ND.square().sum() / (y_ND - y_ND.mean(0)).square().sum()
    assert 0.7 < float(ratio) < 1.4


def test_entries_side_by_side() -> None:
    """Rows with nothing, and of several pieces: what indexing a dense matrix gives."""
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(5, 3, generator=generator).clamp(min=0) for _ in range(3)]
    parts[1][:] = 0
    parts[0][2] = parts[2][2] = 0
    pieces = []
    for part in parts:
        at = part.nonzero()
        offsets = torch.cat([torch.zeros(1, dtype=torch.int32), (part > 0).sum(1).cumsum(0).int()])
        pieces.append(Entries(offsets, at[:, 1].int(), part[part > 0]))
    made, whole_RF = side_by_side(pieces, 3), torch.cat(parts, dim=1)
    assert made.offsets.diff().tolist() == (whole_RF > 0).sum(1).tolist()
    assert made.column_N.tolist() == whole_RF.nonzero()[:, 1].tolist()
    assert made.value_N.tolist() == whole_RF[whole_RF > 0].tolist()


@pytest.mark.parametrize("kind", ["april", "batchtopk", "topk", "jumprelu_anthropic"])
def test_lists_of_a_known_length_give_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU has them, which no step waits for: each layer's lists fill their room, and padding changes nothing."""

    def whole_encoder(*arguments: Any) -> WholeEncoder:
        x_BD, W_enc, bias_F, b_pre_MD, layout, _, room = arguments
        return WholeEncoder(x_BD, W_enc, bias_F, b_pre_MD, layout, room)

    made, y_BD = cross_layer(kind, dead=kind in TOPK_KINDS)
    if kind == "topk":
        made = replace(made, configs=[replace(made.configs[0], k=6)])
    dense_losses, dense_gradients = found(made, y_BD, dense=True)
    padded(monkeypatch)
    monkeypatch.setattr(layered, "encoder_of", whole_encoder)
    room, batch = Room(TOKENS * WIDTH, torch.zeros((), dtype=torch.bool)), Batch(made.x_BD, made.token_B, y_BD)
    chunk = Chunk(0, 1, dense=False, room=room, most_dead=(5,))
    losses, (gradients,) = bank_of(made).gradients(
        batch, chunk, made.coefficient_M, torch.cat(made.dead), VARIANCE, CLOCKS[:1]
    )
    assert not room.lost
    assert close(losses.total(made.coefficient_M), dense_losses.total(made.coefficient_M), 1e-12)
    assert losses.fired_F.equal(dense_losses.fired_F)
    for name, gradient in gradients.items():
        assert close(gradient, dense_gradients[name], 1e-12), name
    small = Room(3, torch.zeros((), dtype=torch.bool))
    bank_of(made).gradients(
        batch, replace(chunk, room=small), made.coefficient_M, torch.cat(made.dead), 1.0, CLOCKS[:1]
    )
    assert small.lost or kind == "topk", "of which every list has its length beforehand"
