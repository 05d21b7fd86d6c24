"""Several processes that train one group together: who has which rows and members, and how they talk.

Rank 0 is the command: it plans, writes sweep.json, tracks progress. The others follow: they wait for a group, do their
share of it, and wait again. Each rank runs the model on its share of a block's rows and sends the activations to who
has members at their site; each trains its own members on all rows. Neither gradients nor weights are sent.

What ranks tell each other goes through one operation, `exchange`: all say something, all hear everything. A rank that
fails says that in its place, so a failure ends the work of all at their next exchange, and nobody waits for what will
not come. The bulk of activations follows only after all have said that they are ready for it. A rank that dies closes
its connections, which ends the exchange of the others.
"""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic, sleep
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sae_sweep.errors import ConfigError, ProcessLost, travelling
from sae_sweep.host.memory import OUT_OF_MEMORY, give_back, is_out_of_memory
from sae_sweep.host.rank_processes import Role, Started
from sae_sweep.model.load import resolve_device

TIMEOUT = timedelta(hours=12)
"""For an exchange: the others may have to judge many members until then. Who dies is noticed at once."""

SECONDS_TO_DIE = 3.0
"""Until a process that is gone is known to be."""

T = TypeVar("T")


class _Raised:
    """Said by a rank that fails, in place of what it had to say."""

    def __init__(self, rank: int, error: Exception) -> None:
        self.error = travelling(error, f"rank {rank}")


class _Left:
    """Said by rank 0 when there is nothing more to do."""


class Dismissed(BaseException):
    """Rank 0 has nothing more for this rank to do."""


