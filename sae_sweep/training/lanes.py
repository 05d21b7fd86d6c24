"""How a group's members take their steps over a block: in lanes, side by side on a CPU.

A lane is a run of neighbouring members of one bank. Lanes share nothing but the block they read, so each goes through
it at its own pace, on its own thread: one step of one small member is many short operations, which two cores that
share each of them do hardly faster than one. Several steps side by side keep all cores busy, and what a lane computes
does not depend on when the others run.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from types import TracebackType

import torch

from sae_sweep.activations.stream import Block
from sae_sweep.training.trainer import BankTrainer

TICK_SECONDS = 0.1
"""Between two looks at how far the lanes are."""


@dataclass(frozen=True)
class Lane:
    """Members of a bank that step together."""

    trainer: BankTrainer
    members: range

    @property
    def cost(self) -> int:
        """Multiply-adds of a batch's encoder product, per token."""
        members = [state.member for state in self.trainer.states[self.members.start : self.members.stop]]
        return sum(member.d * member.width for member in members)


class Lanes:
    """The lanes of some trainers, and the threads that they run on; a context, at whose end the threads are gone."""

    def __init__(self, trainers: Sequence[BankTrainer]) -> None:
        threads = torch.get_num_threads() if all(trainer.on_cpu for trainer in trainers) else 1
        latents = sum(trainer.bank.layout.latents for trainer in trainers)
        self.lanes = sorted(
            (Lane(trainer, members) for trainer in trainers for members in trainer.runs(latents // threads)),
            key=lambda lane: lane.cost,
            reverse=True,  # what takes longest begins first
        )
        self._stopping = Event()
        self._pool: ThreadPoolExecutor | None = None
        workers = min(threads, len(self.lanes))
        if workers > 1:
            self._pool = ThreadPoolExecutor(workers, "lane", torch.set_num_threads, (threads // workers,))
            list(self._pool.map(lambda _: None, range(workers)))
            torch.set_num_threads(threads)  # theirs is the default of later threads, too

    def __enter__(self) -> "Lanes":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._stopping.set()
            self._pool.shutdown(cancel_futures=True)

    def consume(self, block: Block, tick: Callable[[], None]) -> None:
        """Let all lanes take their steps on a block; `tick` is called on this thread while they do."""
        if self._pool is None:
            for lane in self.lanes:
                lane.trainer.consume(block, tick, lane.members)
            return
        pending = {self._pool.submit(self._follow, lane, block) for lane in self.lanes}
        while pending:
            done, pending = wait(pending, TICK_SECONDS, FIRST_EXCEPTION)
            for future in done:
                future.result()
            tick()

    def _follow(self, lane: Lane, block: Block) -> None:
        with suppress(_Stopped):
            lane.trainer.consume(block, self._heed, lane.members)

    def _heed(self) -> None:
        if self._stopping.is_set():
            raise _Stopped


class _Stopped(Exception):  # noqa: N818 - it reports no error
    pass
