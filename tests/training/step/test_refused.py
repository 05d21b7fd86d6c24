"""Memory that does not last in the middle of a step: it ends as one for which it did, bit for bit."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

from sae_sweep.saes import base
from sae_sweep.training.step import trainer as trainer_module
from sae_sweep.training.step.trainer import BankTrainer
from tests.device.kinds import STEERED, knobs
from tests.device.padded import padded
from tests.device.test_rooms import encoder
from tests.training.fabricate import KINDS, block, member, others_as_evidence, trainer
from tests.training.refusing import Refusing

LOOKS = 16
"""The step that looks at routes and divergence, and is logged."""
BATCH = block(LOOKS // 8, rows=32)
EVERY = 17
"""Operators between two at which memory is refused before anything is to change."""


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "give_back", lambda: None)


def warmed(members: list[Any], prepare: Callable[[BankTrainer], None] = lambda made: None) -> BankTrainer:
    """A trainer whose next step looks and is logged."""
    made = trainer(members, torch.float32, log_every=LOOKS)
    prepare(made)
    for index in range(LOOKS // 8):
        made.consume(block(index), lambda: None)
    assert all(one.step == LOOKS for one in made.members)
    return made


def step(made: BankTrainer) -> None:
    made.consume(BATCH, lambda: None)


def state(made: BankTrainer) -> dict[str, Any]:
    return {
        "tensors": {name: tensor.clone() for name, tensor in made.trained.tensors().items()},
        "numbers": [one.numbers() for one in made.members],
        "records": list(made.records),
    }


def put_back(made: BankTrainer, before: dict[str, Any]) -> None:
    for name, tensor in made.trained.tensors().items():
        tensor.copy_(before["tensors"][name])
    for one, numbers in zip(made.members, before["numbers"], strict=True):
        one.load_numbers(numbers)
    made.records[:], made._most_members = before["records"], len(made.members)
    made._rooms._lost_M.zero_()


def assert_same(found: dict[str, Any], expected: dict[str, Any], at: object) -> None:
    assert found["numbers"] == expected["numbers"], at
    assert [one.values for one in found["records"]] == [one.values for one in expected["records"]], at
    for name, tensor in expected["tensors"].items():
        assert torch.equal(found["tensors"][name].nan_to_num(), tensor.nan_to_num()), (at, name)


def phases(made: BankTrainer, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, int], Refusing]:
    """Operators up to the step, up to when it changes something, and until it has."""
    found: dict[str, int] = {}
    started: list[dict[str, Any]] = []
    with monkeypatch.context() as patched, Refusing() as mode:
        for name in ("_step", "_change"):
            real = getattr(made, name)

            def noted(*given: Any, real: Any = real, name: str = name) -> Any:
                with _disable_current_modes():
                    started.append(state(made))
                found.setdefault(f"before {name}", mode.count)
                result = real(*given)
                found.setdefault(f"after {name}", mode.count)
                return result

            patched.setattr(made, name, noted)
        step(made)
    assert_same(started[1], started[0], "nothing changes before")
    return found, mode


def refusals(made: BankTrainer, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Memory refused at one operator after the other, of a step that is then found to be the same."""
    before = state(made)
    step(made)
    expected = state(made)
    put_back(made, before)
    at, mode = phases(made, monkeypatch)
    assert_same(state(made), expected, "once more")
    changing = range(at["before _change"], at["after _change"])
    assert not set(mode.taken) & set(changing), "what changes something takes no memory"
    assert len(changing) >= 2
    for refused in (*range(at["before _step"], changing.start, EVERY), *changing):
        put_back(made, before)
        with Refusing(refused) as mode:
            step(made)
        assert mode.count > refused
        assert made.whole
        assert_same(state(made), expected, refused)
        yield refused


@pytest.mark.parametrize("kind", others_as_evidence((kind,) for kind in KINDS))
def test_a_step_is_all_or_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = warmed([member(kind, **knobs(kind, l0=kind in STEERED))])
    assert len(list(refusals(made, monkeypatch))) > 5


@pytest.mark.parametrize("keys", [{"sae_lookup": "learned"}, {"sae_trained": "encoder"}, {"training_bias_lr": 3}])
def test_nor_is_one_with_a_table_or_parts_that_stay(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made = warmed([member("standard", sae_l1=0.3, **keys)])
    assert len(list(refusals(made, monkeypatch))) > 5


@pytest.mark.parametrize("slack", [1.5, 0.0])
@pytest.mark.parametrize("kind", ["gated", "batchtopk", "p_anneal"])
def test_nor_is_one_whose_lists_have_fixed_lengths(kind: str, slack: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, and where a list is too short: that step is taken again."""
    padded(monkeypatch)
    monkeypatch.setattr(base, "encoder_of", encoder)

    def asks_nothing(made: BankTrainer) -> None:
        made._rooms.asked, made._half = False, None

    made = warmed([member(kind, **knobs(kind, l0=False))], asks_nothing)
    monkeypatch.setattr(trainer_module.Rooms, "of", _of(slack))
    made.members[0].dense = False
    assert len(list(refusals(made, monkeypatch))) > 5
    assert (made.members[0].crowd > 1) == (slack == 0) or kind == "batchtopk", "which knows how many there are"


def _of(slack: float) -> Any:
    from sae_sweep.kernels.entries import Room

    def of(rooms: Any, members: slice, seen: list[int], *_: Any) -> Room:
        return Room(int(slack * sum(seen)) + 64, (rooms._lost_M[members] > 0).any(), None)

    return of


def test_members_that_step_together_are_taken_apart_or_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything changes half of them step at a time; after that what is left is done."""
    made = warmed([member("gated", **knobs("gated", l0=True), seed=seed) for seed in range(3)])
    before = state(made)
    at, _ = phases(made, monkeypatch)
    expected = state(made)
    early = range(at["before _step"], at["before _change"], EVERY)
    for refused in (*early, *range(at["before _change"], at["after _change"])):
        put_back(made, before)
        with Refusing(refused):
            step(made)
        assert made._most_members == (1 if refused < at["before _change"] else 3)
        assert state(made)["numbers"] == expected["numbers"]
        for name, tensor in made.trained.tensors().items():
            torch.testing.assert_close(tensor, expected["tensors"][name], rtol=1e-5, atol=1e-6, equal_nan=True)


def test_what_is_refused_twice_is_raised() -> None:
    """A kernel's code for which there never is room."""
    made = warmed([member("gated", **knobs("gated", l0=True))])

    def refused() -> None:
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    real = made.trained.adam.update
    made.trained.adam.update = lambda *given: [*real(*given), refused]  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="Triton Error"):
        step(made)
    assert not made.whole
