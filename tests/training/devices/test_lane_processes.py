"""Processes that step members beside this one: the same members afterwards, and no process left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from time import monotonic, sleep

import pytest
import torch

from sae_sweep.activations.block import Block
from sae_sweep.errors import ProcessLost
from sae_sweep.host.pids import process_exists
from sae_sweep.host.shared_memory import shared_empty
from sae_sweep.training.devices import lanes as lanes_module
from sae_sweep.training.devices.lane_processes import LaneProcesses, can_fork
from sae_sweep.training.devices.lanes import Lanes
from sae_sweep.training.devices.waves import Paged, Waves
from sae_sweep.training.step.trainer import BankTrainer
from tests.training.fabricate import block, member, parameters, trainer

pytestmark = pytest.mark.skipif(not can_fork(), reason="elsewhere lanes are threads")


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(lanes_module, "PROCESSES_PAY", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def made() -> list[BankTrainer]:
    members = [member("gated", sae_l1=0.5), member("topk", sae_k=2), member("batchtopk", sae_k=2, sae_width=40)]
    return [trainer([one], log_every=5) for one in members]


def stepped_by(trainers: list[BankTrainer]) -> list[int]:
    """Where the pid of who steps each of them will be; shared, so that all see it."""
    found = shared_empty((len(trainers),), torch.int64)

    def noting(one: BankTrainer, place: int) -> Callable[[Block, Callable[[], None]], None]:
        real = one.consume

        def consume(block: Block, after_step: Callable[[], None]) -> None:
            found[place] = os.getpid()
            sleep(0.2)  # until the others have begun
            real(block, after_step)

        return consume

    for place, one in enumerate(trainers):
        one.consume = noting(one, place)  # type: ignore[method-assign]
    return found  # type: ignore[return-value]


def gone(pid: int) -> bool:
    until = monotonic() + 10
    while process_exists(pid) and monotonic() < until:
        with suppress(OSError):
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8"):
                return True
        sleep(0.02)
    return not process_exists(pid)


def test_members_are_stepped_by_several_processes_that_end_with_the_lanes() -> None:
    trainers = made()
    pids = stepped_by(trainers)
    with Lanes(trainers) as lanes:
        lanes.consume(trainers, block(0), lambda: None)
        others = {int(pid) for pid in pids} - {os.getpid()}
        assert len(others) == 1
        lanes.consume(trainers, block(1), lambda: None)
        assert {int(pid) for pid in pids} == others | {os.getpid()}, "the same process goes on"
    assert all(gone(pid) for pid in others)
    assert [state.blocks for one in trainers for state in one.members] == [2, 2, 2]
    assert torch.get_num_threads() == 2


def test_short_blocks_stay_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "PROCESSES_PAY", inf)
    trainers = made()
    pids = stepped_by(trainers)
    with Lanes(trainers) as lanes:
        for index in range(2):
            lanes.consume(trainers, block(index), lambda: None)
    assert {int(pid) for pid in pids} == {os.getpid()}


def test_what_happens_between_blocks_reaches_the_others() -> None:
    """A member that is given up, another place in its run, weights that are set: here as in the copies."""
    apart, together = made(), made()

    def change(trainers: list[BankTrainer]) -> None:
        trainers[0].members[0].failed = "given up"
        trainers[1].members[0].step += 3
        parameters(trainers[2], 0)["W_enc"].mul_(1.5)

    with Lanes(together) as lanes:
        lanes.consume(together, block(0), lambda: None)
        change(together)
        for index in (1, 2):
            lanes.consume(together, block(index), lambda: None)
    torch.set_num_threads(1)
    for index in range(3):
        for one in apart:
            one.consume(block(index), lambda: None)
        if index == 0:
            change(apart)
    for own, theirs in zip(together, apart, strict=True):
        assert [state.numbers() for state in own.members] == [state.numbers() for state in theirs.members]
        for name, expected in parameters(theirs, 0).items():
            assert torch.equal(parameters(own, 0)[name], expected)


def test_a_larger_block_finds_room() -> None:
    apart, together = made(), made()
    blocks = [block(0), block(1, rows=4096), replace(block(2, rows=512), epoch=1)]
    with Lanes(together) as lanes:
        for each in blocks:
            lanes.consume(together, each, lambda: None)
    torch.set_num_threads(1)
    for one in apart:
        for each in blocks:
            one.consume(each, lambda: None)
    for own, theirs in zip(together, apart, strict=True):
        assert own.members[0].step == theirs.members[0].step
        assert torch.equal(parameters(own, 0)["W_dec"], parameters(theirs, 0)["W_dec"])


def test_members_that_wait_in_the_hosts_memory_stay_in_this_process() -> None:
    """Their tensors come and go, which other processes would not see."""
    trainers = [trainer([member("topk", sae_k=k, launcher_memory_gb=1.0)]) for k in (1, 2)]
    pids = stepped_by(trainers)
    waves = Waves([[Paged(one)] for one in trainers])
    with Lanes(waves.trainers) as lanes:
        for index in range(2):
            waves.consume(lanes, block(index), lambda: None)
    assert {int(pid) for pid in pids} == {os.getpid()}


def test_an_error_says_where_it_was_raised() -> None:
    trainers = made()

    def broken(block: Block, after_step: Callable[[], None]) -> None:
        sleep(0.1)
        raise ValueError(f"process {os.getpid()}")

    for one in trainers:
        one.consume = broken  # type: ignore[method-assign]
    with Lanes(trainers) as lanes, pytest.raises(ValueError, match="process") as caught:
        lanes.consume(trainers, block(0), lambda: None)
    if str(caught.value) != f"process {os.getpid()}":
        assert "in broken" in "".join(caught.value.__notes__)


def test_a_process_that_dies_is_told_of_by_name() -> None:
    trainers = made()
    here = os.getpid()

    def dying(block: Block, after_step: Callable[[], None]) -> None:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        sleep(0.2)

    for one in trainers:
        one.consume = dying  # type: ignore[method-assign]
    with Lanes(trainers) as lanes, pytest.raises(ProcessLost, match=r"ended by SIGKILL; .* last checkpoint"):
        lanes.consume(trainers, block(0), lambda: None)


def test_one_that_died_between_blocks_too() -> None:
    trainers = made()
    pids = stepped_by(trainers)
    with Lanes(trainers) as lanes:
        lanes.consume(trainers, block(0), lambda: None)
        (other,) = {int(pid) for pid in pids} - {os.getpid()}
        os.kill(other, signal.SIGKILL)
        assert gone(other)
        with pytest.raises(ProcessLost, match=f"process {other}"):
            lanes.consume(trainers, block(1), lambda: None)


def test_signals_are_for_who_started_it() -> None:
    """A terminal or a cluster tells all processes of a job; the copies go on until they are let stop."""
    trainers = made()
    pids = stepped_by(trainers)
    with Lanes(trainers) as lanes:
        lanes.consume(trainers, block(0), lambda: None)
        (other,) = {int(pid) for pid in pids} - {os.getpid()}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            os.kill(other, number)
        lanes.consume(trainers, block(1), lambda: None)
    assert [one.members[0].blocks for one in trainers] == [2, 2, 2]


KILLED = """
import os, signal, torch
from sae_sweep.training.devices import lanes as lanes_module
from tests.training.fabricate import block
from tests.training.devices.test_lane_processes import made, stepped_by
lanes_module.PROCESSES_PAY = 0.0
torch.set_num_threads(2)
trainers = made()
pids = stepped_by(trainers)
lanes = lanes_module.Lanes(trainers)
lanes.consume(trainers, block(0), lambda: None)
print(*{int(pid) for pid in pids} - {os.getpid()}, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_none_outlives_a_command_that_is_killed() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert gone(int(done.stdout))


def test_without_more_processes_this_one_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: LaneProcesses) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(LaneProcesses, "_start", refuse)
    apart, together = made(), made()
    with Lanes(together) as lanes:
        lanes.consume(together, block(0), lambda: None)
    torch.set_num_threads(1)
    for own, theirs in zip(together, apart, strict=True):
        theirs.consume(block(0), lambda: None)
        assert torch.equal(parameters(own, 0)["W_dec"], parameters(theirs, 0)["W_dec"])
