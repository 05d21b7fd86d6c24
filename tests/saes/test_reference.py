"""The references against numbers worked out by hand, and against each other where two papers say the same."""

from math import exp, log

import pytest
import torch
from torch import Tensor

from tests.saes import reference, reference_jumprelu, reference_topk
from tests.saes.reference import Weights

EPS = 0.5


def tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def one_latent(**values: float) -> Weights:
    """W_enc = W_dec = 1, b_dec = 0, in one dimension: the pre-activation is x + b_enc."""
    found = {"W_enc": [[1.0]], "W_dec": [[1.0]], "b_dec": [0.0]} | {name: [value] for name, value in values.items()}
    return {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in found.items()}


def random_weights(width: int, d: int, *biases: str) -> Weights:
    generator = torch.Generator().manual_seed(5)
    shapes: dict[str, tuple[int, ...]] = {"W_enc": (width, d), "W_dec": (width, d), "b_dec": (d,)}
    shapes |= dict.fromkeys(biases, (width,))
    return {
        name: torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for name, shape in shapes.items()
    }


def inputs(rows: int, d: int) -> Tensor:
    return torch.randn(rows, d, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def same(first: reference.Terms, second: reference.Terms, p: Weights) -> None:
    """Value and every gradient of the whole loss, with a coefficient of 0.7."""
    assert torch.equal(first.f_BF, second.f_BF)
    torch.testing.assert_close(first.total(0.7), second.total(0.7), rtol=1e-13, atol=0)
    mine, theirs = reference.gradients(p, first.total(0.7)), reference.gradients(p, second.total(0.7))
    for name in p:
        torch.testing.assert_close(mine[name], theirs[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("x", "fires", "in_band"),
    [(1.0, 0, 0), (1.76, 0, 1), (1.99, 0, 1), (2.0, 0, 1), (2.01, 1, 1), (2.24, 1, 1), (2.26, 1, 0), (3.0, 1, 0)],
)
def test_deepmind_by_hand(x: float, fires: int, in_band: int) -> None:
    """theta = 2 and eps = 1/2: the band is (1.75, 2.25)."""
    p = one_latent(b_enc=0.0, log_threshold=log(2))
    terms = reference_jumprelu.deepmind(p, tensor([x]), EPS, "l0")
    assert terms.f_BF.item() == x * fires
    assert terms.sparsity.item() == fires
    found = reference.gradients(p, terms.sparsity)
    # d L0 / d log theta = theta x -(1/eps) K; nothing reaches the encoder.
    assert found["log_threshold"].item() == pytest.approx(-2 / EPS * in_band)
    assert found["W_enc"].item() == found["b_enc"].item() == 0
    # d (x - f)^2 / d f = 2 (f - x), and d f / d log theta = theta x -(theta/eps) K.
    found = reference.gradients(p, terms.reconstruction)
    f = x * fires
    assert found["log_threshold"].item() == pytest.approx(2 * (f - x) * -(2**2 / EPS) * in_band)
    assert found["b_enc"].item() == pytest.approx(2 * (f - x) * fires)


@pytest.mark.parametrize("edge", [1.75, 2.25])
def test_the_kernel_is_open(edge: float) -> None:
    assert reference_jumprelu.rectangle((tensor(edge) - 2) / EPS).item() == 0


def test_target_l0_by_hand() -> None:
    """Three tokens, two above the threshold, two in the band: (2/3 / 0.5 - 1)^2 = 1/9."""
    p = one_latent(b_enc=0.0, log_threshold=log(2))
    terms = reference_jumprelu.deepmind(p, tensor([1.9], [2.1], [5.0]), EPS, "target_l0", 0.5)
    assert terms.sparsity.item() == pytest.approx(1 / 9)
    slope = 2 * (1 / 3) / 0.5 * (2 / 3) * -(2 / EPS)
    assert reference.gradients(p, terms.sparsity)["log_threshold"].item() == pytest.approx(slope)


def test_frequency_by_hand() -> None:
    """p = 2/3 and omega = 1/3: p (1 + p/omega) = 2; its slope in p is 1 + 2p/omega = 5."""
    p = one_latent(b_enc=0.0, log_threshold=log(2))
    terms = reference_jumprelu.deepmind(p, tensor([1.9], [2.1], [5.0]), EPS, "frequency", 1 / 3)
    assert terms.sparsity.item() == pytest.approx(2)
    assert reference.gradients(p, terms.sparsity)["log_threshold"].item() == pytest.approx(5 * 2 / 3 * -2 / EPS)


def test_frequency_without_bound_is_l0() -> None:
    p = random_weights(6, 3, "b_enc", "log_threshold")
    same(
        reference_jumprelu.deepmind(p, inputs(30, 3), EPS, "frequency", 1e300),
        reference_jumprelu.deepmind(p, inputs(30, 3), EPS, "l0"),
        p,
    )


@pytest.mark.parametrize(("x", "fires", "in_band"), [(1.0, 0, 0), (1.9, 0, 1), (2.1, 1, 1), (3.0, 1, 0)])
def test_anthropic_by_hand(x: float, fires: int, in_band: int) -> None:
    """theta = 2, eps = 1/2, decoder norm 3, c = 1/10, lambda_P = 7."""
    p = one_latent(b_enc=0.0, log_threshold=log(2))
    p["W_dec"] = tensor([3.0]).requires_grad_()
    p["b_dec"] = tensor(50.0).requires_grad_()  # must not reach the encoder
    terms = reference_jumprelu.anthropic(p, tensor([x]), EPS, 7.0, c=0.1)
    f = x * fires
    assert terms.f_BF.item() == f
    tanh = (exp(0.6 * f) - 1) / (exp(0.6 * f) + 1)
    assert terms.sparsity.item() == pytest.approx(tanh)
    assert terms.auxiliary.item() == pytest.approx(7 * 3 * max(0.0, 2 - x))
    penalty, below = reference.gradients(p, terms.sparsity), reference.gradients(p, terms.auxiliary)
    df = 0.3 * (1 - tanh**2)
    assert penalty["b_enc"].item() == pytest.approx(df * (fires + 2 / EPS * in_band))
    assert penalty["log_threshold"].item() == pytest.approx(df * -(2**2 / EPS) * in_band)
    assert penalty["W_dec"].item() == pytest.approx(0.1 * f * (1 - tanh**2))
    assert below["b_enc"].item() == pytest.approx(-21 * (x < 2))
    assert below["log_threshold"].item() == pytest.approx(2 * 21 * (x < 2))
    assert below["W_dec"].item() == pytest.approx(7 * max(0.0, 2 - x))
    assert penalty["b_dec"].item() == below["b_dec"].item() == 0


def test_a_threshold_apart_from_the_origin_loses_less() -> None:
    """The gated paper's appendix: off N(0, 1), on N(2, 1/4), a threshold of 1; what is off should be 0.

    Jumping, half of E[z^2; z > 1] = phi(1) + Q(1) is lost on the off and E[z^2; z < 1] on the on. A ReLU that starts
    at the same place loses half of E[(z - 1)^2; z > 1] = 2 Q(1) - phi(1), and about 1 on the on.
    """
    generator = torch.Generator().manual_seed(0)
    off, on = (torch.randn(200_000, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    on = 2 + on / 2
    x, wanted = torch.cat([off, on]), torch.cat([torch.zeros_like(off), on])
    jumps = reference_jumprelu.deepmind(one_latent(b_enc=0.0, log_threshold=0.0), x, EPS, "l0", target_BD=wanted)
    ramp = reference.bricken(one_latent(b_enc=-1.0), x, wanted)
    assert torch.equal(jumps.f_BF > 0, ramp.f_BF > 0)
    phi, q = exp(-0.5) / (2 * torch.pi) ** 0.5, 0.158655
    assert jumps.reconstruction.item() == pytest.approx((phi + q) / 2 + 0.0088, abs=0.005)
    assert ramp.reconstruction.item() == pytest.approx((2 * q - phi) / 2 + 0.49, abs=0.02)


def test_one_group_is_batchtopk() -> None:
    p, dead = random_weights(8, 4, "b_enc"), tensor(1, 0, 0, 1, 0, 0, 0, 0).bool()
    knobs = (dead, 1, 1 / 32, 2.5)
    same(
        reference_topk.matryoshka(p, inputs(20, 4), 2, [8], *knobs),
        reference_topk.batchtopk(p, inputs(20, 4), 2, *knobs),
        p,
    )


def test_a_batch_of_one_is_topk() -> None:
    p, none = random_weights(8, 4, "b_enc"), torch.zeros(8, dtype=torch.bool)
    for x_BD in inputs(10, 4).split(1):
        knobs = (x_BD, 3, none, 0, 0.0, 1.0)
        same(reference_topk.batchtopk(p, *knobs), reference_topk.topk(p, *knobs), p)


def test_nested_prefixes_by_hand() -> None:
    """x = 10; latents of 5 and 3, decoded by 1 and by 2: 10 - 5 after the first, 10 - 11 after both."""
    p = {"W_enc": tensor([0.5], [0.3]), "W_dec": tensor([1.0], [2.0]), "b_dec": tensor(0.0), "b_enc": tensor(0.0, 0.0)}
    none = torch.zeros(2, dtype=torch.bool)
    terms = reference_topk.matryoshka(p, tensor([10.0]), 2, [1, 2], none, 0, 0.0, 1.0)
    assert terms.auxiliary.item() == pytest.approx(25)
    assert terms.reconstruction.item() == pytest.approx(1)
    assert reference_topk.fixed_prefixes(65536, 5) == [2048, 6144, 14336, 30720, 65536]


def test_what_a_batch_keeps() -> None:
    values = tensor([3.0, 0, 2, 0], [2.0, 1, 0, 9])
    assert reference_topk.keep_largest_of_batch(values, 1).tolist() == [[3, 0, 0, 0], [0, 0, 0, 9]]
    ties = reference_topk.keep_largest_of_batch(tensor([3.0, 0, 2, 0], [2.0, 1, 0, 1]), 1)
    assert ties.tolist() == [[3, 0, 2, 0], [2, 0, 0, 0]]
    assert reference_topk.smallest_kept(ties) == 2
    everything = reference_topk.keep_largest_of_batch(values, 4)
    assert torch.equal(everything, values)
    assert reference_topk.smallest_kept(everything) == 1
    assert reference_topk.running_mean([ties, everything]) == 1.5


def test_an_exponent_of_one_is_bricken() -> None:
    p = random_weights(8, 4, "b_enc")
    same(reference.p_anneal(p, inputs(20, 4), 1.0, 1.0), reference.bricken(p, inputs(20, 4)), p)


def test_p_anneal_by_hand() -> None:
    """f = 0, 4, 9 and p = 1/2: the sum is 5; its slope is 1/4 and 1/6, and none for the latent at 0."""
    f = tensor([0.0, 4.0, 9.0]).requires_grad_()
    found = reference.lp(f, 0.5)
    assert found.item() == pytest.approx(5)
    (slope,) = torch.autograd.grad(found, f)
    assert slope.tolist() == [pytest.approx([0, 1 / 4, 1 / 6])]
    assert reference.annealed_exponents(0.2)[:3] == pytest.approx([1, 0.92, 0.84])
    assert reference.annealed_exponents(0.2)[-1] == pytest.approx(0.2)


def test_the_penalty_keeps_its_size_when_its_exponent_changes() -> None:
    """sum f = 16 and 4, sum f^(1/2) = 4 and 2: s becomes 20/6; with a memory of one batch 4/2."""
    batches = [tensor([16.0]), tensor([4.0]), tensor([9.0]), tensor([9.0])]
    assert reference.annealed(batches, [1, 1, 0.5, 0.5]) == pytest.approx([1, 1, 20 / 6, 20 / 6])
    assert reference.annealed(batches, [1, 1, 0.5, 0.5], remembered=1) == pytest.approx([1, 1, 2, 2])
    scales = reference.annealed(batches[:1] * 3, [1, 0.5, 0.25])
    sizes = [s * float(reference.lp(batches[0], p)) for s, p in zip(scales, [1, 0.5, 0.25], strict=True)]
    assert sizes == pytest.approx([16, 16, 16])


def test_decoder_norms_of_one_change_the_gated_penalty_not_at_all() -> None:
    p = random_weights(8, 4, "b_gate", "b_mag", "r_mag")
    p["W_dec"] = (p["W_dec"] / p["W_dec"].norm(dim=1, keepdim=True)).detach().requires_grad_()
    plain, weighted = reference.gated(p, inputs(20, 4)), reference.gated_decoder_norm(p, inputs(20, 4))
    torch.testing.assert_close(plain.total(0.7), weighted.total(0.7), rtol=1e-13, atol=0)
    frozen, free = reference.gradients(p, plain.auxiliary), reference.gradients(p, weighted.auxiliary)
    assert frozen["W_dec"].count_nonzero() == 0
    assert free["W_dec"].count_nonzero() > 0
    assert torch.equal(frozen["b_gate"], free["b_gate"])


@pytest.mark.parametrize("subtract", [False, True])
def test_a_table_by_hand(subtract: bool) -> None:
    """x = 3, lookup[1] = 1, a plain latent: x_hat = ReLU(3) or ReLU(2), and 2 is what should come out."""
    p = one_latent(b_enc=0.0)
    p["lookup"] = tensor([7.0], [1.0]).requires_grad_()
    seen, wanted = reference.tokenized(p, tensor([3.0]), torch.tensor([1]), subtract)
    terms = reference.bricken(p, seen, wanted)
    assert terms.reconstruction.item() == (0 if subtract else 1)
    slopes = reference.gradients(p, terms.reconstruction + terms.sparsity)["lookup"].flatten().tolist()
    # Error wanted - x_hat = -1: d/d row of error^2 is 2 x -1 x -1; through the encoder the code falls by one.
    assert slopes == [0, -1 if subtract else 2]


def test_a_cut_by_hand() -> None:
    """Two tokens: an L0 of 1.5 is three latents, so the cut lies between the third and the fourth."""
    low, high = reference.quantile_cut(tensor([5.0, 1.0, 4.0], [2.0, 3.0, 0.0]), 1.5)
    assert (low.item(), high.item()) == (2, 3)
