"""The real command on a Ray cluster of this machine, where Ray is installed: pip install -e '.[ray]'."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.folder.lock import read_holder
from sae_sweep.launch.tasks import read_tasks
from tests.cluster.sweeps import LONG, SHORT, SWEEP, results, step
from tests.e2e.kills import finish, start, wait

pytestmark = pytest.mark.slurm

RAY = ("hydra/launcher=ray", "hydra.launcher.cpus=1")


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def test_two_groups_come_to_what_one_process_does(tmp_path: Path, alone: Any) -> None:
    arguments = (*SHORT, "data.seed=0,1")
    code, said = finish(start(tmp_path, *SWEEP, *RAY, *arguments))
    assert code == 0, said
    assert "2 of 2 tasks are over" in said
    assert results(tmp_path / "outputs" / "it") == alone(*arguments)


def test_a_worker_that_is_killed_is_run_again_and_ends_alike(tmp_path: Path, alone: Any) -> None:
    sweep = tmp_path / "outputs" / "it"
    process = start(tmp_path, *SWEEP, *RAY, *LONG, "data.seed=0,1")
    assert wait(process, lambda: step(sweep) > 100)
    task = next(task for task in read_tasks(sweep) if task.holder is not None)
    holder = read_holder(sweep, task.name)
    assert holder is not None
    os.kill(holder.pid, signal.SIGKILL)
    code, said = finish(process)
    assert code == 0, said
    assert "resuming at step " in Path(str(task.log)).read_text()
    assert results(sweep) == alone(*LONG, "data.seed=0,1")


def test_more_than_the_machine_has_is_refused(tmp_path: Path) -> None:
    code, said = finish(start(tmp_path, *SWEEP, *SHORT, "hydra/launcher=ray", "hydra.launcher.cpus=4096"))
    assert code == 2
    assert "hydra.launcher.cpus=4096: this machine has " in said
    assert not read_tasks(tmp_path / "outputs" / "it")
