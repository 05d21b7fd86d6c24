"""Trained in a group == trained alone, for every architecture."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from sae_sweep.plan import Member
from sae_sweep.training import trainer as trainer_module
from sae_sweep.training.trainer import BankTrainer
from tests.training.fabricate import KINDS, block, finish, member, parameters, silence, train, trainer

FIXED: dict[str, Any] = {"sae_width": 24, "training_lr": 1e-2, "seed": 1}
L1_MEMBERS: list[dict[str, Any]] = [
    {"sae_l1": 0.05, **FIXED},
    {"sae_l1": 1.5, "sae_width": 40, "training_lr": 3e-2, "seed": 2, "training_clip": 0.5},
    {"sae_l0": 3.0, "sae_width": 17, "training_lr": 2e-2, "seed": 3},  # steered
    {"sae_l1": 0.4, "sae_width": 24, "seed": 1, "training_lr_decay_fraction": 0.3, "training_tokens": 1120.0},
]
MEMBERS: dict[str, list[dict[str, Any]]] = {
    "standard": L1_MEMBERS,
    "april": [{**entries, "training_sparsity_warmup_steps": 7} for entries in L1_MEMBERS],
    "gated": L1_MEMBERS,
    "topk": [
        {"sae_k": 2, **FIXED},
        {"sae_k": 1, "sae_width": 40, "training_lr": 5e-3, "seed": 2, "sae_auxk": 7},
        {"sae_l0": 5.0, "sae_width": 17, "training_lr": 1e-3, "seed": 3},
        {"sae_k": 2, "sae_width": 24, "seed": 1, "sae_auxk": 0, "training_tokens": 1120.0},
    ],
}


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Members choose their route every few steps, so that they change it within the test."""
    monkeypatch.setattr(trainer_module, "ROUTE_EVERY", 4)


def members(kind: str, batch_size: int = 32) -> list[Member]:
    """As many steps whatever the batch size: 50, and 35 of the last."""
    return [
        member(
            kind,
            **{**entries, "training_tokens": entries.get("training_tokens", 1600.0) * batch_size / 32},
            training_batch_size=batch_size,
        )
        for entries in MEMBERS[kind]
    ]


def assert_same(made: BankTrainer, index: int, alone: BankTrainer, tolerance: float) -> None:
    for name, expected in parameters(alone, 0).items():
        found = parameters(made, index)[name]
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


def compare(kind: str, group: Sequence[Member]) -> BankTrainer:
    together = finish(silence(trainer(group, log_every=1), 3))
    for index, one in enumerate(group):
        alone = finish(silence(trainer([one], log_every=1), 3))
        assert_same(together, index, alone, 1e-9)
        assert together.coefficients.value_M[index].item() == pytest.approx(
            alone.coefficients.value_M[0].item(), rel=1e-12
        )
        assert together.dead_fraction(index) == alone.dead_fraction(0)
        assert together.states[index].dense == alone.states[0].dense
        records = [record for record in together.records if record.label == one.label]
        assert [(r.step, r.tokens) for r in records] == [(r.step, r.tokens) for r in alone.records]
        for own, theirs in zip(records, alone.records, strict=True):
            assert own.values == pytest.approx(theirs.values, rel=1e-8, abs=1e-11)
    return together


@pytest.mark.parametrize("batch_size", [32, 48])
@pytest.mark.parametrize("kind", KINDS)
def test_fifty_steps(kind: str, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Different widths, rates, seeds, sparsities and budgets; resampling, steering and AuxK on the way."""
    revived: list[int] = []
    real = trainer_module.resample

    def counted(*args: Any) -> Any:
        latents = real(*args)
        revived.append(len(latents))
        return latents

    monkeypatch.setattr(trainer_module, "resample", counted)
    group = members(kind, batch_size)
    together = compare(kind, group)
    assert [state.step for state in together.states] == [50, 50, 50, 35]
    if kind == "topk":
        auxiliary = {r.label: r.values["auxiliary"] for r in together.records if r.values["auxiliary"] > 0}
        assert {one.label for one in group[:2]} <= auxiliary.keys()
    else:
        assert sum(revived) >= 2 * 3 * len(group)  # together and alone
        steered = [r.values["coefficient"] for r in together.records if r.label == group[2].label]
        assert max(steered) > 1.01 * min(steered)


@pytest.mark.parametrize("kind", KINDS)
def test_however_the_bank_is_cut_into_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(members(kind))
    monkeypatch.setattr(trainer_module, "CHUNK_ELEMENTS", 32 * 45)
    cut = train(members(kind))
    for index in range(len(MEMBERS[kind])):
        for name, expected in parameters(whole, index).items():
            torch.testing.assert_close(parameters(cut, index)[name], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_order_in_the_bank_does_not_matter(kind: str) -> None:
    group = members(kind)
    forth, back = train(group), train(group[::-1])
    for index in range(len(group)):
        for name, expected in parameters(forth, index).items():
            torch.testing.assert_close(parameters(back, len(group) - 1 - index)[name], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_in_float32(kind: str) -> None:
    """Adam's first step is lr x sign of the gradient: equal to rounding, or it would be off by 2 lr."""
    group = members(kind)
    together = trainer(group, torch.float32)
    together.consume(block(0, rows=32), lambda: None)
    for index, one in enumerate(group):
        alone = trainer([one], torch.float32)
        alone.consume(block(0, rows=32), lambda: None)
        assert_same(together, index, alone, 2e-6)
        assert together.states[index].step == 1


@pytest.mark.parametrize("kind", KINDS)
def test_same_config_twice_is_the_same_member_twice(kind: str) -> None:
    one = members(kind)[1]
    made = train([one, one])
    for name, first in parameters(made, 0).items():
        torch.testing.assert_close(parameters(made, 1)[name], first, rtol=1e-9, atol=1e-9)
