"""Groups given to workers elsewhere: what a worker is handed, and what becomes of it.

    <sweep>/.state/tasks/<group>-<members>/
      task.json        the members' resolved configs and the folder that relative paths start from, as submitted
      job.json         who runs it: the launcher, and the cluster's id of the job
      states.json      its members' states, and lock and progress.json: written by the worker

A worker is handed the name of such a folder and nothing else, so what changes after the submission (a file of
configs/, the command line's default) does not reach it. No torch here.
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from sae_sweep.config.reading import config_entries, member_config
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.folder.lock import Holder, living_holder
from sae_sweep.folder.names import JOB, STATE, TASK, TASKS
from sae_sweep.folder.sweep import SweepFolder, state_place
from sae_sweep.launch.clusters.slurm_queue import Verdict, ask_queue
from sae_sweep.plan.members import Group, member_identity

SLURM = "slurm"
ENDED = ("finished", "failed")


@dataclass(frozen=True)
class Task:
    """One group in a worker's hands."""

    root: Path
    """Of the sweep."""
    name: str

    @property
    def folder(self) -> Path:
        return state_place(self.root, self.name)

    @property
    def configs(self) -> list[MemberConfig]:
        """Of its members. Raises ConfigError where task.json cannot be read."""
        return [member_config(entries) for entries in self._entries()["configs"]]

    @property
    def directory(self) -> str:
        """Where its members' relative paths start."""
        return str(self._entries()["directory"])

    @property
    def identities(self) -> list[str]:
        return [member_identity(config) for config in self.configs]

    @property
    def job(self) -> str | None:
        """The cluster's id of its job; None before it is submitted, and where there are none."""
        return self._job().get("job")

    @property
    def launcher(self) -> str | None:
        return self._job().get("launcher")

    @property
    def log(self) -> str | None:
        """The file that has what the worker says."""
        return self._job().get("log")

    @property
    def holder(self) -> Holder | None:
        """Who works on it."""
        return living_holder(self.root, self.name)

    def write_job(self, launcher: str, job: str | None, log: str | None) -> None:
        """Note who runs it."""
        write_json_atomic(self.folder / JOB, {"launcher": launcher, "job": job, "log": log})

    def _job(self) -> dict[str, Any]:
        try:
            entries: dict[str, Any] = json.loads((self.folder / JOB).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries

    def _entries(self) -> dict[str, Any]:
        file = self.folder / TASK
        try:
            entries: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: cannot be read ({error}); submit the sweep again") from error
        return entries


def write_task(root: Path, group: Group) -> Task:
    """Hand over a group: write what its worker needs."""
    identities = " ".join(member.identity for member in group.members)
    task = Task(root, f"{group.key}-{sha256(identities.encode()).hexdigest()[:12]}")
    task.folder.mkdir(parents=True, exist_ok=True)
    entries = {"directory": str(Path.cwd()), "configs": [config_entries(member.config) for member in group.members]}
    write_json_atomic(task.folder / TASK, entries)
    return task


def read_tasks(root: Path) -> list[Task]:
    """All that are there."""
    return [Task(root, file.parent.name) for file in sorted((root / STATE / TASKS).glob(f"*/{TASK}"))]


def verdicts(tasks: Iterable[Task]) -> dict[str, Verdict]:
    """What the cluster says of each task, by name; nothing of those that it has no job of, or cannot be asked about."""
    jobs = {task.name: task.job for task in tasks if task.launcher == SLURM}
    said = ask_queue([job for job in jobs.values() if job is not None])
    return {name: said[job] for name, job in jobs.items() if job in said}


def over(task: Task, said: Mapping[str, Verdict]) -> bool:
    """Whether nobody works on a task any more, or will."""
    verdict = said.get(task.name)
    if verdict is not None:
        return verdict.over
    if task.holder is not None:
        return False
    if task.launcher == SLURM:  # SLURM cannot be asked, so the job may be waiting for its turn
        return all(entry["state"] in ENDED for entry in states(task).values())
    return True


def states(task: Task) -> dict[str, Any]:
    """The entries of sweep.json of a task's members, by label."""
    identities = set(task.identities)
    here = SweepFolder(task.root).read()["members"]
    return {label: entry for label, entry in here.items() if entry["identity"] in identities}


def settle(task: Task, said: Mapping[str, Verdict], ending: str | None = None) -> None:
    """Of a task that is over: those of its members that neither finished nor failed get the state they have come to.

    `ending` is why, where that is known already.
    """
    left = [label for label, entry in states(task).items() if entry["state"] not in ENDED]
    verdict = said.get(task.name)
    cancelled = verdict is not None and verdict.cancelled
    gone = f"SLURM job {task.job} ended as {verdict.state}" if verdict is not None else "its worker is gone"
    why = ending or gone
    log = f"; its log is {task.log}" if task.log else ""
    if left:
        SweepFolder(task.root, task.name).mark(left, "interrupted" if cancelled else "failed", why + log)


def clear_over(root: Path) -> dict[str, Task]:
    """Remove the tasks that are over, and keep what they have said; the others by the identities of their members.

    For who has the sweep's lock.
    """
    tasks = read_tasks(root)
    said = verdicts(tasks)
    others: dict[str, Task] = {}
    for task in tasks:
        if not over(task, said):
            others |= dict.fromkeys(task.identities, task)
            continue
        settle(task, said)
        shutil.rmtree(task.folder, ignore_errors=True)
    return others


def refuse_elsewhere(labels: Sequence[str], task: Task) -> ConfigError:
    """The error for members that somebody else has in hand."""
    by = f"SLURM job {task.job}" if task.launcher == SLURM else f"a worker ({task.holder})"
    return ConfigError(
        f"{task.root}: {', '.join(labels[:3])}{' ...' * (len(labels) > 3)} {'is' if len(labels) == 1 else 'are'} in"
        f" the hands of {by}; see `sae-sweep status {task.root}`, or `sae-sweep cancel {task.root}`"
    )
