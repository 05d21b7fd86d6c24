"""Groups given to workers elsewhere: what a worker is handed, and who has it.

    <sweep>/.state/tasks/<group>-<members>/
      task.json        the members' resolved configs and the folder that relative paths start from, as submitted
      job.json         who runs it: the cluster, its id of the job, and the worker's log
      states.json      its members' states, and lock and progress.json: written by the worker

A worker is handed the name of such a folder and nothing else, so what changes after the submission (a file of
configs/, the command line's default) does not reach it. No torch here.
"""

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
from sae_sweep.folder.sweep import state_place
from sae_sweep.host.json_files import read_object
from sae_sweep.plan.groups import Group
from sae_sweep.plan.members import member_identity


@dataclass(frozen=True)
class Task:
    """One group in a worker's hands."""

    root: Path
    """Of the sweep."""
    name: str

    @staticmethod
    def at(place: Path) -> "Task":
        """The task of a folder. Raises ConfigError for one that is none."""
        if place.parts[-3:-1] != (STATE, TASKS):
            raise ConfigError(f"work: {place} is no task of a sweep; clusters' workers are given theirs")
        return Task(place.parents[2], place.name)

    @property
    def folder(self) -> Path:
        """Where the state of its group is, inside the sweep folder."""
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
        """The identities of its members, in their order."""
        return [member_identity(config) for config in self.configs]

    @property
    def job(self) -> str | None:
        """The cluster's id of its job; None before it is submitted."""
        return self._job().get("job")

    @property
    def cluster(self) -> str | None:
        """The kind of cluster that its job is of."""
        return self._job().get("launcher")

    @property
    def log(self) -> str | None:
        """The file that has what the worker says."""
        return self._job().get("log")

    @property
    def holder(self) -> Holder | None:
        """Who works on it."""
        return living_holder(self.root, self.name)

    def write_job(self, cluster: str, job: str | None, log: str | None) -> None:
        """Note who runs it."""
        write_json_atomic(self.folder / JOB, {"launcher": cluster, "job": job, "log": log})

    def _job(self) -> dict[str, Any]:
        try:
            entries = read_object(self.folder / JOB)
        except (OSError, ValueError):
            return {}
        return {key: value for key, value in entries.items() if isinstance(value, str)}

    def _entries(self) -> dict[str, Any]:
        file = self.folder / TASK
        try:
            entries = read_object(file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file}: cannot be read ({error}); submit the sweep again") from error
        configs, directory = entries.get("configs"), entries.get("directory")
        if (
            not isinstance(directory, str)
            or not isinstance(configs, list)
            or not all(isinstance(c, dict) for c in configs)
        ):
            raise ConfigError(f"{file}: holds no configs and directory; submit the sweep again")
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
