"""Processes that step small members beside this one: copies of it, which share the members' tensors and the block.

A step of a small member is some hundreds of short operations, each of which lets go of Python's lock and takes it
again: two threads that take such steps need 1.4 times as long as two processes (d 64, 1,024 latents, 2,048 tokens). A
step is the same wherever it is taken, so who is free takes the next member.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from time import monotonic, process_time
from typing import Any

import torch
from torch import Tensor

from sae_sweep.activations.shared_block import SharedBlock
from sae_sweep.activations.stream import Block
from sae_sweep.errors import ProcessLost, travelling
from sae_sweep.shared_memory import shared_empty
from sae_sweep.training.trainer import BankTrainer, StepRecord

TELL_SECONDS = 0.1
"""Between two messages on how far the members of a process are."""
SECONDS_TO_END = 3.0
"""For a process that was told to; then it is ended."""
PLACE_BYTES = 4
DONE = 2 ** (8 * PLACE_BYTES) - 1
"""In the queue: the end of one process's work on a block."""
PR_SET_PDEATHSIG = 1
"""Linux's name for it, in prctl.h."""


class Stopped(Exception):  # noqa: N818 - it reports no error
    """Raised between two steps where all are to stop."""


@dataclass(frozen=True)
class _Said:
    """How far a process is with a trainer."""

    place: int
    """Of the trainer among all."""
    standings: list[dict[str, Any]]
    """Of its members."""
    records: list[StepRecord]
    seconds: float | None
    """Of a core that it took for the block, once it is through."""


def can_fork() -> bool:
    """Whether a process that has run torch can be copied here; elsewhere than on Linux system libraries break."""
    return sys.platform == "linux"