class Ranks:
    """This process among those that train together; `ALONE` is the only one."""

    def __init__(self, own: Role, device: torch.device | None = None, started: Started | None = None) -> None:
        """Wait for the others; `device` is what rank 0 has activations on, `started` those ranks that it started."""
        self.rank, self.size, self.hosts, self._started = own.rank, own.size, own.hosts, started
        self.sent_bytes = self.received_bytes = 0
        """Of activations, so far."""
        self._told: Exception | None = None
        if own.size == 1:
            return
        if started is not None:
            started.watch()  # from here on: who dies before it has joined would be waited for
        at = "env://" if started is None else f"tcp://127.0.0.1:{started.port}"
        dist.init_process_group("gloo", init_method=at, rank=own.rank, world_size=own.size, timeout=TIMEOUT)
        # A block may be made ahead in another thread: what it says must not mix with what is said here.
        self._talk = dist.new_group(backend="gloo", timeout=TIMEOUT)
        self.stream = dist.new_group(backend="gloo", timeout=TIMEOUT)
        on_gpu = self.shared(lambda: device is not None and device.type == "cuda")
        self._bulk = dist.new_group(backend="nccl", timeout=TIMEOUT) if on_gpu else self.stream
        self.device = (device or resolve_device("cuda")) if on_gpu else torch.device("cpu")
        if on_gpu:
            torch.cuda.set_device(self.device.index or 0)  # of which NCCL makes its own allocations
        else:  # the ranks of a host share its cores
            torch.set_num_threads(max(1, torch.get_num_threads() // own.local_size))

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    def exchange(self, value: T, channel: Any = None) -> list[T]:
        """What all ranks say, in their order; `channel` is `stream` or none. Raises what one of them failed with, or
        ProcessLost where one is gone."""
        if self.alone:
            return [value]
        found = self._say(value, channel)
        for said in found:
            if isinstance(said, _Raised):
                raise self.known(said.error)
            if isinstance(said, _Left):
                raise Dismissed
        return found

    def collected(self, make: Callable[[], T], channel: Any = None) -> list[T]:
        """What all ranks make, in their order. Where that raises on one of them, it does on all."""
        if self.alone:
            return [make()]
        try:
            value = make()
        except Exception as error:
            self.fail(error, channel)
            raise
        return self.exchange(value, channel)

    def fail(self, error: Exception, channel: Any = None) -> None:
        """Say that this rank fails, in place of what it had to say."""
        self._say(_Raised(self.rank, error), channel)
        self._told = error

    def ready(self, make: Callable[[], T], channel: Any = None) -> T:
        """What this rank makes, once all have made theirs. Where that raises on one of them, it does on all."""
        made: list[T] = []
        self.collected(lambda: made.append(make()), channel)
        return made[0]

    def made_with(self, make: Callable[[], T], ways: Iterator[str], tell: Callable[[str], None]) -> T | None:
        """What this rank makes, once all have made theirs. Where memory does not last on one of them all let go of
        theirs, the next way is taken, which is told, and all make theirs again; None where no way is left. `ways` come
        to the same on all ranks."""
        while True:
            found = _as_far_as_memory_lasts(make)
            if not self.any(not found):
                return found[0]
            found.clear()  # where the error no longer holds what was made
            how = next(ways, None)
            if how is None:
                return None
            give_back()
            tell(how)

    def shared(self, make: Callable[[], T]) -> T:
        """What rank 0 makes; the others do not."""
        return self.collected(make if self.first else nothing)[0]

    def any(self, value: bool) -> bool:
        return any(self.exchange(value))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work that all do: where it fails on one of them, the others hear of it at their next exchange."""
        try:
            yield
        except ProcessLost:
            raise
        except Exception as error:
            if error is not self._told and not self.alone:
                if not self.first and not isinstance(error, ConfigError | OSError):
                    traceback.print_exc()  # of which the others hear one line
                with suppress(Exception):
                    self.fail(error)
            raise

    def dismiss(self) -> None:
        """Tell the others, as rank 0, that there is nothing more to do."""
        if not self.alone:
            with suppress(Exception):
                self._say(_Left(), None)
        if self._started is not None:
            self._started.end()

    def trade(self, own: Tensor | None, room: dict[int, Tensor], receivers: Sequence[int]) -> dict[int, Tensor]:
        """Send what this rank has of a site to who wants it; where there is room, what all have of it, by rank."""
        operations = []
        if own is not None and len(own):
            for receiver in receivers:
                if receiver != self.rank:
                    operations.append(dist.P2POp(dist.isend, _bytes(own), receiver, self._bulk))
                    self.sent_bytes += own.nbytes
        for rank, x_ND in room.items():
            if rank != self.rank and len(x_ND):
                operations.append(dist.P2POp(dist.irecv, _bytes(x_ND), rank, self._bulk))
                self.received_bytes += x_ND.nbytes
        if operations:
            with self._losing():
                for work in dist.batch_isend_irecv(operations):
                    work.wait()
        return room if own is None or not room else {**room, self.rank: own}

    def _say(self, value: Any, channel: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        with self._losing():
            dist.all_gather_object(found, value, group=channel or self._talk)
        return found

    def known(self, error: Exception) -> Exception:
        """The error, of which all ranks know now."""
        self._told = error
        return error

    @contextmanager
    def _losing(self) -> Iterator[None]:
        """Raises ProcessLost where the others cannot be reached any more."""
        try:
            yield
        except RuntimeError as error:
            raise ProcessLost(self._loss()) from error

    def _loss(self) -> str:
        """Who is gone, where this process can know."""
        until = monotonic() + SECONDS_TO_DIE
        who = None
        while self._started is not None and who is None and monotonic() < until:
            who = self._started.lost()
            sleep(0.05)
        if who is None:
            who = "another rank is gone" if self.first else "rank 0 or another one is gone"
        return f"{who}; the same command goes on from the last checkpoint"


ALONE = Ranks(Role())


def _as_far_as_memory_lasts(make: Callable[[], T]) -> list[T]:
    """What is made; nothing where memory does not last for it."""
    try:
        return [make()]
    except OUT_OF_MEMORY as error:
        if not is_out_of_memory(error):
            raise
    return []


def _bytes(x: Tensor) -> Tensor:
    """The same memory, as numbers that any backend sends."""
    return x.contiguous().view(torch.uint8)


def nothing() -> Any:
    """What a rank makes that leaves it to rank 0."""
    return None
