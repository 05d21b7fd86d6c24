"""Sparse step == dense autograd: a member's route changes what a step costs, never where it leads."""

from itertools import cycle
from typing import Any

import pytest
import torch

from sae_sweep.saes.encoders import choose
from sae_sweep.training.step import trainer as trainer_module
from sae_sweep.training.step.trainer import BankTrainer
from tests.training.fabricate import KINDS, block, member, others_as_evidence, parameters, trainer

STEPS = 20
L1: list[dict[str, Any]] = [{"sae_l1": 0.05}, {"sae_l1": 2.0, "sae_width": 40}, {"sae_l0": 2.0, "seed": 5}]
L0: list[dict[str, Any]] = [
    {"sae_l0_coefficient": 0.01},
    {"sae_l0_coefficient": 0.3, "sae_width": 40, "sae_bandwidth": 0.3},
    {"sae_l0": 2.0, "seed": 5, "sae_bandwidth": 0.1},
]
K: list[dict[str, Any]] = [{"sae_k": 1}, {"sae_k": 9, "sae_width": 40}, {"sae_k": 24, "seed": 5}]
KNOBS: dict[str, list[dict[str, Any]]] = {
    **dict.fromkeys(KINDS, L1),
    **dict.fromkeys(("topk", "batchtopk"), K),
    "matryoshka": [{"sae_groups": 3, **entries} for entries in K],
    "jumprelu": [{"sae_threshold_init": 0.02, "sae_penalty": "l0", **entries} for entries in L0],
    "jumprelu_target_l0": [
        {"sae_bandwidth": 0.05, "sae_l0": l0, "sae_width": 9 * i} for i, l0 in ((1, 1), (2, 5), (3, 20))
    ],
    "jumprelu_frequency": [{"sae_threshold_init": 0.02, "sae_penalty": "frequency", **entries} for entries in L0],
    "jumprelu_anthropic": [{"sae_preactivation_coefficient": 0.01, **entries} for entries in L0],
    "hierarchical_topk": [{"sae_budgets": "powers", **entries} for entries in K],
    "temporal": [{"sae_high_share": 0.4, **entries} for entries in K],
    "ortsae": [{"sae_orthogonality_chunk": 9, **entries} for entries in K],
    "jumprelu_gemma_scope_2": [
        {"sae_groups": 3, "sae_bandwidth": 0.05, "sae_l0": l0, "sae_width": 9 * i}
        for i, l0 in ((1, 1), (2, 5), (3, 20))
    ],
}


TABLES: list[dict[str, Any]] = [
    {"sae_lookup": "learned"},
    {"sae_lookup": "learned", "sae_lookup_subtract": True, "sae_centre": True},
]
CASES = [
    *((kind, False, {}) for kind in KINDS),
    *others_as_evidence((kind, True, {}) for kind in KINDS),
    *others_as_evidence(zip(KINDS, cycle((False, True, True, False)), cycle(TABLES))),
]
"""The sparse route computes the whole product, or only what bounds leave."""


def run(kind: str, dense: bool, monkeypatch: pytest.MonkeyPatch, **keys: Any) -> BankTrainer:
    """Twenty steps of one route, from the first on."""
    monkeypatch.setitem(trainer_module.DENSE_ABOVE, "cpu", -1.0 if dense else 2.0)
    group = [member(kind, training_lr=1e-2, **knob, **keys) for knob in KNOBS[kind]]
    made = trainer(group, log_every=1)
    for state in made.members:
        state.dense = dense
    made.consume(block(0, rows=32 * STEPS), lambda: None)
    assert all(state.dense == dense and state.step == STEPS for state in made.members)
    return made


@pytest.mark.parametrize(("kind", "screened", "keys"), CASES)
def test_twenty_steps(kind: str, screened: bool, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "screens", lambda x_BD: screened)
    sparse, dense = run(kind, False, monkeypatch, **keys), run(kind, True, monkeypatch, **keys)
    for index in range(len(sparse.members)):
        for name, expected in parameters(dense, index).items():
            torch.testing.assert_close(parameters(sparse, index)[name], expected, rtol=1e-9, atol=1e-9)
    for name, expected in dense.bank.buffers.items():
        torch.testing.assert_close(sparse.bank.buffers[name], expected, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert torch.equal(sparse.trained.silent_F, dense.trained.silent_F)
    for own, theirs in zip(sparse.records, dense.records, strict=True):
        assert own.label == theirs.label
        assert own.values == pytest.approx(theirs.values, rel=1e-9, abs=1e-12)


def test_a_member_changes_route_with_its_own_density(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "ROUTE_EVERY", 2)
    made = trainer([member("topk", sae_k=2), member("topk", sae_k=12)])
    assert [state.dense for state in made.members] == [True, True]  # before anything is known
    made.consume(block(0, rows=32), lambda: None)
    assert [state.dense for state in made.members] == [False, True]
