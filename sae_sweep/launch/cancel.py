"""`sae-sweep cancel DIR`: end what clusters have of a sweep."""

from pathlib import Path

from sae_sweep.errors import ConfigError
from sae_sweep.folder.lock import living_holder
from sae_sweep.host.terminal import tell
from sae_sweep.launch.clusters import cluster_kind
from sae_sweep.launch.standing import over, verdicts, words
from sae_sweep.launch.tasks import read_tasks


def cancel_sweep(root: Path) -> None:
    """Cancel the jobs of a sweep that are not over, and say which.

    Raises ConfigError where a cluster refuses, and where there are none but a process trains here, which must be told.
    """
    tasks = read_tasks(root)
    said = verdicts(tasks)
    left = [task for task in tasks if task.cluster and task.job and not over(task, said.get(task.name))]
    holder = living_holder(root)
    for name in dict.fromkeys(str(task.cluster) for task in left):
        cluster_kind(name).cancel([str(task.job) for task in left if task.cluster == name])
    if left:
        tell(f"cancelled {', '.join(map(words, left))}; the same command goes on from the checkpoints")
    elif holder is not None:
        raise ConfigError(
            f"cancel: no job of a cluster, but {holder} trains in {root}; end it there: kill {holder.pid}"
        )
    else:
        tell(f"{root}: nothing to cancel")
