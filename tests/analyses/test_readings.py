"""Analyses that read in step get every batch, each made once."""

from collections.abc import Iterator

import pytest

from sae_sweep.analyses.session.readings import Reading, read
from sae_sweep.analyses.session.result import Result


def reader(passes: int = 1, stops: bool = False) -> Reading[int]:
    seen: list[int] = []
    for _ in range(passes):
        while (batch := (yield)) is not None:
            seen.append(batch)
            if stops:
                return Result(figure={"seen": seen})
    return Result(figure={"seen": seen})


def test_each_batch_is_made_once_for_all_who_read() -> None:
    made: list[int] = []

    def batches() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    at_once = Result(figure={"seen": []})
    asked = {"a": reader(), "nothing": at_once, "none": reader(0), "first": reader(stops=True), "b": reader()}
    found = {name: result.figure and result.figure["seen"] for name, result in read(asked, batches).items()}
    assert list(found) == list(asked)
    assert found == {"a": [0, 1, 2], "nothing": [], "none": [], "first": [0], "b": [0, 1, 2]}
    assert made == [0, 1, 2]


def test_a_second_reading_is_another_pass() -> None:
    found = read({"twice": reader(2), "once": reader()}, lambda: iter(range(2)))
    assert [result.figure for result in found.values()] == [{"seen": [0, 1, 0, 1]}, {"seen": [0, 1]}]


def test_what_goes_wrong_in_a_batch_ends_them_all() -> None:
    def batches() -> Iterator[int]:
        yield 0
        raise ValueError("a damaged row")

    with pytest.raises(ValueError, match="a damaged row"):
        read({"a": reader(), "b": reader()}, batches)
