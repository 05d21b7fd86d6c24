"""Jobs that wait, end, are waited for or come back."""

import signal
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.host.signals import Interrupted
from sae_sweep.launch.clusters import Verdict, _slurm_job
from sae_sweep.launch.clusters._slurm_queue import GONE, ask_queue
from sae_sweep.launch.tasks import Task, read_tasks
from sae_sweep.launch.worker import train_task
from tests.launch.clusters.conftest import SLURM, Cluster


def test_what_waits_in_the_queue_is_not_trained_here(program: Any, cluster: Cluster) -> None:
    assert program(*SLURM, "data.seed=0") == 0
    task = read_tasks(program.folder / "outputs" / "sweep")[0]
    cluster.queue(f"{task.job}|{task.job}|PENDING|Resources")
    assert program("sae=topk") == 2
    assert f"in the hands of SLURM job {task.job}; see `sae-sweep status" in program.err
    assert program.err.count("\n") == 1
    assert program(*SLURM, "data.seed=0") == 0
    assert program.err == "", "nothing more is submitted"
    assert program("sae=gated") == 0, "another member is nobody's yet"
    assert program("cancel", "outputs/sweep") == 0
    assert (cluster.folder / "cancelled").read_text().split() == [task.job]


def test_without_an_answer_from_slurm_a_job_may_still_be_waiting(program: Any, cluster: Cluster) -> None:
    assert program(*SLURM, "data.seed=0") == 0
    cluster.answer("squeue", "", "exit 1")
    assert ask_queue(["17"])["17"].stage == "untold"
    assert program("sae=topk") == 2
    assert "in the hands of SLURM job" in program.err


def test_waiting_ends_when_the_jobs_do(program: Any, cluster: Cluster) -> None:
    assert program(*SLURM, "data.seed=0") == 0
    train_task(read_tasks(program.folder / "outputs" / "sweep")[0].folder)
    cluster.queue("17|17|COMPLETED|None")
    assert program("hydra/launcher=slurm", "sae=topk") == 0
    cluster.answer("sacct", "17|FAILED")
    cluster.queue()
    assert program("hydra/launcher=slurm", "sae=gated") == 1
    assert "SLURM job 17 ended as FAILED" in program.err


def test_ctrl_c_while_waiting_says_what_goes_on(
    program: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.queue("17|17|RUNNING|None")

    def interrupted(seconds: float) -> None:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr("sae_sweep.launch.standing.sleep", interrupted)
    assert program("hydra/launcher=slurm", "sae=topk") == 130
    assert "SIGINT: SLURM goes on with 1 SLURM job (17); the same command waits for them again" in program.err
    assert f"sae-sweep cancel {program.folder / 'outputs' / 'sweep'}" in program.err


def test_the_queue_is_read_by_either_name_of_an_array_task(cluster: Cluster) -> None:
    cluster.queue("21|17_3|RUNNING|None", "17_4|17_4|PENDING|Priority")
    cluster.answer("sacct", "17_5|TIMEOUT")
    assert ask_queue(["17_3", "17_4", "17_5", "17_6"]) == {
        "17_3": Verdict("runs", "RUNNING"),
        "17_4": Verdict("waits", "PENDING", "Priority"),
        "17_5": Verdict("over", "TIMEOUT"),
        "17_6": GONE,
    }


@pytest.mark.parametrize(
    ("code", "further", "requeued"),
    [
        (-9, True, True),
        (-9, False, False),
        (140, True, True),
        (140, False, False),
        (143, False, True),
        (1, True, False),
    ],
)
def test_which_jobs_go_back_into_the_queue(
    program: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, code: int, further: bool, requeued: bool
) -> None:
    assert program(*SLURM, "data.seed=0") == 0
    task = read_tasks(program.folder / "outputs" / "sweep")[0]
    steps = iter((5, 9 if further else 5))
    cluster.answer("scontrol", "   JobState=RUNNING Reason=None", f'echo "$@" >> {cluster.folder}/told')
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr(_slurm_job, "_work", lambda place: code)
    monkeypatch.setattr(_slurm_job, "_steps", lambda task: next(steps))
    with pytest.raises(SystemExit) as ended:
        _slurm_job.GroupJob()(str(task.folder))
    assert ended.value.code == (code if code > 0 else 128 - code)
    told = cluster.folder / "told"
    assert ("requeue 17" in (told.read_text() if told.exists() else "")) == requeued


def test_a_task_of_an_array_goes_back_alone(program: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last task has the array's own id, by which scontrol means all of them."""
    assert program(*SLURM, "data.seed=0") == 0
    cluster.answer("scontrol", "   JobState=RUNNING Reason=None", f'echo "$@" >> {cluster.folder}/told')
    for name, value in (("JOB_ID", "17"), ("ARRAY_JOB_ID", "17"), ("ARRAY_TASK_ID", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(_slurm_job, "_work", lambda place: 143)
    with pytest.raises(SystemExit):
        _slurm_job.GroupJob()(str(read_tasks(program.folder / "outputs" / "sweep")[0].folder))
    assert (cluster.folder / "told").read_text().splitlines() == ["show job 17_1", "requeue 17_1"]


def test_a_cancelled_job_does_not_come_back(program: Any, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert program(*SLURM, "data.seed=0") == 0
    cluster.answer("scontrol", "   JobState=COMPLETING Reason=None", f'echo "$@" >> {cluster.folder}/told')
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setattr(_slurm_job, "_work", lambda place: 143)
    with pytest.raises(SystemExit):
        _slurm_job.GroupJob()(str(read_tasks(program.folder / "outputs" / "sweep")[0].folder))
    assert "requeue" not in (cluster.folder / "told").read_text()


def test_a_task_that_is_gone_is_one_line(program: Any) -> None:
    assert program("work", "outputs/sweep/.state/tasks/x") == 2
    assert program.err.count("\n") == 1
    assert Task(Path("outputs/sweep"), "x").job is None
