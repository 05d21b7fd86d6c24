"""One tiny problem whose every number is a formula in float64, so that its losses are the same on any machine."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sae_sweep.activations.block import Block
from sae_sweep.activations.scaling import site_statistics
from sae_sweep.plan.groups import BankPlan
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.trainer import BankTrainer
from tests.training.fabricate import FREE_DECODER, SITE, D, before, logged, member

STEPS, BATCH, WIDTH = 30, 32, 20
KNOBS: dict[str, dict[str, Any]] = {
    "standard": {"sae_l1": 0.3, "sae_resample": False, "training_lr": 5e-3},
    "april": {"sae_l1": 0.3, "sae_resample": False, "training_lr": 5e-3, "training_sparsity_warmup_steps": 6},
    "gated": {"sae_l1": 0.3, "sae_resample": False, "training_lr": 5e-3},
    "topk": {"sae_k": 2, "sae_auxk": 3, "sae_dead_after_tokens": 2 * BATCH, "training_lr": 5e-3},
    "gated_decoder_norm": {
        "sae_l1": 0.3,
        "sae_resample": False,
        "training_lr": 5e-3,
        "training_sparsity_warmup_steps": 6,
    },
    "p_anneal": {"sae_l1": 0.1, "sae_resample": False, "training_lr": 5e-3, "training_sparsity_warmup_steps": 6},
    "batchtopk": {"sae_k": 2, "sae_auxk": 3, "sae_dead_after_tokens": 2 * BATCH, "training_lr": 5e-3},
    "matryoshka": {"sae_k": 2, "sae_groups": 3, "sae_auxk": 3, "sae_dead_after_tokens": 2 * BATCH, "training_lr": 5e-3},
    "jumprelu": {
        "sae_l0_coefficient": 0.02,
        "sae_bandwidth": 0.1,
        "sae_resample": False,
        "training_lr": 5e-3,
        "training_sparsity_warmup_steps": 6,
    },
    "jumprelu_anthropic": {
        "sae_l0_coefficient": 0.5,
        "sae_bandwidth": 1.0,
        "sae_preactivation_coefficient": 0.1,
        "sae_resample": False,
        "training_lr": 5e-3,
    },
    "hierarchical_topk": {
        "sae_k": 2,
        "sae_budgets": "powers",
        "sae_auxk": 3,
        "sae_dead_after_tokens": 2 * BATCH,
        "training_lr": 5e-3,
    },
    "ortsae": {
        "sae_k": 2,
        "sae_orthogonality_chunk": 8,
        "sae_auxk": 3,
        "sae_dead_after_tokens": 2 * BATCH,
        "training_lr": 5e-3,
    },
    "temporal": {
        "sae_k": 2,
        "sae_high_share": 0.3,
        "sae_auxk": 3,
        "sae_dead_after_tokens": 2 * BATCH,
        "training_lr": 5e-3,
    },
    "jumprelu_gemma_scope_2": {
        "sae_l0": 3.0,
        "sae_groups": 3,
        "sae_bandwidth": 0.1,
        "sae_resample": False,
        "training_lr": 5e-3,
        "training_sparsity_warmup_steps": 6,
    },
}
KINDS = tuple(KNOBS)


def pattern(rows: int, columns: int, phase: float) -> Tensor:
    """[rows, columns] float64 between -1 and 1, without any visible order."""
    index = torch.arange(rows * columns, dtype=torch.float64).view(rows, columns)
    return torch.sin(index * index * 0.37 + index * 1.7 + phase)


def inputs() -> Tensor:
    """[STEPS x BATCH, D]: a mean, and a few of twelve directions at a time."""
    rows = STEPS * BATCH
    sizes = (pattern(rows, 12, 0.3) - 0.6).clamp(min=0) * 4
    return sizes @ pattern(12, D, 2.0) + 0.05 * pattern(rows, D, 4.0) + 0.5


def first_parameters(kind: str) -> dict[str, Tensor]:
    rows_FD = pattern(WIDTH, D, 1.0)
    unit_FD = rows_FD / rows_FD.norm(dim=1, keepdim=True)
    W_dec = unit_FD * 0.3 if kind in FREE_DECODER else unit_FD
    biases = ("b_gate", "r_mag", "b_mag") if kind.startswith("gated") else ("b_enc",)
    small = {name: 0.05 * pattern(WIDTH, 1, i + 5.0).flatten() for i, name in enumerate(biases)}
    if kind.startswith("jumprelu"):
        small["log_threshold"] = -1.5 + 0.5 * pattern(WIDTH, 1, 8.0).flatten()
    return {"W_enc": W_dec.clone(), "W_dec": W_dec, **small, "b_dec": 0.4 + 0.2 * pattern(D, 1, 3.0).flatten()}


def trained(kind: str, **keys: Any) -> BankTrainer:
    """The trainer after its 30 steps, a record of each."""
    tokens = float(STEPS * BATCH)
    one = member(kind, sae_width=WIDTH, training_tokens=tokens, training_batch_size=BATCH, **KNOBS[kind], **keys)
    block = Block(0, 0, {SITE.hook: inputs()}, {SITE.hook: torch.zeros(STEPS * BATCH, dtype=torch.int64)})
    block = replace(block, before_B=before(STEPS * BATCH))
    calibration = Calibration((site_statistics(block)[SITE.hook],), torch.device("cpu"), torch.float64)
    made = BankTrainer(BankPlan(SITE, (logged(one, 1),)), calibration)
    own = made.bank.member(made.bank.storage, 0)
    for name, t in first_parameters(kind).items():
        own[name].copy_(t)
    made.consume(block, lambda: None)
    return made
