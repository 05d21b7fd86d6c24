"""A whole short training equals one written from scratch: reference losses, torch's Adam, the papers' constraint."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sae_sweep.architectures.topk.facts import TopKConfig
from sae_sweep.saes.base import Clock
from tests.golden.fixed_problem import BATCH, KINDS, KNOBS, STEPS, WIDTH, first_parameters, inputs, trained
from tests.saes import reference, reference_jumprelu, reference_topk
from tests.saes.problems import chunks
from tests.saes.reference import Terms
from tests.training.fabricate import FREE_DECODER, TOPK_KINDS, D, before, member_configuration

BETAS = {
    **dict.fromkeys(("gated", "gated_decoder_norm", "jumprelu", "jumprelu_gemma_scope_2"), (0.0, 0.999)),
    **dict.fromkeys(("batchtopk", "ortsae"), (0.9, 0.99)),
}
EPS = dict.fromkeys(("topk", "hierarchical_topk"), 6.25e-10)
CLIP = dict.fromkeys(("april", "jumprelu_anthropic", "matryoshka", "temporal"), 1.0)
LR_DECAYS = ("april", "p_anneal", "jumprelu_anthropic", "matryoshka")
RAMP_STEPS = {
    **dict.fromkeys(("april", "gated_decoder_norm", "p_anneal", "jumprelu", "jumprelu_gemma_scope_2"), 6),
    "jumprelu_anthropic": STEPS,
}
SQRT_D, UNIT = (
    ("april", "jumprelu_anthropic"),
    (
        *("p_anneal", "jumprelu"),
        *("ortsae", "jumprelu_gemma_scope_2", "matryoshka"),
    ),
)


def lr_factor(kind: str, step: int) -> float:
    """One step of warm-up (a twentieth of 30), and for some a decay over the last fifth."""
    warm = 0.1 if step == 0 else 1.0
    return warm * min(1.0, (STEPS - step) / 6) if kind in LR_DECAYS else warm


def coefficient(kind: str, step: int) -> float:
    aimed = float("sae_l0" in KNOBS[kind])
    knob = float(KNOBS[kind].get("sae_l1", KNOBS[kind].get("sae_l0_coefficient", aimed)))
    return knob * min(1, step / RAMP_STEPS[kind] if kind in RAMP_STEPS else 1)


def scaled_inputs(kind: str) -> Tensor:
    x = inputs()
    if kind in SQRT_D:
        return x * (math.sqrt(D) / x.norm(dim=1).mean())
    return x / x.square().sum(1).mean().sqrt() if kind in UNIT else x


class Annealing:
    """p_anneal's exponent, from step 1 (a twentieth of 30) to 24 (four fifths), and its penalty's scale."""

    def __init__(self) -> None:
        self.scale = 1.0
        self.since: list[Tensor] = []

    def exponent(self, step: int) -> float:
        return 1 - 0.8 * max(0, min(10, math.floor((step - 1) * 10 / 23))) / 10

    def after(self, step: int, f_BF: Tensor) -> None:
        old, new = self.exponent(step), self.exponent(step + 1)
        self.since.append(f_BF.detach())
        if new != old:
            last = self.since[-10:]
            self.scale *= float(sum(reference.lp(f, old) for f in last) / sum(reference.lp(f, new) for f in last))
            self.since = []


class Falling:
    """The target of an L0 of 3: from the first step's it falls by the same factor for six steps, 16 times or to 3."""

    first = 0.0

    def at(self, step: int, p: dict[str, Tensor], x_BD: Tensor) -> float:
        if step == 0:
            self.first = float((reference.preactivations(p, x_BD) > p["log_threshold"].exp()).sum(1).double().mean())
        return max(3.0, self.first * max(self.first / 3, 16) ** -min(1, step / 6))


