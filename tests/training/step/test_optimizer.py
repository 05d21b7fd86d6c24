"""A member's step is torch's Adam, clipped as torch clips, with decoder rows on the unit sphere."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.architectures.maths import maths_of
from sae_sweep.plan.schedules import Schedule
from sae_sweep.saes.bank import Bank
from sae_sweep.training.step.optimizer import Adam, clip_norm, normalise_rows, remove_radial
from tests.saes import problems

PLAIN = Schedule(
    total_steps=100,
    lr=3e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    clip=0.0,
    lr_warmup_steps=0,
    lr_decay_steps=0,
    sparsity_warmup_steps=0,
    resample_steps=(),
    dead_window_steps=1,
    hold_from=80,
)


def step_of(adam: Adam, *given: Any) -> None:
    """One update, at once."""
    for write in adam.update(*given):
        write()


def bank_of(kind: str) -> Bank:
    made = problems.problem(kind)
    for p in made.parameters:
        if kind != "april":
            normalise_rows(p["W_dec"], torch.empty(len(p["W_dec"]), 1, dtype=p["W_dec"].dtype))
    return Bank(maths_of(made.configs[0]), made.configs, made.parameters)


def random_gradients(weights: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(w.shape, generator=generator, dtype=w.dtype) * 10.0 ** (seed % 5 - 3)
        for name, w in weights.items()
    }


@pytest.mark.parametrize("clip", [0.0, 0.5, 1e9])
@pytest.mark.parametrize(("beta1", "eps"), [(0.9, 1e-8), (0.0, 1e-8), (0.9, 6.25e-10), (0.0, 1e-2)])
def test_free_members_take_torchs_step(beta1: float, eps: float, clip: float) -> None:
    """No decoder constraint: plain Adam, for the member in the middle of a bank, and no other moves."""
    bank = bank_of("april")
    adam = Adam(bank)
    before = [{k: t.clone() for k, t in bank.member(bank.storage, m).items()} for m in range(3)]
    leaves = {name: t.clone().requires_grad_() for name, t in before[1].items()}
    oracle = torch.optim.Adam(leaves.values(), lr=3e-3, betas=(beta1, 0.999), eps=eps)
    schedule = replace(PLAIN, beta1=beta1, eps=eps, clip=clip)
    for step in range(12):
        gradients = random_gradients(before[1], step)
        for name, leaf in leaves.items():
            leaf.grad = gradients[name].clone()
        if clip:
            torch.nn.utils.clip_grad_norm_(leaves.values(), clip)
        oracle.step()
        step_of(adam, 1, {name: g.clone() for name, g in gradients.items()}, schedule, step)
    for name, found in bank.member(bank.storage, 1).items():
        torch.testing.assert_close(found, leaves[name].detach(), rtol=1e-12, atol=1e-14)
    for other in (0, 2):
        for name, found in bank.member(bank.storage, other).items():
            assert torch.equal(found, before[other][name])


def test_how_a_gradient_lies_in_memory_changes_nothing() -> None:
    """Autograd hands back transposes, and torch's fused Adam reads memory as it comes."""
    banks = bank_of("april"), bank_of("april")
    for bank, lay in zip(banks, (lambda g: g, lambda g: g.mT.contiguous().mT if g.ndim == 2 else g), strict=True):
        adam = Adam(bank)
        for step in range(3):
            gradients = random_gradients(bank.member(bank.storage, 1), step)
            step_of(adam, 1, {name: lay(g) for name, g in gradients.items()}, PLAIN, step)
    for name, found in banks[0].storage.items():
        assert torch.equal(found, banks[1].storage[name]), name


def test_lr_is_the_schedules() -> None:
    """Adam's first step is lr in size, whatever the gradient's."""
    bank = bank_of("april")
    schedule = replace(PLAIN, lr_warmup_steps=10, lr_decay_steps=100)
    before = bank.member(bank.storage, 0)["b_enc"].clone()
    step_of(Adam(bank), 0, random_gradients(bank.member(bank.storage, 0), 3), schedule, 0)
    moved = (bank.member(bank.storage, 0)["b_enc"] - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 3e-3 * 0.1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["april", "gated", "jumprelu"])
def test_biases_and_thresholds_have_their_own_lr(kind: str) -> None:
    """Adam's first step of each number is its lr, and rows of a decoder have that of weights."""
    bank = bank_of(kind)
    weights = bank.member(bank.storage, 1)
    before = {name: t.clone() for name, t in weights.items()}
    step_of(Adam(bank), 1, random_gradients(weights, 3), replace(PLAIN, bias_lr=7.0), 0)
    for name, found in weights.items():
        if name == "W_dec" and kind != "april":
            continue  # on the unit sphere
        lr = 3e-3 if name.startswith("W_") else 7 * 3e-3
        moved = (found - before[name]).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, lr), rtol=1e-4, atol=0)


