"""A CPU's cores, one for each of several pieces of work: many short operations are hardly faster on two cores that
share each of them, and several side by side keep all busy."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def workers(device: torch.device, pieces: int) -> int:
    """How many of so many pieces of work should run side by side on a device."""
    return max(1, min(torch.get_num_threads(), pieces)) if device.type == "cpu" else 1


def core_pool(count: int, share: int | None = None) -> ThreadPoolExecutor:
    """`count` threads that share this process's cores evenly, or have so many of them each."""
    threads = torch.get_num_threads()
    own = share or max(1, threads // count)
    all_begun = Barrier(count)  # the pool would give a thread that is idle the next one's work

    def begin() -> None:
        torch.get_num_threads()  # by which a thread takes over the process's number: it must not do so later
        torch.set_num_threads(own)
        all_begun.wait()

    pool = ThreadPoolExecutor(count, "core", begin)
    list(pool.map(lambda _: None, range(count)))
    torch.set_num_threads(threads)  # what the last of them asked for would be that of all later threads
    return pool


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item], device: torch.device) -> Iterator[Result]:
    """function(item) for each, in their order; without gradient, and as many at a time as the device has cores for."""
    count = workers(device, len(items))

    def run(item: Item) -> Result:
        with torch.no_grad():
            return function(item)

    if count == 1:
        yield from map(run, items)
        return
    pool = _kept_pool(count, torch.get_num_threads())
    futures = [pool.submit(run, item) for item in items]
    try:
        for future in futures:
            yield future.result()
    finally:  # where one fails, the others are not to go on behind the caller's back
        for future in futures:
            future.cancel()
        wait(futures)


@cache
def _kept_pool(count: int, threads: int) -> ThreadPoolExecutor:
    """Begun once for so many of a process's threads: a thread that is new has no room of its own yet for products, and
    makes it again each time."""
    return core_pool(count)
