"""Trains a sweep on a cluster: hands each group to a worker, waits if asked, and reads what the workers left."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from sae_sweep.config.schema import LauncherConfig, MemberConfig
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError
from sae_sweep.folder.checkpoints import StateFolder
from sae_sweep.folder.sweep import SweepFolder
from sae_sweep.host.rank_processes import role
from sae_sweep.host.signals import Stop
from sae_sweep.launch.clusters import Cluster
from sae_sweep.launch.sweep import Outcome, launch, write_reports
from sae_sweep.launch.tasks import Task, write_task
from sae_sweep.plan.groups import Plan


def run_remote(configs: Sequence[MemberConfig], cluster: Cluster) -> list[Outcome]:
    """As `run_sweep`, with one worker of the cluster for each group.

    Members that an earlier command has given to a worker that still has them are not given again, but waited for.
    Without waiting, members that are not finished come back as planned.
    """
    return launch(configs, Workers(cluster))


class Workers:
    """One worker of a cluster for each group."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def check(self, launcher: LauncherConfig) -> None:
        """A worker is one process, which starts further ranks on its host by itself. Raises ConfigError where the
        cluster would not give it the devices that it is to use."""
        gpus = self._cluster.gpus
        if role().size > 1:
            raise ConfigError(
                "torchrun cannot hand over groups: the workers start their ranks, as launcher.devices says"
            )
        if launcher.hosts > 1:
            raise ConfigError(f"launcher.hosts={launcher.hosts}: a cluster's worker is on one host; leave it 1")
        if gpus not in (0, launcher.devices) and launcher.devices > 1:
            raise ConfigError(
                f"hydra.launcher.gpus={shown(gpus)}, and launcher.devices={launcher.devices} share a group; ask for"
                " as many, or for none"
            )

    def words(self, number: int) -> str:
        """As the cluster says."""
        return self._cluster.place(number)

    def train(self, plan: Plan, folder: SweepFolder, others: dict[str, Task], stop: Stop) -> None:
        """Hand over what is missing and nobody has. Raises ConfigError where the cluster refuses."""
        del stop  # its handler raises wherever this waits
        finished = folder.finished(plan)
        rest = plan.without(finished | others.keys())
        if rest.groups:
            self._cluster.check()
        folder.begin(plan, StateFolder(folder.root).homes().keys(), others.keys())
        given = self._handed_over(rest, folder.root.absolute())
        earlier = [others[m.identity] for m in plan.members if m.identity in others.keys() - finished]
        if self._cluster.waits:
            self._cluster.wait(list(dict.fromkeys([*given, *earlier])))
            write_reports(folder)

    def _handed_over(self, plan: Plan, root: Path) -> list[Task]:
        tasks = [write_task(root, group) for group in plan.groups]
        try:
            if tasks:
                self._cluster.submit(tasks)
        except BaseException:
            for task in tasks:
                if task.job is None:
                    shutil.rmtree(task.folder, ignore_errors=True)
            raise
        return tasks