def test_members_have_their_own_step_count() -> None:
    """Bias correction goes by the member's own step, not by the bank's."""
    bank = bank_of("april")
    adam = Adam(bank)
    for step in range(5):
        step_of(adam, 0, random_gradients(bank.member(bank.storage, 0), step), PLAIN, step)
    before = bank.member(bank.storage, 1)["b_enc"].clone()
    step_of(adam, 1, random_gradients(bank.member(bank.storage, 1), 3), PLAIN, 0)
    moved = (bank.member(bank.storage, 1)["b_enc"] - before).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 3e-3), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["bricken", "gated", "topk"])
def test_decoder_gradient_is_projected_before_adam_and_rows_renormalised_after(kind: str) -> None:
    bank = bank_of(kind)
    adam = Adam(bank)
    w = bank.member(bank.storage, 2)["W_dec"].clone()
    m = torch.zeros_like(w)
    v = torch.zeros_like(w)
    for step in range(6):
        gradients = random_gradients(bank.member(bank.storage, 2), step)
        g = gradients["W_dec"] - (gradients["W_dec"] * w).sum(1, keepdim=True) * w
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        w = w - 3e-3 * m_hat / (v_hat.sqrt() + 1e-8)
        w = w / w.norm(dim=1, keepdim=True)
        step_of(adam, 2, gradients, PLAIN, step)
        found = bank.member(bank.storage, 2)["W_dec"]
        torch.testing.assert_close(found, w, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(found.norm(dim=1), torch.ones(16, dtype=torch.float64), rtol=1e-15, atol=1e-15)
    own_moment = bank.member(adam.moments["first_moment"], 2)["W_dec"]
    torch.testing.assert_close(own_moment, m, rtol=1e-10, atol=1e-14)


def test_clipping_sees_the_projected_gradient() -> None:
    """A gradient that is all along the decoder row is none: it must not use up the clip."""
    bank = bank_of("bricken")
    weights = bank.member(bank.storage, 0)
    gradients = {name: torch.zeros_like(w) for name, w in weights.items()}
    gradients["W_dec"] = 1e6 * weights["W_dec"]
    gradients["b_enc"][0] = 0.5
    adam = Adam(bank)
    step_of(adam, 0, gradients, replace(PLAIN, clip=1.0), 0)
    assert bank.member(adam.moments["first_moment"], 0)["b_enc"][0].item() == pytest.approx(0.05, rel=1e-6)
    assert bank.member(adam.moments["first_moment"], 0)["W_dec"].abs().max() < 1e-9


def test_remove_radial_leaves_the_tangent() -> None:
    w = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=torch.float64)
    g = torch.tensor([[5.0, 0.0], [2.0, 7.0]], dtype=torch.float64)
    remove_radial(g, w)
    torch.testing.assert_close(g, torch.tensor([[3.2, -2.4], [0.0, 7.0]], dtype=torch.float64))


@pytest.mark.parametrize("limit", [1e-3, 1.0, 50.0])
def test_clip_is_torchs(limit: float) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = {n: torch.randn(4, 3, generator=generator, dtype=torch.float64) for n in "abc"}
    leaves = [torch.zeros(4, 3, dtype=torch.float64).requires_grad_() for _ in gradients]
    for leaf, g in zip(leaves, gradients.values(), strict=True):
        leaf.grad = g.clone()
    torch.nn.utils.clip_grad_norm_(leaves, limit)
    clip_norm(gradients, limit)
    for leaf, g in zip(leaves, gradients.values(), strict=True):
        torch.testing.assert_close(g, leaf.grad, rtol=1e-13, atol=0)
    assert math.sqrt(sum(float(g.square().sum()) for g in gradients.values())) <= max(limit, 6.1)


@pytest.mark.parametrize("member", [0, 1, 2])
def test_forget_zeroes_both_moments_of_the_named_rows_of_one_member(member: int) -> None:
    bank = bank_of("gated")
    adam = Adam(bank)
    for m in range(3):
        for step in range(2):
            step_of(adam, m, random_gradients(bank.member(bank.storage, m), step), PLAIN, step)
    before = [{k: t.clone() for k, t in moment.items()} for moment in adam.moments.values()]
    latents = torch.tensor([1, 4])
    names = ("W_enc", "b_mag")
    adam.forget(member, latents, names)
    start = sum(problems.WIDTHS[:member])
    for moment, old in zip(adam.moments.values(), before, strict=True):
        for name, t in moment.items():
            expected = old[name].clone()
            if name in names:
                assert expected[latents + start].count_nonzero() > 0
                expected[latents + start] = 0
            assert torch.equal(t, expected), name
