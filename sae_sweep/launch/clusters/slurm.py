"""`hydra/launcher=slurm`: one job array for a sweep, one of its tasks for each group, submitted through submitit.

submitit writes the sbatch script and its jobs' logs. What it says of a job's success is not asked: a member's state is
what its worker wrote into the sweep's folder, and what SLURM says of a job that ended without a word.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from subprocess import CalledProcessError
from typing import Any

from sae_sweep.config.reading import typed
from sae_sweep.errors import ConfigError
from sae_sweep.folder.names import SLURM_LOGS, STATE
from sae_sweep.host.signals import Interrupted
from sae_sweep.launch.clusters import at_least
from sae_sweep.launch.clusters._slurm_job import GroupJob
from sae_sweep.launch.clusters._slurm_queue import ask_queue, cancel_jobs
from sae_sweep.launch.standing import over, verdicts, wait_for
from sae_sweep.launch.tables import say
from sae_sweep.launch.tasks import Task


@dataclass(frozen=True)
class SlurmOptions:
    """What `hydra.launcher` asks SLURM for. Null leaves it to the cluster."""

    partition: str | None
    account: str | None
    time: str | None
    """As SLURM writes it: MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS."""
    gpus: int
    """Of one group; 0 asks for none."""
    cpus: int
    mem: str | None
    """Of one group, as SLURM writes it: 32G."""
    parallel: int | None
    """Groups that run at once; null is as many as the cluster will."""
    setup: list[str] | None
    """Lines of shell that a job begins with."""
    sbatch: dict[str, Any] | None
    """Further options of sbatch, without their dashes: {qos: high, constraint: a100}."""
    signal_seconds: int
    """How long before its time limit a job is told to leave a checkpoint and goes back into the queue."""
    wait: bool
    """Stay until all is done; false returns as soon as all is submitted."""

    def parameters(self) -> dict[str, Any]:
        """The same as submitit calls it."""
        more = {"requeue": True, **(self.sbatch or {})}
        if self.time is not None:
            more["time"] = self.time
        return {
            "partition": self.partition,
            "account": self.account,
            "time": None,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "mem": self.mem,
            "array_parallelism": self.parallel or sys.maxsize,
            "setup": self.setup or [],
            "signal_delay_s": self.signal_seconds,
            "stderr_to_stdout": True,
            "additional_parameters": more,
        }

    def words(self) -> str:
        """Partition and resources, as people read them."""
        parts = [f"{self.gpus} GPU{'s' * (self.gpus != 1)}" if self.gpus else "", f"{self.cpus} CPUs"]
        parts += [self.mem or "", self.time or ""]
        return ", ".join(part for part in parts if part)


IN_QUOTES = {
    "time": "a time as SLURM writes it, in quotes: '24:00:00' or '1-12:00:00'",
    "mem": "an amount as SLURM writes it, like 32G",
}


def opened(options: Mapping[str, Any], name: str) -> "SlurmCluster":
    """SLURM with the keys of `hydra.launcher`. Raises ConfigError for one that cannot be."""
    for key, wanted in IN_QUOTES.items():
        if isinstance(value := options.get(key), int):  # YAML makes one of 24:00:00, and SLURM means minutes or MB
            raise ConfigError(f"hydra.launcher.{key}={value} is not {wanted}")
    checked = typed(SlurmOptions, options, "hydra.launcher.")
    at_least(checked, gpus=0, cpus=1, parallel=1, signal_seconds=1)
    return SlurmCluster(checked, name)


def words(job: str) -> str:
    """What people call a job."""
    return f"SLURM job {job}"


ask, cancel = ask_queue, cancel_jobs


class SlurmCluster:
    """SLURM, for the groups of one command."""

    def __init__(self, options: SlurmOptions, name: str) -> None:
        self._options, self._name = options, name
        self.waits, self.gpus = options.wait, options.gpus

    def place(self, number: int) -> str:
        """Where a group would run."""
        partition = f"partition {self._options.partition}" if self._options.partition else "the default partition"
        return f"would be submitted to {partition} as array task {number} with {self._options.words()}"

    def check(self) -> None:
        """Raises ConfigError on a machine without SLURM's commands."""
        if absent := [command for command in ("sbatch", "srun") if which(command) is None]:
            raise ConfigError(
                f"hydra/launcher=slurm: there is no {absent[0]} here; give the command on a machine of the cluster, or"
                " take hydra/launcher=local"
            )

    def submit(self, tasks: Sequence[Task]) -> None:
        """One array task for each; says their job ids, and how to look after them."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        root = tasks[0].root
        try:
            executor = submitit.SlurmExecutor(folder=root / STATE / SLURM_LOGS)
            executor.update_parameters(job_name=self._name, **self._options.parameters())
            jobs = executor.map_array(GroupJob(), [str(task.folder) for task in tasks])
        except (FailedJobError, FailedSubmissionError, CalledProcessError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()
            raise ConfigError(f"hydra/launcher=slurm: sbatch refuses: {said[-1] if said else error}") from error
        except RuntimeError as error:
            raise ConfigError(f"hydra/launcher=slurm: {error}") from error
        for task, job in zip(tasks, jobs, strict=True):
            task.write_job("slurm", job.job_id, str(Path(job.paths.stdout)))
        say(f"submitted {_counted(tasks)}: {', '.join(job.job_id for job in jobs)}")
        if not self.waits:
            _say_how(root)

    def wait(self, tasks: Sequence[Task]) -> None:
        """Until every job is over. Told to stop, says what goes on without it."""
        try:
            wait_for(tasks, lambda counts: say(f"SLURM: {counts}"))
        except Interrupted as interrupted:
            found = verdicts(tasks)
            left = [task for task in tasks if not over(task, found.get(task.name))]
            jobs = ", ".join(str(task.job) for task in left)
            say(
                f"{interrupted.name}: SLURM goes on with {_counted(left)} ({jobs});"
                " the same command waits for them again"
            )
            _say_how(tasks[0].root)
            raise


def _counted(tasks: Sequence[Task]) -> str:
    return f"{len(tasks)} SLURM job{'s' * (len(tasks) != 1)}"


def _say_how(root: Path) -> None:
    say(f"see how far they are: sae-sweep status {root}")
    say(f"cancel them:          sae-sweep cancel {root}")
