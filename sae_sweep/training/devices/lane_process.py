"""What a copy of the command does that steps small members beside it."""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import monotonic, process_time
from typing import Any

from sae_sweep.activations.block import Block
from sae_sweep.activations.shared_block import SharedBlock
from sae_sweep.errors import travelling
from sae_sweep.training.devices.turns import Stopped, Turns
from sae_sweep.training.step.record import StepRecord
from sae_sweep.training.step.trainer import BankTrainer

TELL_SECONDS = 0.1
"""Between two messages on how far the members of a process are."""
PR_SET_PDEATHSIG = 1
"""Linux's name for it, in prctl.h."""


@dataclass(frozen=True)
class Said:
    """How far a process is with a trainer."""

    place: int
    """Of the trainer among all."""
    numbers: list[dict[str, Any]]
    """Of its members: where they are."""
    records: list[StepRecord]
    seconds: float | None
    """Of a core that it took for the block, once it is through."""


class LaneProcess:
    """Steps trainers over blocks, as long as it is asked to.

    It is asked with all members' numbers and the filling of the shared block; it says how far it is (`Said`), and at
    the end None, or what it failed with.
    """

    def __init__(self, trainers: Sequence[BankTrainer], block: SharedBlock, turns: Turns, ask: Connection) -> None:
        """Trainers have their tensors in shared memory; `ask` is this process's end."""
        self._trainers, self._block, self._turns, self._ask = trainers, block, turns, ask

    def serve(self, starter: int) -> None:
        """Go through blocks until the connection is closed, or the starter's process ends."""
        _live_no_longer_than(starter)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # who started it is told too, and lets it stop between two steps
        for trainer in self._trainers:
            trainer.records.clear()
        while True:
            try:
                numbers, filling = self._ask.recv()
            except EOFError:
                return
            for trainer, own in zip(self._trainers, numbers, strict=True):
                for member, its in zip(trainer.members, own, strict=True):
                    member.load_numbers(its)
            self._ask.send(self._through(self._block.read(filling)))

    def _through(self, block: Block) -> Exception | None:
        """Step over the block; what failed, if anything did."""
        failure = None
        for place in self._turns:
            try:
                if failure is None:
                    self._step(place, block)
            except Stopped:
                pass
            except Exception as error:
                failure = travelling(error, "a process that trains members")
                failure.add_note(traceback.format_exc())  # where it was raised stays behind
        return failure

    def _step(self, place: int, block: Block) -> None:
        trainer, begun, told = self._trainers[place], process_time(), monotonic()

        def tell(seconds: float | None = None) -> None:
            numbers = [member.numbers() for member in trainer.members]
            self._ask.send(Said(place, numbers, list(trainer.records), seconds))
            trainer.records.clear()

        def after_step() -> None:
            nonlocal told
            self._turns.heed()
            if monotonic() >= told + TELL_SECONDS:
                tell()
                told = monotonic()

        try:
            self._turns.heed()
            trainer.consume(block, after_step)
        except BaseException:
            tell()
            raise
        tell(process_time() - begun)


def _live_no_longer_than(starter: int) -> None:
    """However the starter ends, let this process end with it: it may hold locks of files."""
    if sys.platform == "linux":  # elsewhere the pipe that closes has to do
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != starter:  # it was too late for that
        os._exit(1)