def terms_of(
    kind: str,
    p: dict[str, Tensor],
    x_BD: Tensor,
    dead_F: Tensor,
    variance: float,
    p_and_s: tuple[float, float],
    step: int = 0,
    before_BD: Tensor | None = None,
    falling: Falling | None = None,
) -> Terms:
    match kind:
        case "hierarchical_topk":
            return reference_topk.hierarchical(p, x_BD, [1, 2], dead_F, 3, 1 / 32, variance)
        case "temporal":
            assert before_BD is not None
            there_B = before(STEPS * BATCH)[step * BATCH :][:BATCH] >= 0
            knobs = (2, round(0.3 * WIDTH), 2.0, dead_F, 3, 1 / 32, variance)
            return reference_topk.temporal(p, x_BD, before_BD, there_B, *knobs)
        case "ortsae":
            own = chunks(WIDTH, 8, Clock(step, STEPS, 0))
            return reference_topk.orthogonal(p, x_BD, 2, own, 0.25, dead_F, 3, 1 / 32, variance)
        case "jumprelu_gemma_scope_2":
            assert falling is not None
            goal = (falling.at(step, p, x_BD), 3.0 / falling.at(step, p, x_BD))  # w sae.l0, whatever the target is
            whole = reference_jumprelu.deepmind(p, x_BD, 0.1, "quadratic_frequency", goal, variance=3 * variance)
            return reference_topk.with_prefixes(whole, p, x_BD, [2, 7, WIDTH])
        case "topk":
            return reference_topk.topk(p, x_BD, 2, dead_F, 3, 1 / 32, variance)
        case "batchtopk":
            return reference_topk.batchtopk(p, x_BD, 2, dead_F, 3, 1 / 32, variance)
        case "matryoshka":
            return reference_topk.matryoshka(p, x_BD, 2, [2, 7, WIDTH], dead_F, 3, 1 / 32, variance)
        case "jumprelu":
            return reference_jumprelu.deepmind(p, x_BD, 0.1, "l0")
        case "jumprelu_anthropic":
            return reference_jumprelu.anthropic(p, x_BD, 1.0, 0.1)
        case "p_anneal":
            return reference.p_anneal(p, x_BD, *p_and_s)
        case "standard":
            return reference.bricken(p, x_BD)
    return {"april": reference.april, "gated": reference.gated, "gated_decoder_norm": reference.gated_decoder_norm}[
        kind
    ](p, x_BD)


@pytest.mark.parametrize(("kind", "keys"), [*((kind, {}) for kind in KINDS), ("jumprelu", {"sae_free_decoder": True})])
def test_thirty_steps_from_scratch(kind: str, keys: dict[str, Any]) -> None:
    unit_decoder = kind not in FREE_DECODER and not keys
    x = scaled_inputs(kind)
    earlier_BD = x[before(len(x)).clamp(min=0)]
    variance = float((x - x.mean(0)).square().sum(1).mean())
    p = {name: t.clone().requires_grad_() for name, t in first_parameters(kind).items()}
    adam = torch.optim.Adam(p.values(), lr=1.0, betas=BETAS.get(kind, (0.9, 0.999)), eps=EPS.get(kind, 1e-8))
    silent_F = torch.zeros(WIDTH, dtype=torch.int64)
    losses, dead_seen, annealing, falling = [], 0, Annealing(), Falling()
    for step in range(STEPS):
        x_BD, p_and_s = x[step * BATCH : (step + 1) * BATCH], (annealing.exponent(step), annealing.scale)
        terms = terms_of(
            kind, p, x_BD, silent_F >= 2, variance, p_and_s, step, earlier_BD[step * BATCH :][:BATCH], falling
        )
        annealing.after(step, terms.f_BF)
        dead_seen += int((silent_F >= 2).any())
        loss = terms.total(coefficient(kind, step))
        adam.zero_grad()
        loss.backward()
        w = p["W_dec"]
        assert w.grad is not None
        if unit_decoder:
            w.grad -= (w.grad * w.detach()).sum(1, keepdim=True) * w.detach()
        if kind in CLIP:
            torch.nn.utils.clip_grad_norm_(p.values(), CLIP[kind])
        adam.param_groups[0]["lr"] = 5e-3 * lr_factor(kind, step)
        adam.step()
        if unit_decoder:
            w.data /= w.data.norm(dim=1, keepdim=True)
        silent_F = torch.where((terms.f_BF > 0).any(0), 0, silent_F + 1)
        losses.append(loss.item())
    assert dead_seen > 0 or kind not in TOPK_KINDS
    made = trained(kind, **keys)
    assert [record.values["loss"] for record in made.records] == pytest.approx(losses, rel=1e-9)
    for name, found in made.bank.member(made.bank.storage, 0).items():
        torch.testing.assert_close(found, p[name].detach(), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", TOPK_KINDS)
def test_the_problem_is_what_the_test_says(kind: str) -> None:
    config = member_configuration(kind, **KNOBS[kind]).sae
    assert isinstance(config, TopKConfig)
    assert (config.k, config.auxk, config.auxk_coefficient, config.dead_after_tokens) == (2, 3, 1 / 32, 2 * BATCH)
