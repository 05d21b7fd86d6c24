"""Lanes side by side do what members do one after the other."""

from collections.abc import Iterator
from math import inf
from time import sleep

import pytest
import torch

from sae_sweep.activations.block import Block
from sae_sweep.training.devices import lanes as lanes_module
from sae_sweep.training.devices.lanes import Lanes
from sae_sweep.training.step import trainer as trainer_module
from sae_sweep.training.step.trainer import BankTrainer
from tests.training.fabricate import block, member, parameters, trainer


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["threads", "processes"])
def side_by_side(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "PROCESSES_PAY", 0.0 if request.param == "processes" else inf)


def made() -> list[BankTrainer]:
    l1 = [member("gated", sae_l1=l1, training_tokens=tokens) for l1, tokens in ((0.1, 2e3), (0.5, 1e3), (1.0, 2e3))]
    tops = [member("topk", sae_k=k, sae_width=40) for k in (1, 2)]
    return [trainer(own, log_every=5) for own in (l1[:1], l1[1:], tops)]


@pytest.mark.usefixtures("side_by_side")
def test_as_one_after_the_other() -> None:
    apart, together = made(), made()
    ticks: list[None] = []
    with Lanes(together) as lanes:
        for index in range(4):
            lanes.consume(together, block(index), lambda: ticks.append(None))
    assert len(ticks) >= 4
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)  # what each lane has
    for one in apart:
        for index in range(4):
            one.consume(block(index), lambda: None)
    for own, theirs in zip(together, apart, strict=True):
        assert [state.step for state in own.members] == [state.step for state in theirs.members]
        assert [(r.label, r.step, r.values) for r in own.records] == [
            (r.label, r.step, r.values) for r in theirs.records
        ]
        for index in range(len(own.members)):
            for name, expected in parameters(theirs, index).items():
                assert torch.equal(parameters(own, index)[name], expected)


def shares(trainers: list[BankTrainer], cores: int) -> list[int]:
    """How many cores torch has where each of these steps."""
    found = []
    for one in trainers:
        one.consume = lambda block, after_step: found.append(torch.get_num_threads())  # type: ignore[method-assign]
    torch.set_num_threads(cores)
    with Lanes(trainers) as lanes:
        lanes.consume(trainers, block(0), lambda: None)
    assert torch.get_num_threads() == cores
    return found


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("cores", [1, 2, 12])
def test_small_members_have_a_core_each(members: int, cores: int) -> None:
    assert shares(made()[:members], cores) == [1] * members


@pytest.mark.parametrize(("members", "cores", "share"), [(1, 12, 12), (3, 2, 1), (3, 12, 4)])
def test_large_members_share_all_cores(members: int, cores: int, share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "CACHE_BYTES", 4 * 8 * 40 - 1)  # below the last member's encoder
    assert shares(made()[-members:], cores) == [share] * members


@pytest.mark.usefixtures("side_by_side")
def test_a_bank_alone_in_its_wave_steps_as_among_the_others() -> None:
    together, in_turn = made(), made()
    with Lanes(together) as lanes:
        lanes.consume(together, block(0), lambda: None)
    with Lanes(in_turn) as lanes:
        for one in in_turn:
            lanes.consume([one], block(0), lambda: None)
    for own, theirs in zip(together, in_turn, strict=True):
        assert torch.equal(parameters(own, 0)["W_dec"], parameters(theirs, 0)["W_dec"])


@pytest.mark.usefixtures("side_by_side")
def test_an_error_in_a_lane_comes_out_when_the_others_have_ended_their_step(monkeypatch: pytest.MonkeyPatch) -> None:
    trainers = made()

    def broken(block: Block, after_step: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(trainers[1], "consume", broken)
    with Lanes(trainers) as lanes:
        with pytest.raises(ValueError, match="broken"):
            lanes.consume(trainers, block(0, rows=2048), lambda: None)
        steps = [state.step for state in trainers[0].members]
        sleep(0.05)
        assert [state.step for state in trainers[0].members] == steps
        lanes.consume([trainers[0]], block(1), lambda: None)  # and the lanes go on
        assert trainers[0].members[0].step > steps[0]


@pytest.mark.usefixtures("side_by_side")
def test_an_interruption_waits_for_the_steps_under_way() -> None:
    trainers = made()

    def interrupt() -> None:
        raise KeyboardInterrupt

    with Lanes(trainers) as lanes:
        with pytest.raises(KeyboardInterrupt):
            lanes.consume(trainers, block(0, rows=4096), interrupt)
        before = [parameters(one, 0)["W_dec"] for one in trainers]
        sleep(0.05)
        for one, expected in zip(trainers, before, strict=True):
            assert torch.equal(parameters(one, 0)["W_dec"], expected)
