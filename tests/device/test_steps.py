"""Steps of every kind of member on a fake GPU: nothing in a plain one waits for it, and no sum is in random order."""

from typing import Any

import pytest
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from sae_sweep.training.step.trainer import BankTrainer
from scripts.bench.fake.log import Log
from tests.device.kinds import KNOBS, STEERED, steps

CASES = [*((kind, False) for kind in KNOBS), *((kind, True) for kind in STEERED)]


@pytest.mark.parametrize(("kind", "l0"), CASES)
def test_a_plain_step_waits_for_nothing(kind: str, l0: bool) -> None:
    first, second, third = steps(kind, l0=l0)
    assert not second[0]
    assert not third[0]
    assert first[0], "the first is looked at"
    assert not (first[1] + second[1] + third[1]), "every sum has an order"


@pytest.mark.parametrize("kind", ["topk", "batchtopk", "matryoshka"])
def test_nor_where_latents_are_dead(kind: str) -> None:
    first, second, third = steps(kind, dead=7)
    assert not second[0]
    assert not third[0]
    assert not (first[1] + second[1] + third[1])


@pytest.mark.parametrize("kind", ["gated", "topk", "jumprelu_target_l0", "p_anneal", "matryoshka"])
def test_nor_of_several_members_together(kind: str) -> None:
    first, second, third = steps(kind, members=3, dead=5)
    assert not second[0]
    assert not third[0]
    assert not (first[1] + second[1] + third[1])


@pytest.mark.parametrize("keys", [{"sae_lookup": "learned"}, {"sae_lookup": "learned", "sae_lookup_subtract": True}])
def test_nor_with_a_table_of_tokens(keys: dict[str, object]) -> None:
    _, second, third = steps("standard", sae_centre=True, **keys)
    assert not second[0]
    assert not third[0]


@pytest.mark.parametrize("kind", KNOBS)
def test_what_changes_something_takes_no_memory(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a step for which there is too little can be taken once more, or by fewer members."""
    taken: list[int] = []
    real = BankTrainer._change

    def change(trainer: BankTrainer, *given: Any) -> None:
        (log,) = (mode for mode in _get_current_dispatch_mode_stack() if isinstance(mode, Log))
        log.peak = before = log.live
        real(trainer, *given)
        taken.append(log.peak - before)

    monkeypatch.setattr(BankTrainer, "_change", change)
    steps(kind, l0=kind in STEERED)
    assert taken == [0, 0, 0]
