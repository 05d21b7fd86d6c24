"""Analyses that go over the same batches in step: a batch is made once, and given to all."""

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import TypeVar

from sae_sweep.analyses.session.result import Result

Batch = TypeVar("Batch")
Reading = Generator[None, Batch | None, Result]
"""What `run` of an analysis that reads is: it yields for each batch, is sent None where a pass ends, and returns what
it found. One that yields again reads a second pass."""


def read(asked: Mapping[str, Result | Reading[Batch]], batches: Callable[[], Iterable[Batch]]) -> dict[str, Result]:
    """What each analysis finds, by name. `batches` begins a pass; there are as many as the longest of them needs."""
    found = {name: one for name, one in asked.items() if isinstance(one, Result)}
    reading = {name: one for name, one in asked.items() if not isinstance(one, Result)}

    def give(batch: Batch | None) -> None:
        for name, one in list(reading.items()):
            try:
                one.send(batch)
            except StopIteration as ended:
                found[name] = ended.value
                del reading[name]

    give(None)  # which begins them
    while reading:
        for batch in batches():
            give(batch)
            if not reading:
                break
        give(None)
    return {name: found[name] for name in asked}
