"""`hydra/launcher=ray`: one Ray task for each group, on a cluster that exists or on one that is started here.

A task is handed a folder, not code, so that every node needs this package and the sweep's folder at the same path. A
task whose worker dies is run again by Ray, and goes on from the newest checkpoint in that folder.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Any

from sae_sweep.config.reading import typed
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError, ProcessLost, first_line
from sae_sweep.folder.lock import JOB_VARIABLES
from sae_sweep.folder.names import LOG
from sae_sweep.host.signals import Interrupted
from sae_sweep.launch.clusters import Verdict, at_least
from sae_sweep.launch.exits import exit_code
from sae_sweep.launch.standing import settle
from sae_sweep.launch.tables import say
from sae_sweep.launch.tasks import Task
from sae_sweep.launch.worker import train_task

POLL_SECONDS = 1.0
PARTING_SECONDS = 60.0
"""That workers get to leave a checkpoint when the command is told to stop."""


@dataclass(frozen=True)
class RayOptions:
    """What `hydra.launcher` asks Ray for."""

    address: str | None
    """Of a cluster that exists (`auto`, `host:port`, `ray://host:port`); null starts one on this machine."""
    cpus: float
    """Of one group, like gpus and memory_gb. Either may be a fraction: then groups share a device."""
    gpus: float
    memory_gb: float | None
    """Host memory that Ray sets aside, in 10^9 bytes; null sets none aside."""
    resources: dict[str, Any] | None
    """Ray's custom resources of one group: {a100: 1}."""
    retries: int
    """How often a group is run again when its worker has died."""

    def words(self) -> str:
        """The resources, as people read them."""
        amounts = {"CPU": self.cpus, "GPU": self.gpus, "GB of memory": self.memory_gb or 0, **(self.resources or {})}
        return ", ".join(f"{shown(float(amount))} {name}" for name, amount in amounts.items() if amount)


def opened(options: Mapping[str, Any], name: str) -> "RayCluster":
    """Ray with the keys of `hydra.launcher`. Raises ConfigError for one that cannot be."""
    checked = typed(RayOptions, options, "hydra.launcher.")
    at_least(checked, cpus=0, gpus=0, memory_gb=0, retries=0)
    return RayCluster(checked)


def words(job: str) -> str:
    """What people call a job."""
    return f"Ray task {job}"


def ask(jobs: Sequence[str]) -> dict[str, Verdict]:
    """Nothing: Ray's tasks are the command's that submitted them, which tells how they end."""
    return {}


def cancel(jobs: Sequence[str]) -> None:
    """Raises ConfigError: Ray's tasks end with the command that submitted them."""
    raise ConfigError("cancel: Ray's tasks end with the command that waits for them; `sae-sweep status` says where")


class RayCluster:
    """Ray, for the groups of one command."""

    waits = True

    def __init__(self, options: RayOptions) -> None:
        self._options, self.gpus = options, options.gpus
        self._running: dict[Any, Task] = {}
        """By Ray's reference to its result."""

    def place(self, number: int) -> str:
        """Where a group would run."""
        where = self._options.address or "of this machine"
        return f"would be run by the Ray cluster {where} as task {number} with {self._options.words()}"

    def check(self) -> None:
        """Raises ConfigError where Ray is not installed."""
        if find_spec("ray") is None:
            raise ConfigError("hydra/launcher=ray: Ray is not installed; pip install 'sae-sweep[ray]'")

    def submit(self, tasks: Sequence[Task]) -> None:
        """One Ray task for each."""
        import ray

        options = self._options
        try:
            ray.init(
                address=options.address,
                include_dashboard=False if options.address is None else None,
                log_to_driver=False,  # each worker has a log of its own
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"hydra.launcher.address={shown(options.address)}: {first_line(error)}") from error
        if options.address is None:
            _check_fits(options, ray.cluster_resources())
        needs: dict[str, Any] = {
            "num_cpus": options.cpus,
            "num_gpus": options.gpus,
            "memory": None if options.memory_gb is None else int(options.memory_gb * 1e9),
            "resources": options.resources or None,
        }
        # max_calls: what a task held on the device goes with its process
        given = ray.remote(**needs, max_retries=options.retries, max_calls=1)(_work)
        for task in tasks:
            job = f"{task.name}-{token_hex(4)}"
            task.write_job("ray", job, str(task.folder / LOG))
            self._running[given.remote(str(task.folder), job)] = task
        say(f"{len(tasks)} tasks given to Ray, each with {options.words()}")

    def wait(self, tasks: Sequence[Task]) -> None:
        """Until every task is over. Told to stop, tells the workers, who leave a checkpoint."""
        if not tasks:
            return
        import ray

        try:
            while self._running:
                for done in ray.wait(list(self._running), timeout=POLL_SECONDS)[0]:
                    task = self._running.pop(done)
                    settle(task, _ending(ray, done))
                    say(f"{len(tasks) - len(self._running)} of {len(tasks)} tasks are over")
        except Interrupted as interrupted:
            for reference in self._running:
                ray.cancel(reference, force=False)
            ray.wait(list(self._running), num_returns=len(self._running), timeout=PARTING_SECONDS)
            say(f"{interrupted.name}: {len(self._running)} tasks were cancelled; the same command goes on from there")
            raise
        finally:
            ray.shutdown()


def _work(place: str, job: str) -> None:
    """In Ray's worker: what `sae-sweep work` does."""
    log = os.open(Path(place) / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ[JOB_VARIABLES[0]] = job  # run again, it may take over the lock it left
    code = exit_code(lambda: train_task(Path(place)))
    if code == ProcessLost.exit_code:
        os._exit(code)  # which Ray retries, as where this process is killed


def _ending(ray: Any, reference: Any) -> Verdict | None:
    """How a task ended that has no result."""
    try:
        ray.get(reference)
    except Exception as error:  # a task's own error comes back as the type that it was, whatever that is
        return Verdict("over", first_line(error))
    return None


def _check_fits(options: RayOptions, there: Mapping[str, float]) -> None:
    """Ray would wait for ever for what a machine does not have."""
    wanted = {"CPU": ("cpus", options.cpus), "GPU": ("gpus", options.gpus)}
    for name, (key, amount) in wanted.items():
        if amount > there.get(name, 0):
            raise ConfigError(
                f"hydra.launcher.{key}={shown(amount)}: this machine has {there.get(name, 0):g}; ask for no more, or"
                " give the address= of a cluster"
            )
