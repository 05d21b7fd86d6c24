"""The next block is made in a thread, in time, once, and never beyond the last."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from sae_sweep.activations.block import Block
from sae_sweep.activations.prefetch import Prefetch
from sae_sweep.training.run.loop import GroupRun
from sae_sweep.training.run.opening import open_group
from sae_sweep.training.run.sources import ToySource
from sae_sweep.training.step.trainer import BankTrainer
from tests.evaluation.groups import Planned, planned

CPU = torch.device("cpu")


class Maker:
    """Makes blocks, and remembers which and in which thread; block 9 cannot be made."""

    def __init__(self) -> None:
        self.made: list[tuple[int, bool]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(self, index: int) -> Block:
        self.may_go_on.wait(10)
        self.made.append((index, threading.current_thread() is threading.main_thread()))
        if index == 9:
            raise ValueError("block 9 cannot be made")
        return Block(index, 0, {"a": torch.full((2, 1), float(index))}, {"a": torch.tensor([index, index])})


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def blocks(maker: Maker) -> Iterator[Prefetch]:
    made = Prefetch(maker, CPU, lambda index: index != 5)
    yield made
    made.close()


def test_an_announced_block_is_made_once_in_another_thread(maker: Maker, blocks: Prefetch) -> None:
    assert blocks.block(0).index == 0
    blocks.announce(1)
    blocks.announce(2)  # not before block 1 was fetched
    assert blocks.block(1).activations["a"].tolist() == [[1], [1]]
    assert blocks.block(2).index == 2
    assert maker.made == [(0, True), (1, False), (2, True)]


def test_a_block_that_does_not_pay_is_made_when_it_is_used(maker: Maker, blocks: Prefetch) -> None:
    blocks.announce(5)
    assert maker.made == []
    blocks.block(5)
    assert maker.made == [(5, True)]


def test_another_block_does_not_lose_the_announced_one(maker: Maker, blocks: Prefetch) -> None:
    blocks.announce(7)
    assert [blocks.block(2).index, blocks.block(7).index] == [2, 7]
    assert maker.made == [(7, False), (2, True)], "one at a time: both run the model"


def test_all_that_was_made_on_another_stream_is_kept_for_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory must not be taken again while steps that read it are queued, those of a temporal SAE among them."""
    made = [MagicMock(name=name) for name in ("activations", "tokens", "inliers", "before")]
    block = Block(1, 0, {"a": made[0]}, {"a": made[1]}, inliers={"a": made[2]}, before_B=made[3])
    ahead, steps = Prefetch(lambda index: block, CPU, lambda index: True), MagicMock()
    ahead.announce(1)
    monkeypatch.setattr(ahead, "_stream", MagicMock())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: steps)
    assert ahead.block(1) is block
    ahead.close()
    for tensor in made:
        tensor.record_stream.assert_called_once_with(steps)


def test_an_error_comes_out_where_the_block_is_used(blocks: Prefetch) -> None:
    blocks.announce(9)
    blocks.rest()
    assert blocks.block(0).index == 0
    with pytest.raises(ValueError, match="block 9 cannot be made"):
        blocks.block(9)
    assert blocks.block(1).index == 1


def test_a_block_without_memory_beside_steps_is_made_after_them(maker: Maker) -> None:
    tried = []

    def make(index: int) -> Block:
        tried.append(index)
        if threading.current_thread() is not threading.main_thread():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return maker(index)

    blocks = Prefetch(make, CPU, lambda _: True)
    blocks.announce(3)
    with pytest.raises(torch.OutOfMemoryError):
        blocks.block(3)
    assert blocks.block(3).index == 3
    assert not blocks.pays_ahead(4)
    blocks.announce(4)  # no more
    blocks.rest()
    assert tried == [3, 3]
    assert blocks.block(4).index == 4
    blocks.close()


def test_the_thread_ends_with_the_block_it_is_making(maker: Maker) -> None:
    before = threading.active_count()
    blocks = Prefetch(maker, CPU, lambda _: True)
    maker.may_go_on.clear()
    blocks.announce(3)
    assert threading.active_count() == before + 1
    threading.Timer(0.05, maker.may_go_on.set).start()
    blocks.close()
    assert maker.made == [(3, False)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("block")]


MEMBERS = {"short": ["sae=topk", "sae.k=4", "training.tokens=150"], "long": ["sae=standard", "sae.l1=0.1"]}
STEERED = ["sae=gated", "sae.l0=4"]


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Blocks of a toy group are made ahead, as they would be on a GPU; which were made, and whether by the main
    thread."""
    made: list[tuple[int, bool]] = []
    real = ToySource.block

    def block(self: ToySource, index: int) -> Block:
        made.append((index, threading.current_thread() is threading.main_thread()))
        return real(self, index)

    monkeypatch.setattr(ToySource, "block", block)
    monkeypatch.setattr(ToySource, "pays_ahead", lambda self, index: True)
    return made


def group(folder: Path, members: dict[str, list[str]]) -> Planned:
    """Blocks of 128 rows, 8 batches; `long` reads three and a half."""
    shared = (
        *("data=toy", "data.context=16", "data.block_rows=8", "sae.width=32", "data.toy.dimensions=16"),
        *("training.batch_size=16", "training.tokens=448", "evaluation.tokens=64", "evaluation.every=100"),
        *("tracking=none", f"output_dir={folder}", "model.device=cpu"),
    )
    return planned(shared, members)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (MEMBERS, [0, 1, 2, 3]),
        # It ends in block 1, and its last correction is made on block 2, as others pass.
        (MEMBERS | {"steered": [*STEERED, "training.tokens=200"]}, [0, 1, 2, 3]),
        (MEMBERS | {"steered": STEERED}, [0, 1, 2, 3, 4]),
        (MEMBERS | {"of a fixed L0": ["sae=topk", "sae.l0=4"]}, [0, 1, 2, 3]),
    ],
)
def test_no_block_is_made_that_is_not_used(
    members: dict[str, list[str]], expected: list[int], ahead: list[tuple[int, bool]], tmp_path: Path
) -> None:
    made = group(tmp_path, members)
    results = open_group(made.group).run(made.folder)
    assert {result.reason for result in results.values()} == {None}
    # The first is the one that calibrates; all others are made ahead.
    assert ahead == [(index, index == 0) for index in expected]


def test_an_interrupted_run_leaves_no_thread(
    ahead: list[tuple[int, bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: BankTrainer, *arguments: Any) -> None:
        raise KeyboardInterrupt

    made = group(tmp_path, MEMBERS)
    run: GroupRun = open_group(made.group)
    monkeypatch.setattr(BankTrainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run(made.folder)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("block")]