class LaneProcesses:
    """This process's copies, and what all of them share."""

    def __init__(self, trainers: Sequence[BankTrainer], count: int, block: Block) -> None:
        """Start so many, or as many as the system lets, for blocks like this one."""
        self._trainers = list(trainers)
        self._homes = [
            {name: shared_empty(tensor.shape, tensor.dtype) for name, tensor in trainer.tensors().items()}
            for trainer in trainers
        ]
        self._block = SharedBlock(block)
        self._stopping = shared_empty((1,), torch.uint8)
        self._queue_out, self._queue_in = os.pipe()
        self.seconds: dict[BankTrainer, float] = {}
        """What each trainer took of a core for the last block it went through."""
        self._error: Exception | None = None
        for trainer, homes in zip(self._trainers, self._homes, strict=True):
            _move(trainer, homes)
        self._processes: dict[Connection, ForkProcess] = {}
        for _ in range(count):
            try:
                self._start()
            except OSError:  # no more processes, or no memory for them
                break
        self._working: set[Connection] = set()

    def fits(self, block: Block) -> bool:
        return self._block.fits(block)

    def begin(self, trainers: Sequence[BankTrainer], block: Block) -> None:
        """Let all, and whoever iterates over `taken`, go through the block with these trainers, in this order."""
        places = [self._trainers.index(one) for one in trainers]
        self._taking = self._places()
        for place in places:
            _move(self._trainers[place], self._homes[place])
        self._stopping[0], self._error = 0, None
        numbers = [*places, *[DONE] * (len(self._processes) + 1)]
        os.write(self._queue_in, b"".join(n.to_bytes(PLACE_BYTES, "little") for n in numbers))
        standings = [[state.standing for state in one.states] for one in self._trainers]
        work = (standings, self._block.fill(block))
        for connection in self._processes:
            try:
                connection.send(work)
            except OSError as error:
                raise self._lost(connection) from error
            self._working.add(connection)

    def taken(self) -> Iterator[BankTrainer]:
        """The trainers that nobody else has taken yet."""
        return (self._trainers[place] for place in self._taking)

    def heed(self) -> None:
        """Raises Stopped where all are to stop."""
        if self._stopping[0]:
            raise Stopped

    def stop(self) -> None:
        """Let all stop, between two steps."""
        self._stopping[0] = 1

    def hear(self, seconds: float = 0.0) -> bool:
        """Take over what the others say, after waiting so long for it; whether some are still at work. Where one
        fails, all are to stop. Raises ProcessLost where one has died."""
        for heard in wait(self._working, seconds) if self._working else ():
            assert isinstance(heard, Connection)
            try:
                said = heard.recv()
            except (EOFError, OSError) as error:
                raise self._lost(heard) from error
            if isinstance(said, _Said):
                self._take_over(said)
                continue
            self._working.remove(heard)
            if isinstance(said, Exception):
                self._error = self._error or said
                self.stop()
        return bool(self._working)

    def finish(self) -> None:
        """Return when all are at rest. Raises what one of them failed with."""
        for _ in self._taking:  # where all were told to stop some are left, and nobody else ends for this process
            pass
        while self.hear(TELL_SECONDS):
            pass
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End them."""
        for connection in self._processes:
            connection.close()
        for process in self._processes.values():
            process.join(SECONDS_TO_END)
            process.kill()
            process.join()
        os.close(self._queue_out)
        os.close(self._queue_in)

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        process = context.Process(target=self._serve, args=(here, there, os.getpid()), name="lane", daemon=True)
        with warnings.catch_warnings():
            # Python warns that threads may hold locks now. The copy runs steps alone, which take none of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        there.close()
        self._processes[here] = process

    def _places(self) -> Iterator[int]:
        while (place := int.from_bytes(os.read(self._queue_out, PLACE_BYTES), "little")) != DONE:
            yield place

    def _take_over(self, said: _Said) -> None:
        trainer = self._trainers[said.place]
        for state, standing in zip(trainer.states, said.standings, strict=True):
            state.stand(standing)
        trainer.records += said.records
        if said.seconds is not None:
            self.seconds[trainer] = said.seconds

    def _lost(self, connection: Connection) -> ProcessLost:
        process = self._processes[connection]
        self._working.clear()  # nobody waits for the others: what they have done is not known to be whole
        process.join(SECONDS_TO_END)
        code = process.exitcode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return ProcessLost(
            f"process {process.pid}, which trained members beside this one, {how}; the same command goes on from the"
            " last checkpoint"
        )

    def _serve(self, here: Connection, there: Connection, parent: int) -> None:
        """What a copy does: go through blocks until the connection is closed."""
        here.close()
        _live_no_longer_than(parent)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # who started it is told too, and lets it stop between two steps
        for trainer in self._trainers:
            trainer.records.clear()
        while True:
            try:
                standings, filling = there.recv()
            except EOFError:
                return
            for trainer, own in zip(self._trainers, standings, strict=True):
                for state, standing in zip(trainer.states, own, strict=True):
                    state.stand(standing)
            there.send(self._through(self._block.read(filling), there))

    def _through(self, block: Block, there: Connection) -> Exception | None:
        """Step over the block; what failed, if anything did."""
        failure = None
        for place in self._places():
            try:
                if failure is None:
                    self._step(place, block, there)
            except Stopped:
                pass
            except Exception as error:
                failure = travelling(error, "a process that trains members")
                failure.add_note(traceback.format_exc())  # where it was raised stays behind
        return failure

    def _step(self, place: int, block: Block, there: Connection) -> None:
        trainer, begun, told = self._trainers[place], process_time(), monotonic()

        def tell(seconds: float | None = None) -> None:
            there.send(_Said(place, [state.standing for state in trainer.states], list(trainer.records), seconds))
            trainer.records.clear()

        def after_step() -> None:
            nonlocal told
            self.heed()
            if monotonic() >= told + TELL_SECONDS:
                tell()
                told = monotonic()

        try:
            self.heed()
            trainer.consume(block, after_step)
        except BaseException:
            tell()
            raise
        tell(process_time() - begun)


def _move(trainer: BankTrainer, homes: dict[str, Tensor]) -> None:
    """Let a trainer's tensors be where all see them."""
    for name, tensor in trainer.tensors().items():
        if tensor is not homes[name]:
            homes[name].copy_(tensor)
    trainer.put(homes)


def _live_no_longer_than(parent: int) -> None:
    """However the parent ends, let this process end with it: it may hold locks of files."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was too late for that
        os._exit(1)
