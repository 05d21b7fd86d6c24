"""Analyses that read in step get every batch, each made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.readings import Reading, read
from sae_sweep.analyses.session.result import Result


def reader(passes: int = 1, stops: bool = False) -> Reading[int]:
    seen: list[int] = []
    for _ in range(passes):
        while (batch := (yield)) is not None:
            seen.append(batch)
            if stops:
                return Result(details={"seen": seen})
    return Result(details={"seen": seen})


def test_each_batch_is_made_once_for_all_who_read() -> None:
    made: list[int] = []

    def batches(start: int) -> Iterator[int]:
        for number in range(start, 3):
            made.append(number)
            yield number

    at_once = Result(details={"seen": []})
    asked = {"a": reader(), "nothing": at_once, "none": reader(0), "first": reader(stops=True), "b": reader()}
    found = {name: result.details["seen"] for name, result in read(asked, batches).items()}
    assert list(found) == list(asked)
    assert found == {"a": [0, 1, 2], "nothing": [], "none": [], "first": [0], "b": [0, 1, 2]}
    assert made == [0, 1, 2]


def test_a_second_reading_is_another_pass() -> None:
    found = read({"twice": reader(2), "once": reader()}, lambda start: iter(range(start, 2)))
    assert [result.details for result in found.values()] == [{"seen": [0, 1, 0, 1]}, {"seen": [0, 1]}]


def test_what_goes_wrong_in_a_batch_ends_them_all() -> None:
    def batches(start: int) -> Iterator[int]:
        yield 0
        raise ValueError("a damaged row")

    with pytest.raises(ValueError, match="a damaged row"):
        read({"a": reader(), "b": reader()}, batches)


def test_each_goes_on_where_it_was() -> None:
    """The first has had a pass and a batch, the second two batches of the first pass."""
    kept = {"a": Kept(), "b": Kept(), "c": Kept()}
    kept["a"].passes, kept["a"].batches, kept["b"].batches = 1, 1, 2
    asked = {"a": reader(2), "b": reader(2), "c": reader(1)}
    found = read(asked, lambda start: iter(range(start, 3)), kept)
    assert [result.details["seen"] for result in found.values()] == [[1, 2], [2, 0, 1, 2], [0, 1, 2]]


def test_what_is_kept_is_kept_of_the_same_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.safetensors"
    first = Kept(file, "x")
    first.save()
    assert not file.exists(), "there is nothing to keep"
    first.zeros("sums", 2)[1] += 3
    first.passes, first.batches = 1, 2
    first.save()
    again, other = Kept(file, "x"), Kept(file, "y")
    assert (again.passes, again.batches, again.zeros("sums", 2).tolist()) == (1, 2, [0, 3])
    assert (other.passes, other.batches, other.zeros("sums", 2).tolist()) == (0, 0, [0, 0])
    assert again.once("sums", lambda: torch.ones(1)).tolist() == [0, 3]
    file.write_bytes(b"damaged")
    assert Kept(file, "x").passes == 0
