"""A whole short training equals one written from scratch: reference losses, torch's Adam, the papers' constraint."""

import math

import pytest
import torch
from torch import Tensor

from sae_sweep.architectures.topk import TopKConfig
from tests.golden.fixed_problem import BATCH, KINDS, KNOBS, STEPS, WIDTH, first_parameters, inputs, trained
from tests.saes import reference
from tests.saes.reference import Terms
from tests.training.fabricate import D, member_configuration

BETA1 = {"standard": 0.9, "april": 0.9, "gated": 0.0, "topk": 0.9}
EPS = {"topk": 6.25e-10}
CLIP = {"april": 1.0}


def lr_factor(kind: str, step: int) -> float:
    """One step of warm-up (a twentieth of 30), and April's decay over the last fifth."""
    warm = 0.1 if step == 0 else 1.0
    return warm * min(1.0, (STEPS - step) / 6) if kind == "april" else warm


def terms_of(kind: str, p: dict[str, Tensor], x_BD: Tensor, dead_F: Tensor, variance: float) -> Terms:
    if kind == "topk":
        return reference.topk(p, x_BD, 2, dead_F, 3, 1 / 32, variance)
    return {"standard": reference.bricken, "april": reference.april, "gated": reference.gated}[kind](p, x_BD)


@pytest.mark.parametrize("kind", KINDS)
def test_thirty_steps_from_scratch(kind: str) -> None:
    x = inputs()
    if kind == "april":
        x = x * (math.sqrt(D) / x.norm(dim=1).mean())
    variance = float((x - x.mean(0)).square().sum(1).mean())
    p = {name: t.clone().requires_grad_() for name, t in first_parameters(kind).items()}
    adam = torch.optim.Adam(p.values(), lr=1.0, betas=(BETA1[kind], 0.999), eps=EPS.get(kind, 1e-8))
    silent_F = torch.zeros(WIDTH, dtype=torch.int64)
    losses, dead_seen = [], 0
    for step in range(STEPS):
        terms = terms_of(kind, p, x[step * BATCH : (step + 1) * BATCH], silent_F >= 2, variance)
        dead_seen += int((silent_F >= 2).any())
        l1 = 0.0 if kind == "topk" else 0.3 * (min(1, step / 6) if kind == "april" else 1)
        loss = terms.total(l1)
        adam.zero_grad()
        loss.backward()
        w = p["W_dec"]
        assert w.grad is not None
        if kind != "april":
            w.grad -= (w.grad * w.detach()).sum(1, keepdim=True) * w.detach()
        if kind in CLIP:
            torch.nn.utils.clip_grad_norm_(p.values(), CLIP[kind])
        adam.param_groups[0]["lr"] = 5e-3 * lr_factor(kind, step)
        adam.step()
        if kind != "april":
            w.data /= w.data.norm(dim=1, keepdim=True)
        silent_F = torch.where((terms.f_BF > 0).any(0), 0, silent_F + 1)
        losses.append(loss.item())
    assert dead_seen > 0 or kind != "topk"
    made = trained(kind)
    assert [record.values["loss"] for record in made.records] == pytest.approx(losses, rel=1e-9)
    for name, found in made.bank.member(made.bank.storage, 0).items():
        torch.testing.assert_close(found, p[name].detach(), rtol=1e-9, atol=1e-10)


def test_the_problem_is_what_the_test_says() -> None:
    config = member_configuration("topk", **KNOBS["topk"]).sae
    assert isinstance(config, TopKConfig)
    assert (config.k, config.auxk, config.auxk_coefficient, config.dead_after_tokens) == (2, 3, 1 / 32, 2 * BATCH)
