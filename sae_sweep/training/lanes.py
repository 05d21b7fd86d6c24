"""How the banks of a group take their steps over a block: in lanes, side by side on a CPU.

Banks share nothing but the block they read, so each goes through it at its own pace, on its own thread, and what it
computes does not depend on when the others run.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from contextlib import suppress
from threading import Event
from time import thread_time
from types import TracebackType

import torch

from sae_sweep.activations.stream import Block
from sae_sweep.cores import core_pool, workers
from sae_sweep.training.trainer import BankTrainer

TICK_SECONDS = 0.1
"""Between two looks at how far the lanes are."""


class Lanes:
    """The threads that banks step on; a context, at whose end they are gone."""

    def __init__(self, trainers: Sequence[BankTrainer]) -> None:
        """`trainers` are all that will step here. How many they are decides how many cores each has, and so the order
        of its sums, whichever of them a block is for."""
        count = min((workers(one.device, len(trainers)) for one in trainers), default=1)
        small = bool(trainers) and all(one.prefers_one_core for one in trainers)
        self._stopping = Event()
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

    def consume(self, trainers: Sequence[BankTrainer], block: Block, tick: Callable[[], None]) -> None:
        """Let banks take their steps on a block; `tick` is called on this thread while they do. Where it, or a step,
        raises, the others end their step first."""
        if self._pool is None:
            for trainer in trainers:
                trainer.consume(block, tick)
            return
        self._stopping.clear()
        longest_first = sorted(trainers, key=lambda one: (self._seconds.get(one, 0.0), one.cost), reverse=True)
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
        begun = thread_time()
        with suppress(_Stopped):
            self._heed()
            trainer.consume(block, self._heed)
            self._seconds[trainer] = thread_time() - begun

    def _heed(self) -> None:
        if self._stopping.is_set():
            raise _Stopped


class _Stopped(Exception):  # noqa: N818 - it reports no error
    pass
