"""A disk without room, while a sweep trains."""

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sae_sweep.errors import StorageError
from sae_sweep.folder.sweep import SweepFolder
from tests.e2e.kills import assert_same
from tests.training.run.toy_sweeps import TOPK, Alone, forget_config, sweep


@pytest.fixture
def limited() -> Iterator[Callable[[int], None]]:
    """Sets the size that no file may pass, as a disk without room does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_for_a_checkpoint_is_said_and_training_goes_on(
    tmp_path: Path, limited: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """A member's moments make its state larger than all else."""
    limited(20_000)
    with pytest.raises(StorageError):  # the report is larger too
        sweep(tmp_path, TOPK, also=("training.checkpoint_tokens=1000",))
    said = [line for line in capsys.readouterr().err.splitlines() if "no checkpoint could be written" in line]
    assert len(said) >= 3
    assert "File too large" in said[0]
    assert "there is no checkpoint yet" in said[0]
    (entry,) = SweepFolder(tmp_path / "sweep").read()["members"].values()
    assert entry["state"] == "finished"


def test_no_room_for_curves_ends_the_command_and_loses_nothing(
    tmp_path: Path, limited: Callable[[int], None], alone: Alone
) -> None:
    expected = alone(TOPK)
    limited(6_000)
    with pytest.raises(StorageError) as caught:
        sweep(tmp_path, TOPK, also=("tracking.log_every=1",))
    assert "metrics.jsonl: File too large; what was written before is kept" in str(caught.value)
    (curves,) = (tmp_path / "sweep").glob("*/metrics.jsonl")
    lines = curves.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(len(lines)))
    limited(resource.RLIM_INFINITY)
    sweep(tmp_path, TOPK)
    assert_same(forget_config(tmp_path / "sweep"), expected)
