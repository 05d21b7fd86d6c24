"""Clusters: where groups are trained when it is not here. Each is a module that follows `ClusterKind`: one of this
folder, or one that another package names in its entry-point group `sae_sweep.clusters`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError
from sae_sweep.host.kinds import Kinds
from sae_sweep.launch.tasks import Task

CLUSTERS = Kinds("sae_sweep.launch.clusters", "sae_sweep.clusters")


@dataclass(frozen=True)
class Verdict:
    """What a cluster says of one job."""

    stage: Literal["waits", "runs", "over", "cancelled", "untold"]
    """What its words come to; `untold` of a job that may be there while the cluster cannot be asked."""
    state: str
    """In the cluster's words."""
    reason: str | None = None
    """Why it waits."""

    @property
    def over(self) -> bool:
        """Whether the job will do no more."""
        return self.stage in ("over", "cancelled")


class Cluster(Protocol):
    """A cluster with the options of one command."""

    waits: bool
    """Whether the command waits for its workers."""

    @property
    def gpus(self) -> float:
        """That a worker has."""
        ...

    def place(self, number: int) -> str:
        """Where the group of this number would be run, in words that go on from `group ...:`."""
        ...

    def check(self) -> None:
        """Raises ConfigError where there is nobody here to hand tasks to. Asked before anything is written, and by no
        dry run."""
        ...

    def submit(self, tasks: Sequence[Task]) -> None:
        """Hand the tasks to workers, and note in each which job has it. A worker runs `train_task` on the task's
        folder. Raises ConfigError where the cluster refuses."""
        ...

    def wait(self, tasks: Sequence[Task]) -> None:
        """Return once nobody works on these tasks any more, each settled (`standing.wait_for` does that by asking).

        Raises Interrupted where the command is told to stop."""
        ...


class ClusterKind(Protocol):
    """What the module of a cluster has. All but `opened` is asked of jobs that any command may have submitted."""

    def opened(self, options: Mapping[str, Any], name: str) -> Cluster:
        """The cluster with the keys of `hydra.launcher`, for the sweep of this name. Raises ConfigError for options
        that cannot be."""
        ...

    def words(self, job: str) -> str:
        """What people call a job, like `SLURM job 17`."""
        ...

    def ask(self, jobs: Sequence[str]) -> Mapping[str, Verdict]:
        """What has become of jobs, by their ids. One that is left out is judged by its worker's lock alone."""
        ...

    def cancel(self, jobs: Sequence[str]) -> None:
        """End jobs. Raises ConfigError where the cluster refuses."""
        ...


def cluster_kind(name: str) -> ClusterKind:
    """The kind of a name. Raises ConfigError where nothing that is installed has it."""
    if name not in CLUSTERS:
        raise ConfigError(f"{name}: no such cluster is installed here; there is {', '.join(sorted(CLUSTERS))}")
    return cast(ClusterKind, CLUSTERS[name])


def at_least(options: object, **least: float) -> None:
    """Raises ConfigError for a key of `hydra.launcher` that is lower than that."""
    for key, bound in least.items():
        given = getattr(options, key)
        if given is not None and given < bound:
            raise ConfigError(f"hydra.launcher.{key}={shown(given)} must be at least {bound}")
