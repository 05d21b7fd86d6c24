"""Waves that come in while others are trained, on a fake GPU: whatever the device does first, no memory is read before
it was written, or written before it was read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from sae_sweep.training.devices.ferry import Ferry
from sae_sweep.training.devices.lanes import Lanes
from sae_sweep.training.devices.paged import Paged
from sae_sweep.training.devices.waves import Waves
from sae_sweep.training.step.trainer import BankTrainer
from scripts.bench.fake.device import fake_cuda
from scripts.bench.fake.log import Log
from scripts.bench.fake.streams import STEPS, Stream
from scripts.bench.fake.trainers import block
from tests.device.kinds import BATCH, D
from tests.device.test_around_steps import one

KINDS = ("gated", "jumprelu", "april")
STEPS_EACH = 1


@contextmanager
def turned(ahead: bool, blocks: int = 1) -> Iterator[tuple[Log, list[Paged]]]:
    """Three waves through blocks; then the host reads what they left, as for a checkpoint."""
    with fake_cuda() as log:
        paged = [Paged(one(kind)) for kind in KINDS]
        waves = Waves([[each] for each in paged], [ahead] * len(paged))
        log.streams.watching = True
        with Lanes(waves.trainers) as lanes:
            for index in range(blocks):
                waves.consume(lanes, block(D, STEPS_EACH * BATCH, index), lambda: None)
                for each in paged:
                    assert all(not tensor.is_cuda for tensor in each.trainer.trained.tensors().values())
                    _ = each.buffer_N + 1
        assert all(member.step == blocks * STEPS_EACH for member in waves.members)
        yield log, paged


@pytest.mark.parametrize("ahead", [True, False])
def test_nothing_races(ahead: bool) -> None:
    with turned(ahead, blocks=2) as (log, _):
        assert not log.streams.races
        assert {stream for stream, _ in log.streams.copies} != {STEPS}, "copies have a stream of their own"


def test_the_next_wave_is_asked_for_before_the_steps_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sent, take, steps = Ferry._sent, Ferry.take, BankTrainer.consume

    def label(wave: list[Paged]) -> int:
        return KINDS.index(wave[0].trainer.members[0].plan.label)

    def sending(self: Ferry, wave: list[Paged], slot: int) -> Any:
        done.append(f"in {label(wave)} to {slot}")
        return sent(self, wave, slot)

    def taking(self: Ferry) -> None:
        done.append(f"out {label(self._there.wave)}" if self._there else "nothing")
        take(self)

    def stepping(self: BankTrainer, *given: Any) -> None:
        done.append("steps")
        steps(self, *given)

    monkeypatch.setattr(Ferry, "_sent", sending)
    monkeypatch.setattr(Ferry, "take", taking)
    monkeypatch.setattr(BankTrainer, "consume", stepping)
    with turned(ahead=True):
        assert done == [
            *("in 0 to 0", "in 1 to 1", "steps", "out 0"),
            *("in 2 to 0", "steps", "out 1"),
            *("steps", "out 2"),
        ]
    done.clear()
    with turned(ahead=False):
        assert done == [what for n in range(3) for what in (f"in {n} to 0", "steps", f"out {n}")]


def without(name: str) -> Callable[..., None]:
    return lambda self, *_: None


@pytest.mark.parametrize(
    ("owner", "name", "said"),
    [
        (Stream, "wait_event", "steps reads"),  # of what has come in
        (Stream, "wait_stream", "stream 2 "),  # of steps, before a wave goes out
        (Stream, "synchronize", "host reads"),  # before a checkpoint is written
    ],
)
def test_each_wait_is_needed(owner: Any, name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, name, without(name))
    with turned(ahead=True) as (log, _):
        assert [race for race in log.streams.races if race.startswith(said)]


def test_a_slot_is_not_filled_before_it_was_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were copies out on another stream than copies in."""
    real = Ferry.take

    def take(self: Ferry) -> None:
        own, self._stream = self._stream, torch.cuda.Stream()  # type: ignore[assignment]
        real(self)
        self._stream = own

    monkeypatch.setattr(Ferry, "take", take)
    with turned(ahead=True) as (log, _):
        assert log.streams.races


def test_a_wave_without_room_for_the_next_one_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does its block again by itself; from then on nothing is brought ahead."""
    refused: list[int] = []
    real = BankTrainer._step

    def step(self: BankTrainer, *given: Any) -> None:
        if self.members[0].step == 0 and self.members[0].plan.label == KINDS[1] and len(refused) < 2:
            refused.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(self, *given)

    monkeypatch.setattr(BankTrainer, "_step", step)
    with turned(ahead=True) as (log, _):
        assert len(refused) == 2
        assert not log.streams.races
