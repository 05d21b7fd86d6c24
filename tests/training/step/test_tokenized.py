"""A member with a lookup table: where its rows start, what it trains on, and how fast the rows move."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.saes import reference, reference_topk
from tests.training.fabricate import SITE, VOCABULARY, D, activations, block, member, parameters, trainer, unigrams

STEPS, BATCH = 8, 32
KNOBS: dict[str, dict[str, Any]] = {
    "standard": {"sae_l1": 0.2, "sae_resample": False},
    "april": {"sae_l1": 0.2, "sae_resample": False, "training_sparsity_warmup_steps": 0},
    "gated": {"sae_l1": 0.2, "sae_resample": False},
    "topk": {"sae_k": 3, "sae_auxk": 0},
}


def seen(kind: str, centre: bool) -> tuple[Tensor, Tensor]:
    """Inputs of the first block, and what the model gives for each token, as the member sees them."""
    raw_BD, raw_VD = activations(STEPS * BATCH).double(), unigrams().double()
    if centre:
        raw_BD, raw_VD = raw_BD - raw_BD.mean(0), raw_VD - raw_BD.mean(0)
    scale = D**0.5 / raw_BD.norm(dim=1).mean() if kind == "april" else 1.0
    return scale * raw_BD, scale * raw_VD


def terms_of(kind: str, p: dict[str, Tensor], x_BD: Tensor, target_BD: Tensor) -> reference.Terms:
    if kind == "topk":
        nobody = torch.zeros(len(p["W_enc"]), dtype=torch.bool)
        return reference_topk.topk(p, x_BD, 3, nobody, 0, 0.0, 1.0, target_BD)
    return {"standard": reference.bricken, "april": reference.april, "gated": reference.gated}[kind](p, x_BD, target_BD)


@pytest.mark.parametrize(
    ("lookup", "subtract", "centre"), [("learned", False, False), ("learned", True, True), ("frozen", False, True)]
)
@pytest.mark.parametrize("kind", KNOBS)
def test_eight_steps_from_scratch(kind: str, lookup: str, subtract: bool, centre: bool) -> None:
    """Torch's Adam with a second group for the table, whose lr follows the member's schedule."""
    table = {"sae_lookup": lookup, "sae_lookup_subtract": subtract, "sae_lookup_scale": 0.3, "sae_lookup_lr": 0.02}
    # Of 160 steps the first eight are all warm-up.
    keys = {**KNOBS[kind], "training_lr": 5e-3, "training_tokens": float(160 * BATCH), "sae_centre": centre}
    made = trainer([member(kind, **keys, **table)], log_every=1)
    inputs_BD, alone_VD = seen(kind, centre)
    start = {name: t.clone() for name, t in parameters(made, 0).items() if name != "lookup"}
    stored = made.bank.storage if lookup == "learned" else made.bank.buffers
    first_VD = 0.3 * (alone_VD - start["b_dec"])
    torch.testing.assert_close(stored["lookup"][0], first_VD, rtol=1e-6, atol=1e-6)
    if kind != "april" and not centre:
        assert start["b_dec"].norm() > 0.1

    p = {name: t.requires_grad_() for name, t in start.items()}
    rows = stored["lookup"][0].clone().requires_grad_(lookup == "learned")
    groups = [{"params": list(p.values()), "lr": 5e-3}]
    groups += [{"params": [rows], "lr": 0.02}] if lookup == "learned" else []
    beta1 = 0.0 if kind == "gated" else 0.9
    adam = torch.optim.Adam(groups, betas=(beta1, 0.999), eps=6.25e-10 if kind == "topk" else 1e-8)
    peaks, losses = [group["lr"] for group in groups], []
    token_B = block(0).tokens[SITE.hook]
    for step in range(STEPS):
        batch = slice(step * BATCH, (step + 1) * BATCH)
        x_BD, target_BD = reference.tokenized({"lookup": rows}, inputs_BD[batch], token_B[batch], subtract)
        loss = terms_of(kind, p, x_BD, target_BD).total(float(KNOBS[kind].get("sae_l1", 0)))
        adam.zero_grad()
        loss.backward()
        w = p["W_dec"]
        assert w.grad is not None
        if kind != "april":
            w.grad -= (w.grad * w.detach()).sum(1, keepdim=True) * w.detach()
        else:
            torch.nn.utils.clip_grad_norm_([*p.values(), *([rows] if lookup == "learned" else [])], 1.0)
        for group, peak in zip(adam.param_groups, peaks, strict=True):
            group["lr"] = peak * warm_up(step)
        adam.step()
        if kind != "april":
            w.data /= w.data.norm(dim=1, keepdim=True)
        losses.append(loss.item())

    made.consume(block(0, rows=STEPS * BATCH), lambda: None)
    assert [record.values["loss"] for record in made.records] == pytest.approx(losses, rel=1e-8)
    torch.testing.assert_close(stored["lookup"][0], rows.detach(), rtol=1e-8, atol=1e-9)
    assert bool((rows - first_VD).abs().max() > 1e-3) == (lookup == "learned")
    assert stored["lookup"].shape == (1, VOCABULARY, D)


def warm_up(step: int) -> float:
    """0.1 at first, 1 after a twentieth of 160 steps, half a cosine between."""
    return 0.1 + 0.9 * (1 - float(torch.cos(torch.tensor(torch.pi * min(step, 8) / 8, dtype=torch.float64)))) / 2
