"""`sae-sweep cancel DIR`: end what a cluster has of a sweep."""

from pathlib import Path

from sae_sweep.errors import ConfigError
from sae_sweep.folder.lock import living_holder
from sae_sweep.launch.clusters.slurm_queue import cancel_jobs
from sae_sweep.launch.tasks import SLURM, over, read_tasks, verdicts


def cancel_sweep(root: Path) -> None:
    """Cancel the SLURM jobs of a sweep that are not over, and say which.

    Raises ConfigError where SLURM refuses, and where there are none but a process trains here, which must be told.
    """
    tasks = [task for task in read_tasks(root) if task.launcher == SLURM]
    said = verdicts(tasks)
    jobs = [str(task.job) for task in tasks if not over(task, said)]
    holder = living_holder(root)
    if jobs:
        refused = cancel_jobs(jobs)
        if refused is not None:
            raise ConfigError(f"cancel: SLURM refuses: {refused}")
        print(f"cancelled SLURM jobs {', '.join(jobs)}; the same command goes on from their checkpoints")
    elif holder is not None:
        raise ConfigError(f"cancel: no SLURM job, but {holder} trains in {root}; end it there: kill {holder.pid}")
    else:
        print(f"{root}: nothing to cancel")
