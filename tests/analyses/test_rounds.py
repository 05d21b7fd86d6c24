"""Readers in threads of their own get every batch, each made once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sae_sweep.analyses.session.rounds import Rounds


def read(rounds: Rounds[int], *readers: Callable[[Rounds[int]], list[int]]) -> list[list[int]]:
    def one(reader: Callable[[Rounds[int]], list[int]]) -> list[int]:
        try:
            return reader(rounds)
        finally:
            rounds.done()

    with ThreadPoolExecutor(len(readers)) as pool:
        return [future.result() for future in [pool.submit(one, reader) for reader in readers]]


def once(rounds: Rounds[int]) -> list[int]:
    return list(rounds.batches())


def twice(rounds: Rounds[int]) -> list[int]:
    return once(rounds) + once(rounds)


def never(_: Rounds[int]) -> list[int]:
    return []


def first_only(rounds: Rounds[int]) -> list[int]:
    return [next(rounds.batches())]


def test_each_batch_is_made_once_for_all_who_read() -> None:
    made: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    assert read(Rounds(batches, 4), once, never, first_only, once) == [[0, 1, 2], [], [0], [0, 1, 2]]
    assert made == [0, 1, 2]


def test_a_second_reading_is_another_pass() -> None:
    assert read(Rounds(lambda: iter(range(2)), 2), twice, once) == [[0, 1, 0, 1], [0, 1]]


def test_who_waits_hears_of_what_went_wrong() -> None:
    def batches() -> Iterator[int]:
        yield 0
        raise ValueError("a damaged row")

    with pytest.raises(ValueError, match="a damaged row"):
        read(Rounds(batches, 2), once, once)
