"""Runs a sweep on a cluster: plan, hand each group to a worker, wait if asked, and read what the workers left."""

import shutil
from collections.abc import Sequence
from typing import Protocol

from sae_sweep.config.schema import LauncherConfig, MemberConfig
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError
from sae_sweep.folder.checkpoints import StateFolder
from sae_sweep.folder.lock import held
from sae_sweep.folder.sweep import SweepFolder, sweep_root
from sae_sweep.host.rank_processes import role
from sae_sweep.host.signals import Stop, stopping
from sae_sweep.launch.dry_run import print_plan
from sae_sweep.launch.local import Outcome, in_order, outcome, print_failures, write_reports
from sae_sweep.launch.tasks import Task, clear_over, write_task
from sae_sweep.plan.members import Plan, plan_sweep


class Cluster(Protocol):
    """Where workers run. One array, or one call of a cluster, holds the tasks of one command."""

    waits: bool
    """Whether the command waits for its workers."""

    @property
    def gpus(self) -> float:
        """That a worker has."""
        ...

    def place(self, number: int) -> str:
        """Where the group of this number would be run, in words that go on from `group ...:`."""
        ...

    def submit(self, tasks: Sequence[Task]) -> None:
        """Hand the tasks to workers, and note in each who runs it. Raises ConfigError where the cluster refuses."""
        ...

    def wait(self, root_tasks: Sequence[Task], stop: Stop) -> None:
        """Return once nobody works on these tasks any more, each settled."""
        ...


def run_remote(configs: Sequence[MemberConfig], cluster: Cluster) -> list[Outcome]:
    """As `run_sweep`, with one worker of the cluster for each group.

    Members that an earlier command has given to a worker that still has them are not given again, but waited for.
    Without waiting, members that are not finished come back as planned. Raises ConfigError where the
    cluster would not give a worker the devices that it is to use.
    """
    plan = plan_sweep(configs)
    _check_ranks(configs[0].launcher, cluster)
    folder = SweepFolder(sweep_root(configs[0]).absolute())
    plan = folder.named(plan)
    if configs[0].dry_run:
        return _dry(configs, plan, folder, cluster)
    folder.check_place()
    with held(folder.root), stopping() as stop:
        plan = folder.named(plan)  # another process may have written there since
        others = clear_over(folder.root)
        finished = folder.finished(plan)
        rest = plan.without(finished | others.keys())
        folder.begin(plan, StateFolder(folder.root).homes().keys(), others.keys())
        tasks = _hand_over(rest, folder, cluster)
        earlier = [others[m.identity] for m in plan.members if m.identity in others and m.identity not in finished]
        tasks = list(dict.fromkeys([*tasks, *earlier]))
        if cluster.waits:
            cluster.wait(tasks, stop)
            write_reports(folder, configs[0], trained=False)
    outcomes = _outcomes(plan, folder)
    print_failures(outcomes)
    return in_order(configs, outcomes)


def _check_ranks(launcher: LauncherConfig, cluster: Cluster) -> None:
    """A worker is one process, which starts further ranks on its host by itself."""
    if role().size > 1:
        raise ConfigError("torchrun cannot hand over groups: the workers start their ranks, as launcher.devices says")
    if launcher.hosts > 1:
        raise ConfigError(f"launcher.hosts={launcher.hosts}: a cluster's worker is on one host; leave it 1")
    if cluster.gpus not in (0, launcher.devices) and launcher.devices > 1:
        raise ConfigError(
            f"hydra.launcher.gpus={shown(cluster.gpus)}, and launcher.devices={launcher.devices} share a group; ask for"
            " as many, or for none"
        )


def _dry(configs: Sequence[MemberConfig], plan: Plan, folder: SweepFolder, cluster: Cluster) -> list[Outcome]:
    finished = folder.finished(plan)
    print_plan(plan, folder.root, finished)
    print()
    for number, group in enumerate(plan.without(finished).groups):
        print(f"group {group.key}: {cluster.place(number)}")
    return in_order(configs, [outcome(member, folder, "planned", None) for member in plan.members])


def _hand_over(plan: Plan, folder: SweepFolder, cluster: Cluster) -> list[Task]:
    tasks = [write_task(folder.root, group) for group in plan.groups]
    try:
        if tasks:
            cluster.submit(tasks)
    except BaseException:
        for task in tasks:
            if task.job is None:
                shutil.rmtree(task.folder, ignore_errors=True)
        raise
    return tasks


def _outcomes(plan: Plan, folder: SweepFolder) -> list[Outcome]:
    here = folder.read()["members"]
    done = folder.finished(plan)
    outcomes = []
    for member in plan.members:
        state, reason = here[member.label]["state"], here[member.label]["reason"]
        if member.identity in done:
            outcomes.append(outcome(member, folder, "finished", None))
        elif state in ("failed", "interrupted"):
            outcomes.append(outcome(member, folder, "failed", reason))
        else:
            outcomes.append(outcome(member, folder, "planned", None))
    return outcomes
