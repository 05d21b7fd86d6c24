"""Lanes side by side do what members do one after the other."""

from collections.abc import Iterator
from time import sleep

import pytest
import torch

from sae_sweep.activations.stream import Block
from sae_sweep.training.lanes import Lanes
from sae_sweep.training.trainer import BankTrainer
from tests.training.fabricate import block, member, parameters, trainer


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def made() -> list[BankTrainer]:
    l1 = [member("gated", sae_l1=l1, training_tokens=tokens) for l1, tokens in ((0.1, 2e3), (0.5, 1e3), (1.0, 2e3))]
    tops = [member("topk", sae_k=k, sae_width=40) for k in (1, 2)]
    return [trainer(l1, log_every=5), trainer(tops, log_every=5)]


def test_as_without_lanes() -> None:
    apart, together = made(), made()
    ticks: list[None] = []
    with Lanes(together) as lanes:
        assert len(lanes.lanes) > 2
        for index in range(4):
            lanes.consume(block(index), lambda: ticks.append(None))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    for one in apart:
        for members in one.runs(1):
            for index in range(4):
                one.consume(block(index), lambda: None, members)
    assert len(ticks) >= 4
    for own, theirs in zip(together, apart, strict=True):
        assert [state.step for state in own.states] == [state.step for state in theirs.states]
        for index in range(len(own.states)):
            for name, expected in parameters(theirs, index).items():
                torch.testing.assert_close(parameters(own, index)[name], expected, rtol=1e-12, atol=1e-12)
        records = [sorted((r.label, r.step) for r in each.records) for each in (own, theirs)]
        assert records[0] == records[1]


def test_runs_are_no_larger_than_asked() -> None:
    one = trainer([member("topk", sae_k=1, sae_width=width) for width in (10, 20, 30, 5, 5)])
    assert one.runs(30) == [range(2), range(2, 3), range(3, 5)]
    assert one.runs(1) == [range(index, index + 1) for index in range(5)]
    assert one.runs(1000) == [range(5)]


def test_an_error_in_a_lane_comes_out_and_ends_the_others() -> None:
    trainers = made()

    def broken(block: Block, after_step: object, members: range) -> None:
        raise ValueError("broken")

    trainers[1].consume = broken  # type: ignore[method-assign, assignment]
    with pytest.raises(ValueError, match="broken"), Lanes(trainers) as lanes:
        lanes.consume(block(0, rows=2048), lambda: None)
    steps = [state.step for state in trainers[0].states]
    sleep(0.05)
    assert [state.step for state in trainers[0].states] == steps


def test_an_interruption_ends_with_whole_steps() -> None:
    trainers = made()[:1]

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Lanes(trainers) as lanes:
        lanes.consume(block(0, rows=4096), interrupt)
    for state in trainers[0].states:
        assert state.step <= state.member.schedule.total_steps
        recorded = [record.step for record in trainers[0].records if record.label == state.member.label]
        assert state.step == 0 or recorded[-1] < state.step
