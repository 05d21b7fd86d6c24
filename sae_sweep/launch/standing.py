"""How a sweep's tasks stand: by what their clusters say of the jobs, and by who holds the tasks' locks. No torch."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import sleep
from typing import Any

from sae_sweep.errors import ConfigError
from sae_sweep.folder.sweep import State, SweepFolder
from sae_sweep.launch.clusters import Verdict, cluster_kind
from sae_sweep.launch.tasks import Task, read_tasks

ENDED = ("finished", "failed")
POLL_SECONDS = (1.0, 15.0)
"""Between two looks at the jobs: at first, and after a while."""


def words(task: Task) -> str:
    """What people call the job of a task, or the task where it has none."""
    return (
        f"task {task.name}" if task.cluster is None or task.job is None else cluster_kind(task.cluster).words(task.job)
    )


def verdicts(tasks: Iterable[Task]) -> dict[str, Verdict]:
    """What the clusters say of tasks, by name; nothing of those that have no job, or that a cluster leaves out."""
    jobs: dict[str, dict[str, str]] = {}
    for task in tasks:
        if task.cluster is not None and task.job is not None:
            jobs.setdefault(task.cluster, {})[task.job] = task.name
    return {
        names[job]: verdict
        for cluster, names in jobs.items()
        for job, verdict in cluster_kind(cluster).ask(list(names)).items()
    }


def over(task: Task, verdict: Verdict | None) -> bool:
    """Whether nobody works on a task any more, or will."""
    if verdict is not None and verdict.stage != "untold":
        return verdict.over
    if task.holder is not None:
        return False
    if verdict is not None:  # the job may be waiting for its turn
        return all(entry["state"] in ENDED for entry in states(task).values())
    return True


def ending(task: Task, verdict: Verdict | None) -> tuple[State, str]:
    """Of a task that is over: the state that its unfinished members have come to, and why."""
    cancelled = verdict is not None and verdict.stage == "cancelled"
    told = verdict is not None and verdict.over
    why = f"{words(task)} ended as {verdict.state}" if told and verdict else "its worker is gone"
    return "interrupted" if cancelled else "failed", why + (f"; its log is {task.log}" if task.log else "")


def states(task: Task) -> dict[str, Any]:
    """The entries of sweep.json of a task's members, by label."""
    identities = set(task.identities)
    here = SweepFolder(task.root).read()["members"]
    return {label: entry for label, entry in here.items() if entry["identity"] in identities}


def settle(task: Task, verdict: Verdict | None) -> None:
    """Give the members of a task that is over, but for those that finished or failed, the state they have come to."""
    left = [label for label, entry in states(task).items() if entry["state"] not in ENDED]
    if left:
        SweepFolder(task.root, task.name).mark(left, *ending(task, verdict))


def clear_over(root: Path) -> dict[str, Task]:
    """Remove the tasks that are over, and keep what they have said; the others by the identities of their members.

    For who has the sweep's lock.
    """
    tasks = read_tasks(root)
    said = verdicts(tasks)
    others: dict[str, Task] = {}
    for task in tasks:
        if not over(task, said.get(task.name)):
            others |= dict.fromkeys(task.identities, task)
            continue
        settle(task, said.get(task.name))
        shutil.rmtree(task.folder, ignore_errors=True)
    return others


def wait_for(tasks: Sequence[Task], say: Callable[[str], None]) -> None:
    """Ask until every task is over, and settle each; `say` is told how many there are of each kind, when that changes.

    Raises Interrupted where the command is told to stop.
    """
    left, pause, line = list(tasks), POLL_SECONDS[0], ""
    while left:
        found = verdicts(left)
        for task in [task for task in left if over(task, found.get(task.name))]:
            settle(task, found.get(task.name))
            left.remove(task)
        before, line = line, _counts(left, found, len(tasks))
        if line != before:
            say(line)
        if left:
            sleep(pause)
            pause = min(pause * 1.5, POLL_SECONDS[1])


def _counts(left: Sequence[Task], found: Mapping[str, Verdict], total: int) -> str:
    stages = [found[task.name].stage for task in left if task.name in found]
    running, waiting = stages.count("runs"), stages.count("waits")
    unknown = f", {len(left) - running - waiting} that nothing is told of" * (len(left) > running + waiting)
    return f"{running} running, {waiting} waiting, {total - len(left)} of {total} over{unknown}"


def elsewhere(labels: Sequence[str], task: Task) -> ConfigError:
    """The error for members that somebody else has in hand."""
    by = words(task) if task.job else f"a worker ({task.holder})"
    return ConfigError(
        f"{task.root}: {', '.join(labels[:3])}{' ...' * (len(labels) > 3)} {'is' if len(labels) == 1 else 'are'} in"
        f" the hands of {by}; see `sae-sweep status {task.root}`, or `sae-sweep cancel {task.root}`"
    )
