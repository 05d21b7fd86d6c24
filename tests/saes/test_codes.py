"""The two differentiable ops and the sums on them, on both routes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sae_sweep.kernels.entries import where
from sae_sweep.kernels.sparse import located
from sae_sweep.saes.codes import Codes
from sae_sweep.saes.dense_codes import DenseCodes
from sae_sweep.saes.encoders.dense import DenseEncoder
from sae_sweep.saes.layout import Layout
from sae_sweep.saes.sparse_codes import SparseCodes

B, D = 5, 4
ONE, RAGGED = (6,), (3, 1, 5)
SUPPORTS = ("some", "none", "all", "one latent")
CASES = [*((kind, RAGGED) for kind in SUPPORTS), ("some", ONE)]


def layout_of(widths: tuple[int, ...]) -> Layout:
    return Layout(widths, torch.device("cpu"))


def support_of(kind: str, latents: int) -> Tensor:
    support_BF = torch.zeros(B, latents, dtype=torch.bool)
    if kind == "some":
        support_BF = torch.rand(B, latents, generator=torch.Generator().manual_seed(1)) < 0.4
        support_BF[1] = False  # an empty row
    elif kind == "all":
        support_BF = ~support_BF
    elif kind == "one latent":
        support_BF[:, latents - 1] = True
    return support_BF


def sparse_codes(support_BF: Tensor, layout: Layout) -> SparseCodes:
    entries = where(support_BF, support_BF)
    return SparseCodes(entries.offsets, entries.column_N, layout)


def codes_of(support_BF: Tensor, layout: Layout, dense: bool) -> Codes:
    return DenseCodes(support_BF.double(), layout) if dense else sparse_codes(support_BF, layout)


def product(x_BD: Tensor, W_enc: Tensor, bias_F: Tensor | None, b_pre_MD: Tensor | None, layout: Layout) -> Tensor:
    return DenseEncoder(x_BD, W_enc, bias_F, b_pre_MD, layout).product()


def at(support_BF: Tensor, pre_BF: Tensor, dense: bool) -> Tensor:
    """Pre-activations as values on a route."""
    return pre_BF * support_BF if dense else pre_BF[support_BF]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    ("kind", "widths", "with_bias", "with_b_pre"),
    [
        *((*case, True, True) for case in CASES),
        *(("some", RAGGED, with_bias, not with_bias) for with_bias in (False, True)),
        ("some", ONE, False, False),
    ],
)
def test_encode_gradients(kind: str, widths: tuple[int, ...], with_bias: bool, with_b_pre: bool, dense: bool) -> None:
    layout = layout_of(widths)
    support_BF = support_of(kind, layout.latents)
    inputs = {"x_BD": randn(B, D, seed=9), "W_enc": randn(layout.latents, D, seed=1)}
    if with_bias:
        inputs["bias_F"] = randn(layout.latents, seed=2)
    if with_b_pre:
        inputs["b_pre_MD"] = randn(layout.members, D, seed=3)

    def at_support(*tensors: Tensor) -> Tensor:
        given = {"bias_F": None, "b_pre_MD": None, **dict(zip(inputs, tensors, strict=True))}
        codes = codes_of(support_BF, layout, dense)
        values = codes.encode(at(support_BF, product(**given, layout=layout), dense), **given)
        return codes.inside(values)

    assert torch.autograd.gradcheck(at_support, tuple(inputs.values()))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("kind", "widths"), CASES)
def test_decode_gradients(widths: tuple[int, ...], kind: str, dense: bool) -> None:
    layout = layout_of(widths)
    support_BF = support_of(kind, layout.latents)
    codes = codes_of(support_BF, layout, dense)
    values = randn(B, layout.latents, seed=4) if dense else randn(int(support_BF.sum()), seed=4)
    values = codes.inside(values).detach().requires_grad_()
    W_dec = randn(layout.latents, D, seed=5)
    assert torch.autograd.gradcheck(codes.decode, (values, W_dec))
    assert torch.autograd.gradcheck(lambda v: codes.decode(v, W_dec.detach()), (values,))
    assert torch.autograd.gradcheck(lambda w: codes.decode(values.detach(), w), (W_dec,))


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(("kind", "widths"), CASES)
def test_two_sets_of_values_decoded_together(widths: tuple[int, ...], kind: str, dense: bool) -> None:
    layout = layout_of(widths)
    support_BF = support_of(kind, layout.latents)
    codes = codes_of(support_BF, layout, dense)
    shape = (B, layout.latents) if dense else (int(support_BF.sum()),)
    one, other = (codes.inside(randn(*shape, seed=seed)).detach().requires_grad_() for seed in (4, 6))
    W_dec = randn(layout.latents, D, seed=5)
    assert torch.autograd.gradcheck(lambda *of: codes.decode_both(*of, frozen=False), (one, other, W_dec))
    together = codes.decode_both(one, other, W_dec, frozen=True)
    apart = codes.decode(one, W_dec), codes.decode(other, W_dec.detach())
    towards = torch.randn(together[0].shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    slopes = [
        torch.autograd.grad((a * towards).sum() + b.square().sum(), (one, other, W_dec)) for a, b in (together, apart)
    ]
    for found, expected in zip((*together, *slopes[0]), (*apart, *slopes[1]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("kind", SUPPORTS)
def test_forward_is_the_plain_product(kind: str, dense: bool) -> None:
    layout = layout_of(RAGGED)
    support_BF = support_of(kind, layout.latents)
    x_BD, W_enc, W_dec = randn(B, D), randn(layout.latents, D, seed=1), randn(layout.latents, D, seed=2)
    bias_F, b_pre_MD = randn(layout.latents, seed=3), randn(layout.members, D, seed=4)
    pre_BF = product(x_BD, W_enc, bias_F, b_pre_MD, layout)
    assert not pre_BF.requires_grad
    codes = codes_of(support_BF, layout, dense)
    out_BMD = codes.decode(codes.encode(at(support_BF, pre_BF, dense), x_BD, W_enc, bias_F, b_pre_MD), W_dec)
    assert out_BMD.shape == (B, 3, D)
    for member, own in enumerate((slice(0, 3), slice(3, 4), slice(4, 9))):
        pre = (x_BD - b_pre_MD[member]) @ W_enc[own].t() + bias_F[own]
        torch.testing.assert_close(pre_BF[:, own], pre.detach())
        torch.testing.assert_close(out_BMD[:, member], (pre * support_BF[:, own]) @ W_dec[own])


@pytest.mark.parametrize("dense", [False, True])
def test_sums_by_hand(dense: bool) -> None:
    layout = layout_of((2, 1))
    values_BF = torch.tensor([[1.0, -2.0, 4.0], [0.0, 8.0, 16.0]], requires_grad=True)
    support_BF = torch.tensor([[True, True, False], [True, False, True]])
    codes = codes_of(support_BF, layout, dense)
    values = codes.inside(values_BF) if dense else values_BF[support_BF]
    assert codes.fired(values).tolist() == [1, 0, 1]  # 0 and -2 do not fire; 8 and 4 are outside the support
    assert not codes.fired(values).requires_grad
    sums_M = codes.member_sums(values)
    assert sums_M.tolist() == [-1, 16]
    (slopes_BF,) = torch.autograd.grad((sums_M * torch.tensor([3.0, 5.0])).sum(), values_BF, retain_graph=True)
    assert slopes_BF.tolist() == [[3, 3, 0], [3, 0, 5]]
    latents_F = codes.latent_sums(values)
    assert latents_F.tolist() == [1, -2, 16]
    (slopes_BF,) = torch.autograd.grad((latents_F * torch.tensor([3.0, 5.0, 7.0])).sum(), values_BF)
    assert slopes_BF.tolist() == [[3, 5, 0], [3, 0, 7]]
    assert codes.support().tolist() == [2, 1, 1]
    per_latent = codes.at_latent(torch.tensor([10.0, 20.0, 30.0]))
    assert (per_latent.expand(2, 3)[support_BF] if dense else per_latent).tolist() == [10, 20, 10, 30]


@pytest.mark.parametrize("dense", [False, True])
def test_smallest_positive_values_by_hand(dense: bool) -> None:
    """Neither 0 nor a negative value counts, nor one outside the support; infinite where there is none."""
    layout = layout_of((2, 1, 1, 2))
    values_BF = torch.tensor([[3.0, -2.0, 4.0, 0.0, 0.1, 7.0], [0.5, 2.0, 5.0, -1.0, 9.0, 8.0]])
    support_BF = torch.tensor([[True, True, True, True, False, True], [False, True, True, True, True, True]])
    codes = codes_of(support_BF, layout, dense)
    values = codes.inside(values_BF) if dense else values_BF[support_BF]
    assert codes.member_minima(values).tolist() == [2, 4, torch.inf, 7]


def test_entries_of_a_row_need_no_order() -> None:
    """TopK lists a token's entries by size."""
    layout = layout_of((4, 3))
    flat_N = torch.tensor([3, 0, 5, 4, 9, 7, 13, 11])  # token 0: 3 0 | 5 4; token 1: 2 0 | 6 4
    W_dec, values = randn(7, D, seed=1), randn(8, seed=2)
    codes = SparseCodes(*located(flat_N, 2, layout.latents), layout)
    assert torch.autograd.gradcheck(codes.decode, (values, W_dec))
    dense_BF = torch.zeros(14, dtype=torch.float64).index_put((flat_N,), values).view(2, 7)
    expected = torch.stack([dense_BF[:, :4] @ W_dec[:4], dense_BF[:, 4:] @ W_dec[4:]], dim=1)
    torch.testing.assert_close(codes.decode(values, W_dec), expected)


