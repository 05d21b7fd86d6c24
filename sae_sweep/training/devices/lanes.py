"""How the banks of a group take their steps over a block: in lanes, side by side on a CPU.

Banks share nothing but the block they read, so each goes through it at its own pace, and what it computes does not
depend on when the others run. Lanes are threads; for banks that want one core each they become processes
(`lane_processes.py`) once a block takes long enough for that to pay.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import contextmanager, suppress
from threading import Event
from time import thread_time
from types import TracebackType

import torch

from sae_sweep.activations.block import Block
from sae_sweep.host.cores import core_pool, workers
from sae_sweep.training.devices.lane_processes import LaneProcesses, can_fork
from sae_sweep.training.devices.turns import Stopped
from sae_sweep.training.step.trainer import BankTrainer

TICK_SECONDS = 0.1
"""Between two looks at how far the lanes are."""
PROCESSES_PAY = 0.2
"""Seconds of cores that a block takes from which on lanes are processes. It takes some milliseconds to give a block to
them and to hear what became of it."""


class Lanes:
    """The threads and processes that banks step on; a context, at whose end they are gone."""

    def __init__(self, trainers: Sequence[BankTrainer]) -> None:
        """`trainers` are all that will step here. How many they are decides how many cores each has, and so the order
        of its sums, whichever of them a block is for."""
        self._trainers = list(trainers)
        count = min((workers(one.trained.device, len(trainers)) for one in trainers), default=1)
        small = bool(trainers) and all(one.prefers_one_core for one in trainers)
        self._stopping = Event()
        self._forks = count - 1 if small and can_fork() and not any(map(_may_wait, trainers)) else 0
        self._processes: LaneProcesses | None = None
        if count == 1 and not (small and torch.get_num_threads() > 1):
            self._pool = None
        else:
            self._pool = core_pool(count, 1 if small else None)
        self._seconds: dict[BankTrainer, float] = {}
        """Of a core that each took for the last block it went through: what a step costs depends on L0."""

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._stopping.set()
            self._pool.shutdown(cancel_futures=True)
        if self._processes is not None:
            self._processes.close()

    def consume(self, trainers: Sequence[BankTrainer], block: Block, tick: Callable[[], None]) -> None:
        """Let banks take their steps on a block; `tick` is called on this thread while they do. Where it, or a step,
        raises, the others end their step first."""
        if self._pool is None:
            for trainer in trainers:
                trainer.consume(block, tick)
            return
        longest_first = sorted(trainers, key=lambda one: (self._seconds.get(one, 0.0), one.cost), reverse=True)
        processes = self._processes_for(block)
        if processes is not None:
            self._in_processes(processes, longest_first, block, tick)
            return
        self._stopping.clear()
        pending = every = {self._pool.submit(self._follow, trainer, block) for trainer in longest_first}
        try:
            while pending:
                done, pending = wait(pending, TICK_SECONDS, FIRST_EXCEPTION)
                for future in done:
                    future.result()
                tick()
        finally:
            self._stopping.set()
            wait(every)

    def _follow(self, trainer: BankTrainer, block: Block) -> None:
        with suppress(Stopped):
            self._heed()
            self._step(trainer, block, self._heed)

    def _step(self, trainer: BankTrainer, block: Block, after_step: Callable[[], None]) -> None:
        begun = thread_time()
        trainer.consume(block, after_step)
        self._seconds[trainer] = thread_time() - begun

    def _heed(self) -> None:
        if self._stopping.is_set():
            raise Stopped

    def _processes_for(self, block: Block) -> LaneProcesses | None:
        """The processes that are to go through a block with this one; None where threads do."""
        if self._processes is not None and not self._processes.fits(block):
            self._processes.close()
            self._processes = None
        if self._processes is None and self._forks and sum(self._seconds.values()) >= PROCESSES_PAY:
            with _on_one_core():
                self._processes = LaneProcesses(self._trainers, self._forks, block)
        return self._processes

    def _in_processes(
        self, others: LaneProcesses, trainers: Sequence[BankTrainer], block: Block, tick: Callable[[], None]
    ) -> None:
        """Go through the block as one of several processes."""

        def between_steps() -> None:
            others.hear()
            others.turns.heed()
            tick()

        with _on_one_core():
            others.begin(trainers, block)
            try:
                with suppress(Stopped):
                    for trainer in others.taken():
                        self._step(trainer, block, between_steps)
                    while others.hear(TICK_SECONDS):
                        tick()
            except BaseException:
                others.turns.stop()
                raise
            finally:
                others.finish()
                self._seconds |= others.seconds


def _may_wait(trainer: BankTrainer) -> bool:
    """Whether its tensors come and go (`waves.py`): others would not see where they are."""
    return any(member.plan.config.launcher.memory_gb is not None for member in trainer.members)


@contextmanager
def _on_one_core() -> Iterator[None]:
    """While this lasts, torch shares no operation of this thread among cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
