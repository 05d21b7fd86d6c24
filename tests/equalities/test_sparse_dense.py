"""Sparse step == dense autograd: a member's route changes what a step costs, never where it leads."""

from typing import Any

import pytest
import torch

from sae_sweep.training import trainer as trainer_module
from sae_sweep.training.trainer import BankTrainer
from tests.training.fabricate import KINDS, block, member, parameters, trainer

STEPS = 20
KNOBS: dict[str, list[dict[str, Any]]] = {
    kind: [{"sae_l1": 0.05}, {"sae_l1": 2.0, "sae_width": 40}, {"sae_l0": 2.0, "seed": 5}] for kind in KINDS
}
KNOBS["topk"] = [{"sae_k": 1}, {"sae_k": 9, "sae_width": 40}, {"sae_k": 24, "seed": 5}]


def run(kind: str, dense: bool, monkeypatch: pytest.MonkeyPatch) -> BankTrainer:
    """Twenty steps of one route, from the first on."""
    monkeypatch.setattr(trainer_module, "DENSE_ABOVE", -1.0 if dense else 2.0)
    group = [member(kind, training_lr=1e-2, **knob) for knob in KNOBS[kind]]
    made = trainer(group, log_every=1)
    for state in made.states:
        state.dense = dense
    made.consume(block(0, rows=32 * STEPS), lambda: None)
    assert all(state.dense == dense and state.step == STEPS for state in made.states)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_steps(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse, dense = run(kind, False, monkeypatch), run(kind, True, monkeypatch)
    for index in range(len(sparse.states)):
        for name, expected in parameters(dense, index).items():
            torch.testing.assert_close(parameters(sparse, index)[name], expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(sparse.silent_F, dense.silent_F)
    for own, theirs in zip(sparse.records, dense.records, strict=True):
        assert own.label == theirs.label
        assert own.values == pytest.approx(theirs.values, rel=1e-9, abs=1e-12)


def test_a_member_changes_route_with_its_own_density(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "ROUTE_EVERY", 2)
    made = trainer([member("topk", sae_k=2), member("topk", sae_k=12)])
    assert [state.dense for state in made.states] == [True, True]  # before anything is known
    made.consume(block(0, rows=32), lambda: None)
    assert [state.dense for state in made.states] == [False, True]