@pytest.mark.parametrize("dense", [False, True])
def test_the_same_entries_of_finer_members(dense: bool) -> None:
    layout, finer = layout_of((6,)), layout_of((1, 3, 2))
    support_BF = support_of("some", 6)
    codes = codes_of(support_BF, layout, dense)
    values = randn(B, 6, seed=4) if dense else randn(int(support_BF.sum()), seed=4)
    values = codes.inside(values).detach().requires_grad_()
    values_BF = values if dense else torch.zeros(B, 6, dtype=torch.float64).masked_scatter(support_BF, values)
    W_dec = randn(6, D, seed=5)
    found = codes.relaid(finer)
    expected = torch.stack([values_BF[:, own] @ W_dec[own] for own in finer.slices], dim=1)
    torch.testing.assert_close(found.decode(values, W_dec), expected)
    assert torch.autograd.gradcheck(found.decode, (values, W_dec))
    assert codes.decode(values, W_dec).shape == (B, 1, D), "they are what they were"


@pytest.mark.parametrize("dense", [False, True])
def test_parts_by_rank_by_hand(dense: bool) -> None:
    """Two members, the largest and the next of one, and the two largest of the other; what is missing is nothing."""
    layout = layout_of((3, 2))
    values_BF = torch.tensor([[3.0, 7.0, 5.0, 1.0, 2.0], [0.0, 4.0, 0.0, 0.0, 6.0]])
    support_BF = torch.tensor([[False, True, True, True, True], [False, True, False, False, True]])
    codes = codes_of(support_BF, layout, dense)
    values = codes.inside(values_BF) if dense else values_BF[support_BF]
    parts, ranked = codes.ranked(values.double(), [[1, 2], [2]])
    W_dec = 10.0 ** torch.arange(5, dtype=torch.float64)[:, None]
    assert parts.decode(ranked, W_dec)[..., 0].tolist() == [[70, 500, 21_000], [40, 0, 60_000]]


