"""Activations handed over in Python: `ss.train(..., activations=f)`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

import sae_sweep as ss
from sae_sweep.errors import ConfigError
from sae_sweep.folder.names import WEIGHTS

BLOCKS = [np.random.default_rng(index).standard_normal((96, 8), dtype=np.float32) for index in range(12)]
ASKED = (
    *("sae=topk,gated", "sae.l0=3", "sae.width=24", "training.batch_size=32", "training.tokens=864"),
    *("evaluation.tokens=150", "tracking=none"),
)


def from_block(index: int) -> Iterator[npt.NDArray[np.float32]]:
    return iter(BLOCKS[index:])


def weights(sweep: Any, folder: Path, name: str) -> dict[str, dict[str, torch.Tensor]]:
    return {label: load_file(folder / name / label / WEIGHTS) for label in sweep.frame().index}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("given")
    sweep = ss.train(*ASKED, name="whole", output_dir=folder, activations=from_block)
    assert set(sweep.frame()["state"]) == {"finished"}
    assert set(sweep.frame()["tokens_evaluated"]) == {192}  # two rows of 96: whole rows that cover 150
    assert sweep.frame()["ce_recovered"].isna().all()
    return weights(sweep, folder, "whole")


def same(one: dict[str, dict[str, torch.Tensor]], other: dict[str, dict[str, torch.Tensor]]) -> bool:
    return one.keys() == other.keys() and all(
        one[label][name].equal(other[label][name]) for label in one for name in one[label]
    )


@pytest.mark.parametrize(
    "blocks",
    [iter(BLOCKS), [torch.from_numpy(block) for block in BLOCKS]],
    ids=["iterator", "list of tensors"],
)
def test_blocks_that_come_once_train_the_same_without_checkpoints(
    blocks: Any, trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """12 blocks of 96: two are held out, nine trained on, and one trims gated's L0."""
    asked = [*ASKED, "training.checkpoint_tokens=96"]
    sweep = ss.train(*asked, name="once", output_dir=tmp_path, activations=blocks)
    assert same(weights(sweep, tmp_path, "once"), trained)
    assert "no checkpoints are kept: the activations come once" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on_from_its_checkpoint(trained: Any, tmp_path: Path) -> None:
    asked: list[int] = []

    def breaks(index: int) -> Iterator[npt.NDArray[np.float32]]:
        asked.append(index)
        for place, block in enumerate(BLOCKS[index:], index):
            if place == 8:
                raise OSError("the disk is gone")
            yield block

    stopped = ss.train(*ASKED, name="stopped", output_dir=tmp_path, activations=breaks)
    assert set(stopped.frame()["state"]) == {"failed"}
    assert asked == [0]
    read: list[int] = []

    def told(index: int) -> Iterator[npt.NDArray[np.float32]]:
        read.append(index)
        return from_block(index)

    sweep = ss.train(*ASKED, name="stopped", output_dir=tmp_path, activations=told)
    assert same(weights(sweep, tmp_path, "stopped"), trained)
    assert read == [0, 8]  # what is held out and the calibration block, then where it was stopped


def test_fewer_blocks_are_trained_on_again_where_they_can_be_had(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ss.train(*ASKED, name="again", output_dir=tmp_path, activations=lambda index: BLOCKS[index:5])
    assert set(sweep.frame()["tokens_trained"]) == {864}
    ended = ss.train(*ASKED, name="ended", output_dir=tmp_path, activations=iter(BLOCKS[:5]))
    assert set(ended.frame()["state"]) == {"failed"}
    assert "failed, activations= ended after 3 blocks to train on, before training.tokens" in capsys.readouterr().out


def test_a_smaller_block_ends_them(tmp_path: Path) -> None:
    blocks = [*BLOCKS[:5], BLOCKS[5][:50]]
    sweep = ss.train(*ASKED, name="smaller", output_dir=tmp_path, activations=lambda index: blocks[index:])
    whole = ss.train(*ASKED, name="whole", output_dir=tmp_path, activations=lambda index: BLOCKS[index:5])
    assert same(weights(sweep, tmp_path, "smaller"), weights(whole, tmp_path, "whole"))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "none": (lambda: iter([]), "gave no block"),
    "too few": (lambda: iter(BLOCKS[:2]), "gave 2 blocks of 96, too few to hold out evaluation.tokens=150"),
    "words": (lambda: iter(["words"]), "gave str as block 0, not an array"),
    "integers": (lambda: iter([np.ones((4, 2), int)]), r"gave \[4, 2\] torch.int64 as block 0; give \[B, D\]"),
    "one dimension": (lambda: iter([np.ones(4)]), r"gave \[4\] torch.float64 as block 0"),
    "other width": (
        lambda: iter([*BLOCKS[:2], BLOCKS[3][:, :4]]),
        r"gave \[96, 4\] torch.float32 as block 2; give \[96, 8\], as the first",
    ),
    "larger": (lambda: iter([BLOCKS[0][:90], *BLOCKS]), r"gave \[96, 8\] torch.float32 as block 1"),
    "not a number": (lambda: iter([block * np.nan for block in BLOCKS]), "infinite or NaN activations"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_handed_over_wrongly_is_one_line(name: str, tmp_path: Path) -> None:
    made, told = REFUSED[name]
    with pytest.raises(ConfigError, match=told):
        ss.train(*ASKED, name="refused", output_dir=tmp_path, activations=made())


def test_the_command_line_says_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"handed over in Python, by ss\.train\(\.\.\., activations=f\)"):
        ss.train("data=given", "data.path=mine", *ASKED, name="refused", output_dir=tmp_path)


def test_a_dry_run_prints_the_plan_and_says_that_it_left_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"dry_run: this was the plan, and there is no sweep in .*/planned yet"):
        ss.train("sae=topk", "dry_run=true", name="planned", output_dir=tmp_path)
    assert "1 member in 1 group" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
