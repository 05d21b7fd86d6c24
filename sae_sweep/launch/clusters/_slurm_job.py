"""What runs in a SLURM job: the worker, and beside it this, which puts the job back into the queue when it was ended.

The worker is a process of its own, so that whatever ends it, SIGKILL too, leaves somebody who requeues the job. Where
everything is ended at once (a node fails, a preempted job's grace runs out) SLURM requeues by itself. Either way the
worker goes on from the newest checkpoint on disk.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from sae_sweep.errors import ProcessLost
from sae_sweep.folder.checkpoints import StateFolder
from sae_sweep.launch.clusters._slurm_queue import TIMEOUT
from sae_sweep.launch.tables import say
from sae_sweep.launch.tasks import Task

PREEMPTED = (128 + signal.SIGTERM, -signal.SIGTERM)
"""Exit codes of a worker that SLURM told to make room: it may have had no time to get any further."""


class GroupJob:
    """submitit's callable. It is pickled, and has nothing in it: the task's folder is its argument."""

    def __call__(self, place: str) -> None:
        """Work on a task; the process ends with the worker's exit code, unless that is 0."""
        task = Task.at(Path(place))
        before = _steps(task)
        code = _work(place)
        if code == 0:
            return
        # 128 + n: the worker noticed signal n and left a checkpoint; -n: it had no time to; or one of its ranks died.
        if (code < 0 or code > 128 or code == ProcessLost.exit_code) and _wanted():
            if code in PREEMPTED or _steps(task) > before:
                _requeue(f"the worker ended with {code}; the job goes back into the queue")
            else:
                say(f"the worker ended with {code} before another checkpoint was written: the job ends")
        sys.exit(code if code > 0 else 128 - code)


def _work(place: str) -> int:
    worker = subprocess.Popen([sys.executable, "-m", "sae_sweep.cli", "work", place])

    def pass_on(number: int, frame: object) -> None:
        worker.send_signal(number)  # SLURM may have told it too, which it does not mind

    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, pass_on)
    return worker.wait()


def _steps(task: Task) -> int:
    """How far the members' checkpoints are, all together."""
    homes = StateFolder(task.root).homes()
    wanted = set(task.identities)
    return sum(
        member.step
        for identity, checkpoint in homes.items()
        if identity in wanted
        for member in checkpoint.members
        if member.identity == identity
    )


def _wanted() -> bool:
    """Whether SLURM still runs the job. One that was cancelled is COMPLETING by now, and stays ended; one that has to
    make room, or is near its time limit, is RUNNING."""
    return "JobState=RUNNING" in _scontrol("show", "job", _own_job())


def _requeue(why: str) -> None:
    say(why)
    _scontrol("requeue", _own_job())


def _own_job() -> str:
    """This job alone, in scontrol's words: the id that one task of an array has in common with it means all of them."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]


def _scontrol(*arguments: str) -> str:
    try:
        result = subprocess.run(["scontrol", *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"scontrol {' '.join(arguments)}: {error}")
        return ""
    if result.returncode:
        say(f"scontrol {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout
