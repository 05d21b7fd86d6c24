"""Whatever ends a pass between steps leaves a checkpoint, and the same command goes on from there."""

from pathlib import Path

import pytest

from sae_sweep.activations.toy import ToyStream
from sae_sweep.folder.checkpoints import StateFolder
from sae_sweep.training.run.judging import Judging
from tests.e2e.kills import assert_same
from tests.training.run.toy_sweeps import TOPK, Alone, forget_config, strike, sweep


@pytest.mark.parametrize(
    ("owner", "name", "call", "steps"), [(ToyStream, "block", 4, 30), (Judging, "finish", 1, 83)], ids=["data", "judge"]
)
def test_an_error_of_any_kind(
    owner: type, name: str, call: int, steps: int, tmp_path: Path, alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 32 x 16 activations hold ten batches of 48 and a rest; 83 batches are 4,000 tokens."""

    def lost() -> None:
        raise RuntimeError("the device is lost")

    with monkeypatch.context() as patch:
        strike(patch, owner, name, call, lost)
        (outcome,) = sweep(tmp_path, TOPK)
    assert (outcome.state, outcome.reason) == ("failed", "RuntimeError: the device is lost")
    (home,) = StateFolder(tmp_path / "sweep").homes().values()
    assert [record.step for record in home.members] == [steps]
    (again,) = sweep(tmp_path, TOPK)
    assert again.state == "finished"
    assert_same(forget_config(tmp_path / "sweep"), forget_config(alone(TOPK)))
