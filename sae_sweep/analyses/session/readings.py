"""Analyses that go over the same batches in step: a batch is made once, and given to all that have not had it."""

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Generic, TypeVar

from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.result import Result
from sae_sweep.analyses.session.told import Told, unseen

Batch = TypeVar("Batch")
Reading = Generator[None, Batch | None, Result]
"""What `run` of an analysis that reads is: it yields for each batch, is sent None where a pass ends, and returns what
it found. One that yields again reads a second pass. All that it keeps of a pass is in `session.kept`, so that one that
was killed can begin anew and be given the batches that it has not had."""


def read(
    asked: Mapping[str, Result | Reading[Batch]],
    batches: Callable[[int], Iterable[Batch]],
    kept: Mapping[str, Kept] | None = None,
    count: Callable[[], int] = lambda: 0,
    told: Told | None = None,
) -> dict[str, Result]:
    """What each analysis finds, by name. `batches` begins a pass at the batch of that number; there are as many passes
    as the longest of them needs. `count` says how many batches a pass has, `told` is told how many are read."""
    readers = _Readers(asked, kept or {})
    told = told or unseen()
    while readers.reading:
        here, start = readers.next_pass()
        doing = f"{', '.join(here)}: pass {readers.kept[here[0]].passes + 1}"
        for number, batch in enumerate(batches(start), start):
            told(doing, number, count())
            readers.give(here, number, batch)
            if not readers.reading:
                break
        readers.end_pass(here)
    return {name: readers.found[name] for name in asked}


class _Readers(Generic[Batch]):
    """Those that have something to read, and what the others have found."""

    def __init__(self, asked: Mapping[str, Result | Reading[Batch]], kept: Mapping[str, Kept]) -> None:
        """Begin them, and let them end the passes of which all is kept."""
        self.found = {name: one for name, one in asked.items() if isinstance(one, Result)}
        self.reading = {name: one for name, one in asked.items() if not isinstance(one, Result)}
        self.kept = {name: kept.get(name) or Kept() for name in self.reading}
        for name in list(self.reading):
            for _ in range(1 + self.kept[name].passes):
                self._send(name, None)

    def next_pass(self) -> tuple[list[str], int]:
        """Those whose next pass is the first that is to be read, and the batch that it begins at."""
        number = min(self.kept[name].passes for name in self.reading)
        here = [name for name in self.reading if self.kept[name].passes == number]
        return here, min(self.kept[name].batches for name in here)

    def give(self, here: Iterable[str], number: int, batch: Batch) -> None:
        """Give a batch to those that have not had it."""
        for name in [name for name in here if self.kept[name].batches == number]:
            self._send(name, batch)
            self.kept[name].batches += 1
            self.kept[name].save_now_and_then()

    def end_pass(self, here: Iterable[str]) -> None:
        """There are no more batches."""
        for name in here:
            self.kept[name].passes, self.kept[name].batches = self.kept[name].passes + 1, 0
            self._send(name, None)

    def _send(self, name: str, batch: Batch | None) -> None:
        if name in self.reading:
            try:
                self.reading[name].send(batch)
            except StopIteration as ended:
                self.found[name] = ended.value
                del self.reading[name]
