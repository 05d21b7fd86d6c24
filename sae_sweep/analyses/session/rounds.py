"""Several readers that go over the same batches, each in its own thread: a batch is made once, and given to all."""

from collections import Counter
from collections.abc import Callable, Iterator
from threading import Condition, get_ident
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Rounds(Generic[Batch]):
    """Passes over batches that readers share.

    A batch is made when all readers that still run wait for one. Who reads a second time does so in a second pass,
    which begins when nobody reads the first any more.
    """

    def __init__(self, batches: Callable[[], Iterator[Batch]], readers: int) -> None:
        """`batches` begins a pass; `readers` is how many threads will read or say that they are `done`."""
        self._batches, self._running = batches, readers
        self._changed = Condition()
        self._begun: Counter[int] = Counter()
        self._waiting: dict[int, int] = {}
        """The pass that each reader who waits is in."""
        self._given: dict[int, Batch | BaseException | None] = {}
        self._passes: dict[int, Iterator[Batch]] = {}

    def batches(self) -> Iterator[Batch]:
        """Every batch, once. Raises what making one raises, in every reader that waits for it."""
        self._begun[get_ident()] += 1
        own = self._begun[get_ident()]
        while (batch := self._next(own)) is not None:
            yield batch

    def done(self) -> None:
        """Say that the calling thread reads no more."""
        with self._changed:
            self._running -= 1
            self._advance()

    def _next(self, number: int) -> Batch | None:
        with self._changed:
            self._waiting[get_ident()] = number
            self._advance()
            self._changed.wait_for(lambda: get_ident() in self._given)
            given = self._given.pop(get_ident())
        if isinstance(given, BaseException):
            raise given
        return given

    def _advance(self) -> None:
        """Make the next batch where everybody waits."""
        if not self._waiting or len(self._waiting) < self._running:
            return
        number = min(self._waiting.values())
        try:
            made = next(self._passes.setdefault(number, self._batches()), None)
        except Exception as error:
            made = error  # type: ignore[assignment]
        for reader in [reader for reader, own in self._waiting.items() if own == number]:
            del self._waiting[reader]
            self._given[reader] = made
        self._changed.notify_all()