@given(
    widths=st.lists(st.integers(2, 9), min_size=1, max_size=3),
    most=st.integers(1, 6),
    tokens=st.integers(1, 6),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=30, deadline=None)
def test_parts_by_rank_on_both_routes(widths: list[int], most: int, tokens: int, seed: int) -> None:
    """Each member's k largest in its own parts: with a mask of each part written out, values and slopes."""
    layout, ks = layout_of(tuple(widths)), [min(most, width) for width in widths]
    ends = [sorted({max(1, k // 2), k}) for k in ks]
    z_BF = torch.rand(tokens, layout.latents, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.3
    support_BF, expected = torch.zeros_like(z_BF, dtype=torch.bool), []
    W_dec, leaf_BF = randn(layout.latents, D, seed=5), z_BF.clone().requires_grad_()
    for own, bounds in zip(layout.slices, ends, strict=True):
        rank_Bf = z_BF[:, own].argsort(dim=1, descending=True).argsort(dim=1)
        support_BF[:, own] = (rank_Bf < bounds[-1]) & (z_BF[:, own] > 0)
        for low, high in zip([0, *bounds], bounds, strict=False):
            mask_Bf = (rank_Bf >= low) & (rank_Bf < high) & (z_BF[:, own] > 0)
            expected.append((leaf_BF[:, own] * mask_Bf) @ W_dec[own])
    expected_BGD = torch.stack(expected, dim=1)
    towards_BGD = randn(*expected_BGD.shape, seed=seed).detach()
    slopes = torch.autograd.grad((expected_BGD * towards_BGD).sum(), [leaf_BF, W_dec])
    for dense in (False, True):
        codes, leaf = codes_of(support_BF, layout, dense), z_BF.clone().requires_grad_()
        parts, ranked = codes.ranked(codes.inside(leaf) if dense else leaf[support_BF], ends)
        found_BGD = parts.decode(ranked, W_dec)
        torch.testing.assert_close(found_BGD, expected_BGD)
        found = torch.autograd.grad((found_BGD * towards_BGD).sum(), [leaf, W_dec])
        for own, other in zip(found, slopes, strict=True):
            torch.testing.assert_close(own, other)


def test_more_latents_than_a_short_integer_counts() -> None:
    layout = layout_of((40_000, 30_000))
    flat_N = torch.tensor([39_999, 40_000, 69_999, 70_000 + 5, 70_000 + 39_999])
    codes = SparseCodes(*located(flat_N, 2, layout.latents), layout)
    W_dec = torch.zeros(70_000, 1, dtype=torch.float64, requires_grad=True)
    codes.decode(torch.arange(1.0, 6.0, dtype=torch.float64), W_dec).sum().backward()
    assert W_dec.grad is not None
    found = {i: W_dec.grad[i].item() for i in (5, 39_999, 40_000, 69_999)}
    assert found == {5: 4, 39_999: 1 + 5, 40_000: 2, 69_999: 3}
    assert W_dec.grad.count_nonzero() == 4


def test_layout_lies_end_to_end() -> None:
    layout = layout_of((3, 1, 5))
    assert (layout.members, layout.latents) == (3, 9)
    assert layout.slices == (slice(0, 3), slice(3, 4), slice(4, 9))
    assert layout.member_F.tolist() == [0, 0, 0, 1, 2, 2, 2, 2, 2]


@given(
    widths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    tokens=st.integers(1, 9),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_routes_agree_on_any_codes(widths: list[int], tokens: int, density: float, seed: int) -> None:
    layout = layout_of(tuple(widths))
    support_BF = torch.rand(tokens, layout.latents, generator=torch.Generator().manual_seed(seed)) < density
    x_BD, towards_BMD = randn(tokens, D, seed=seed).detach(), randn(tokens, len(widths), D, seed=seed + 1).detach()
    found = []
    for dense in (False, True):
        leaves = [randn(layout.latents, D, seed=2), randn(layout.latents, seed=3), randn(len(widths), D, seed=4)]
        W_dec = randn(layout.latents, D, seed=5)
        codes = codes_of(support_BF, layout, dense)
        values = codes.encode(at(support_BF, product(x_BD, *leaves, layout), dense), x_BD, *leaves)
        total = (codes.decode(values, W_dec) * towards_BMD).sum() + codes.member_sums(values).square().sum()
        found.append([total, codes.fired(values), *torch.autograd.grad(total, [*leaves, W_dec])])
    for sparse, dense_one in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense_one, rtol=1e-11, atol=1e-11)
