"""Processes that step small members beside this one: copies of it, which share the members' tensors and the block.

A step of a small member is some hundreds of short operations, each of which lets go of Python's lock and takes it
again: two threads that take such steps need 1.4 times as long as two processes (d 64, 1,024 latents, 2,048 tokens). A
step is the same wherever it is taken, so who is free takes the next member.
"""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from sae_sweep.activations.block import Block
from sae_sweep.activations.shared_block import SharedBlock
from sae_sweep.errors import ProcessLost
from sae_sweep.host.shared_memory import shared
from sae_sweep.training.devices.lane_process import TELL_SECONDS, LaneProcess, Said
from sae_sweep.training.devices.turns import Turns
from sae_sweep.training.step.trainer import BankTrainer

SECONDS_TO_END = 3.0
"""For a process that was told to; then it is ended."""


def can_fork() -> bool:
    """Whether a process that has run torch can be copied here; elsewhere than on Linux system libraries break."""
    return sys.platform == "linux"


class LaneProcesses:
    """This process's copies, as it deals with them. Trainers' tensors stay in shared memory: until `close` nobody may
    put others in their place."""

    def __init__(self, trainers: Sequence[BankTrainer], count: int, block: Block) -> None:
        """Start so many, or as many as the system lets, for blocks like this one."""
        self._trainers = list(trainers)
        for trainer in trainers:
            trainer.trained.put({name: shared(tensor) for name, tensor in trainer.trained.tensors().items()})
        self._block = SharedBlock(block)
        self.turns = Turns()
        self._own_turns: Iterator[int] = iter(())
        self.seconds: dict[BankTrainer, float] = {}
        """What each trainer took of a core for the last block that another process went through with it."""
        self._error: Exception | None = None
        self._processes: dict[Connection, ForkProcess] = {}
        self._working: set[Connection] = set()
        for _ in range(count):
            try:
                self._start()
            except OSError:  # no more processes, or no memory for them
                break

    def fits(self, block: Block) -> bool:
        return self._block.fits(block)

    def begin(self, trainers: Sequence[BankTrainer], block: Block) -> None:
        """Let all, and whoever iterates over `taken`, go through the block with these trainers, in this order. Raises
        ProcessLost where one has died."""
        self._error = None
        self.turns.begin([self._trainers.index(one) for one in trainers], len(self._processes) + 1)
        self._own_turns = iter(self.turns)
        numbers = [[member.numbers() for member in one.members] for one in self._trainers]
        work = (numbers, self._block.fill(block))
        for connection in self._processes:
            try:
                connection.send(work)
            except OSError as error:
                raise self._lost(connection) from error
            self._working.add(connection)

    def taken(self) -> Iterator[BankTrainer]:
        """The trainers that nobody else has taken yet."""
        return (self._trainers[place] for place in self._own_turns)

    def hear(self, seconds: float = 0.0) -> bool:
        """Take over what the others say, after waiting so long for it; whether some are still at work. Where one
        fails, all are to stop. Raises ProcessLost where one has died."""
        for heard in wait(self._working, seconds) if self._working else ():
            assert isinstance(heard, Connection)
            try:
                said = heard.recv()
            except (EOFError, OSError) as error:
                raise self._lost(heard) from error
            if isinstance(said, Said):
                self._take_over(said)
                continue
            self._working.remove(heard)
            if isinstance(said, Exception):
                self._error = self._error or said
                self.turns.stop()
        return bool(self._working)

    def finish(self) -> None:
        """Return when all are at rest. Raises what one of them failed with, or ProcessLost."""
        for _ in self._own_turns:  # where all were told to stop some are left, and nobody else comes to this end
            pass
        while self.hear(TELL_SECONDS):
            pass
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End them; where one has died the others too may be in the middle of a block, which counts for nothing."""
        for connection, process in self._processes.items():
            if connection in self._working:
                process.kill()
            connection.close()
        for process in self._processes.values():
            process.join(SECONDS_TO_END)
            process.kill()
            process.join()
        self.turns.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        own = LaneProcess(self._trainers, self._block, self.turns, there)
        process = context.Process(target=_served, args=(own, here, os.getpid()), name="lane", daemon=True)
        with warnings.catch_warnings():
            # Python warns that threads may hold locks now. The copy runs steps alone, which take none of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        there.close()
        self._processes[here] = process

    def _take_over(self, said: Said) -> None:
        trainer = self._trainers[said.place]
        for member, its in zip(trainer.members, said.numbers, strict=True):
            member.load_numbers(its)
        trainer.records += said.records
        if said.seconds is not None:
            self.seconds[trainer] = said.seconds

    def _lost(self, connection: Connection) -> ProcessLost:
        process = self._processes[connection]
        process.join(SECONDS_TO_END)
        code = process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return ProcessLost(
            f"process {process.pid}, which trained members beside this one, {how}; the same command goes on from the"
            " last checkpoint"
        )


def _served(own: LaneProcess, starters_end: Connection, starter: int) -> None:
    starters_end.close()  # of which this process has a copy: it would never see it closed
    own.serve(starter)
