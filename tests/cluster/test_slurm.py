"""The real command on a real SLURM of one node, which `make test-cluster` starts: what becomes of a sweep's jobs."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from sae_sweep.folder.lock import read_holder
from sae_sweep.launch.tasks import read_tasks
from tests.cluster.sweeps import LONG, SHORT, SWEEP, results, step
from tests.e2e.kills import PATIENCE, finish, other_rank, start

pytestmark = pytest.mark.slurm

SLURM = ("hydra/launcher=slurm", "hydra.launcher.gpus=0", "hydra.launcher.cpus=1")
ENDS = ("worker killed", "rank killed", "time limit", "preempted", "preempted without grace", "requeued")
REQUEUE_SECONDS = 5.0
"""After which a job that was put back may start here; at once SLURM would take it for the one it has just ended."""


@pytest.fixture(autouse=True)
def real_slurm() -> Iterator[None]:
    listed = slurm("sinfo", "--noheader", "--format=%R")
    assert {"low", "sudden", "high"} <= set(listed.split()), "make test-cluster starts the SLURM that this is for"
    yield
    slurm("scancel", "--me")
    until(lambda: not slurm("squeue", "--noheader"))


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def until(moment: Callable[[], Any], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for it. A job that was put back into the queue does not wait its two minutes here."""
    end = monotonic() + PATIENCE
    while not moment():
        assert monotonic() < end, "the moment did not come"
        assert process is None or process.poll() is None, process.communicate()
        hurry()
        sleep(0.2)


def hurry() -> None:
    for line in slurm("squeue", "--noheader", "--array", "--states=PENDING", "--format=%i|%r").splitlines():
        job, reason = line.split("|")
        if (
            reason == "BeginTime"
            and monotonic() > put_back.setdefault(f"{job} {restarts(job)}", monotonic()) + REQUEUE_SECONDS
        ):
            subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], capture_output=True, check=False)


put_back: dict[str, float] = {}
"""When a job was first seen to wait its two minutes."""


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it said, once it has ended."""
    end = monotonic() + PATIENCE
    while process.poll() is None:
        assert monotonic() < end, "the command does not end"
        hurry()
        sleep(0.5)
    return finish(process)


def status(folder: Path) -> dict[str, Any]:
    code, said = finish(start(folder, "status", "outputs/it", "--json"))
    assert code == 0, said
    told: dict[str, Any] = json.loads(said)
    return told


def restarts(job: str) -> int:
    (count,) = [word for word in slurm("scontrol", "show", "job", job).split() if word.startswith("Restarts=")]
    return int(count.removeprefix("Restarts="))


def test_an_array_of_two_groups_comes_to_what_one_process_does(tmp_path: Path, alone: Any) -> None:
    arguments = (*SHORT, "data.seed=0,1")
    code, said = ended(start(tmp_path, *SWEEP, *SLURM, *arguments))
    assert code == 0, said
    assert "submitted 2 SLURM jobs: " in said
    tasks = read_tasks(tmp_path / "outputs" / "it")
    assert sorted(str(task.job).partition("_")[2] for task in tasks) == ["0", "1"]
    assert results(tmp_path / "outputs" / "it") == alone(*arguments)


@pytest.mark.parametrize("how", ENDS)
def test_a_job_that_is_ended_goes_back_into_the_queue_and_ends_alike(tmp_path: Path, alone: Any, how: str) -> None:
    sweep = tmp_path / "outputs" / "it"
    partition = "sudden" if how == "preempted without grace" else "low"
    ranks = ("launcher.devices=2",) if how == "rank killed" else ()
    process = start(tmp_path, *SWEEP, *SLURM, *LONG, *ranks, f"hydra.launcher.partition={partition}")
    until(lambda: step(sweep) > 100, process)
    (task,) = read_tasks(sweep)
    job = str(task.job)
    if how == "worker killed":
        holder = read_holder(sweep, task.name)
        assert holder is not None
        os.kill(holder.pid, signal.SIGKILL)
    elif how == "rank killed":
        holder = read_holder(sweep, task.name)
        assert holder is not None
        os.kill(other_rank(holder.pid), signal.SIGKILL)
    elif how == "time limit":
        slurm("scancel", "--signal=USR2", job)  # what SLURM sends `signal_seconds` before
    elif how == "requeued":
        slurm("scontrol", "requeue", job)
    else:
        slurm("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap", "sleep 3")
    until(lambda: restarts(job) == 1, process)
    code, said = ended(process)
    assert code == 0, said
    assert "resuming at step " in Path(str(task.log)).read_text()
    assert results(sweep) == alone(*LONG)


def test_a_failing_member_shows_everywhere(tmp_path: Path) -> None:
    code, said = ended(start(tmp_path, *SWEEP, *SLURM, *SHORT, "training.lr=1e-2,1e18", "sae.k=3"))
    assert code == 1, said
    assert "1 of 2 members failed" in said
    told = status(tmp_path)
    assert sorted(member["state"] for member in told["members"]) == ["failed", "finished"]
    (task,) = told["tasks"]
    assert task["state"] == "FAILED"
    until(lambda: slurm("sacct", "-nXP", "-j", task["job"], "-o", "State").split() == ["FAILED"])


def test_submit_only_then_cancel_then_go_on(tmp_path: Path, alone: Any) -> None:
    sweep = tmp_path / "outputs" / "it"
    code, said = finish(start(tmp_path, *SWEEP, *SLURM, *LONG, "hydra.launcher.wait=false"))
    assert code == 0, said
    (task,) = read_tasks(sweep)
    assert f"submitted 1 SLURM job: {task.job}" in said
    assert f"sae-sweep status {sweep}" in said
    assert f"sae-sweep cancel {sweep}" in said
    code, said = finish(start(tmp_path, *SWEEP, *LONG))
    assert code == 2
    assert f"in the hands of SLURM job {task.job}" in said
    until(lambda: step(sweep) > 100)
    assert {member["state"] for member in status(tmp_path)["members"]} == {"running"}
    code, said = finish(start(tmp_path, "cancel", "outputs/it"))
    assert (code, f"cancelled SLURM job {task.job}" in said) == (0, True)
    until(lambda: {member["state"] for member in status(tmp_path)["members"]} == {"interrupted"})
    until(lambda: "CANCELLED" in status(tmp_path)["tasks"][0]["state"])  # SLURM says COMPLETING for a while
    code, said = ended(start(tmp_path, *SWEEP, *SLURM, *LONG))
    assert code == 0, said
    assert results(sweep) == alone(*LONG)


def test_who_stops_waiting_is_told_what_goes_on_and_may_wait_again(tmp_path: Path, alone: Any) -> None:
    sweep = tmp_path / "outputs" / "it"
    process = start(tmp_path, *SWEEP, *SLURM, *LONG)
    until(lambda: step(sweep) > 100, process)
    (task,) = read_tasks(sweep)
    process.send_signal(signal.SIGINT)
    code, said = finish(process)
    assert code == 130
    assert f"SLURM goes on with 1 SLURM job ({task.job})" in said
    assert f"sae-sweep cancel {sweep}" in said
    code, said = ended(start(tmp_path, *SWEEP, *SLURM, *LONG))
    assert code == 0, said
    assert "submitted" not in said
    assert results(sweep) == alone(*LONG)
