"""A block for which memory does not last: what is tried, in which order, and what is said."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sae_sweep.errors import ConfigError
from sae_sweep.training.devices.ranks import ALONE
from sae_sweep.training.run.blocks import Blocks, first_block


class Machine:
    """Stands in for a group's blocks, members and model; a block is made once `enough` things have happened."""

    def __init__(self, enough: Sequence[str], can_wait: bool = True, passes: int = 1) -> None:
        self._enough, self._can_wait, self._passes = list(enough), can_wait, passes
        self.done: list[str] = []

    def block(self, index: int) -> str:
        self.done.append("block")
        if [what for what in self.done if what != "block"] != self._enough or self.done.count("block") < 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 bytes.")
        return f"block {index}"

    def leave(self) -> bool:
        self.done.append("left")
        return self._can_wait

    def in_smaller_passes(self) -> bool:
        self.done.append("smaller")
        self._passes -= 1
        return self._passes >= 0


def made(machine: Any) -> tuple[Any, list[str]]:
    told: list[str] = []
    blocks = object.__new__(Blocks)
    vars(blocks).update(_ahead=machine, _waves=machine, _source=machine, _ranks=ALONE, _tell=told.append)
    return blocks.block(3), told


@pytest.mark.parametrize(
    ("enough", "said"),
    [
        ([], ["with what was given back"]),
        (["left"], ["with what was given back", "members wait on the host"]),
        (
            ["left", "smaller", "smaller"],
            [
                "with what was given back",
                "members wait on the host",
                *["the model reads half as many rows at a time"] * 2,
            ],
        ),
    ],
)
def test_what_is_tried(enough: list[str], said: list[str]) -> None:
    machine = Machine(enough, passes=2)
    block, told = made(machine)
    assert block == "block 3"
    assert told == [f"launcher.memory_gb: out of memory while a block is made; once more, {how}" for how in said]


def test_members_that_cannot_wait_are_passed_over() -> None:
    machine = Machine(["left", "smaller"], can_wait=False)
    _, told = made(machine)
    assert [line.rpartition(", ")[2] for line in told] == [
        "with what was given back",
        "the model reads half as many rows at a time",
    ]


def test_where_nothing_helps_it_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"launcher\.memory_gb: memory does not last for a block beside the members"):
        made(Machine(["never"], passes=2))


def test_other_errors_are_raised() -> None:
    def block(index: int) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        made(SimpleNamespace(block=block, leave=None))


@pytest.mark.parametrize("passes", [2, 1])
def test_the_first_block_is_made_by_smaller_passes(passes: int) -> None:
    machine, told = Machine(["smaller", "smaller"], passes=passes), list[str]()
    source: Any = SimpleNamespace(calibration=lambda: machine.block(0), in_smaller_passes=machine.in_smaller_passes)
    if passes == 1:
        with pytest.raises(ConfigError, match=r"launcher\.memory_gb: memory does not last for the first block"):
            first_block(source, ALONE, told.append)
        assert len(told) == 1
        return
    assert str(first_block(source, ALONE, told.append)) == "block 0"
    assert [line.partition(";")[0] for line in told] == [
        "launcher.memory_gb: out of memory while the first block is made"
    ] * 2
