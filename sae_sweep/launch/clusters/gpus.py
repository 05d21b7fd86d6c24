"""`hydra/launcher=gpus`: the groups of a sweep on the GPUs of this machine, as many at once as there are GPUs for.

Each group is trained by a process of its own, which sees its GPUs and no others (CUDA_VISIBLE_DEVICES). Groups do not
talk to each other; several GPUs that share one group are `launcher.devices`, with as many for each process here.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from sae_sweep.config.reading import typed
from sae_sweep.config.values import counted, shown
from sae_sweep.errors import ConfigError
from sae_sweep.folder.names import LOG
from sae_sweep.host.signals import Interrupted
from sae_sweep.launch.clusters import Verdict, at_least
from sae_sweep.launch.standing import settle, wait_for
from sae_sweep.launch.tables import say
from sae_sweep.launch.tasks import Task

POLL_SECONDS = 0.5
PARTING_SECONDS = 60.0
"""That workers get to leave a checkpoint when the command is told to stop."""
WORKER = (sys.executable, "-m", "sae_sweep.cli", "work")
"""What a worker runs; the folder of its task comes last."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
LIST = ("nvidia-smi", "--query-gpu=index", "--format=csv,noheader")
TOLD = (0, 1)
"""Exit codes after which all members have a state of their own."""


@dataclass(frozen=True)
class GpuOptions:
    """What `hydra.launcher` says of this machine's GPUs."""

    devices: list[int | str] | None
    """As CUDA_VISIBLE_DEVICES numbers or names them; null is all that this process may see."""
    gpus: int
    """Of one group."""


def opened(options: Mapping[str, Any], name: str) -> "Gpus":
    """This machine's GPUs with the keys of `hydra.launcher`. Raises ConfigError for what cannot be."""
    checked = typed(GpuOptions, options, "hydra.launcher.")
    at_least(checked, gpus=1)
    return Gpus(checked)


def words(job: str) -> str:
    """What people call a job."""
    return f"worker {job}"


def ask(jobs: Sequence[str]) -> dict[str, Verdict]:
    """Nothing: whether a worker lives is told by the lock that it holds."""
    return {}


def cancel(jobs: Sequence[str]) -> None:
    """Raises ConfigError: workers end with the command that started them."""
    raise ConfigError("cancel: workers on this machine's GPUs end with the command that waits for them; interrupt it")


class Gpus:
    """The GPUs of this machine, for the groups of one command."""

    waits = True

    def __init__(self, options: GpuOptions) -> None:
        self._options, self.gpus = options, options.gpus
        self._devices: list[str] = []
        """All that groups are given."""
        self._places: list[tuple[str, ...]] = []
        """GPUs that nobody has, as many in each as one group gets."""
        self._given: list[Task] = []
        """What this command has handed over and not started."""
        self._running: dict[subprocess.Popen[bytes], tuple[Task, tuple[str, ...]]] = {}

    def place(self, number: int) -> str:
        """Where a group would run."""
        return f"would be run by a process of its own on {counted(self.gpus, 'GPU')} of this machine"

    def check(self) -> None:
        """Raises ConfigError where there are fewer GPUs than one group gets."""
        given = self._options.devices
        self._devices = devices = _visible() if given is None else [str(device) for device in given]
        self._places = [
            tuple(devices[first : first + self.gpus]) for first in range(0, len(devices) - self.gpus + 1, self.gpus)
        ]
        if not self._places:
            raise ConfigError(
                f"hydra.launcher.gpus={shown(self.gpus)}: there {'is' if len(devices) == 1 else 'are'}"
                f" {counted(len(devices), 'GPU')} for all groups; ask for fewer, or name others in"
                " hydra.launcher.devices"
            )

    def submit(self, tasks: Sequence[Task]) -> None:
        """Note who will run each."""
        for number, task in enumerate(tasks):
            task.write_job("gpus", f"{os.getpid()}-{number}", str(task.folder / LOG))
        self._given = list(tasks)
        say(
            f"{counted(len(tasks), 'group')}, {min(len(tasks), len(self._places))} at once, on GPUs"
            f" {', '.join(self._devices)}"
        )

    def wait(self, tasks: Sequence[Task]) -> None:
        """Run every task that was submitted, each on the GPUs that are free first, and wait for those that workers of
        another command have. Told to stop, tells the workers, who leave a checkpoint."""
        left, total = self._given, len(self._given)
        others = [task for task in tasks if task not in left]
        try:
            while left or self._running:
                while left and self._places:
                    self._start(left.pop(0), self._places.pop(0))
                if self._collect():
                    say(f"{total - len(left) - len(self._running)} of {counted(total, 'group')} are over")
                elif self._running:
                    sleep(POLL_SECONDS)
            wait_for(others, say)
        except Interrupted as interrupted:
            self._tell()
            say(f"{interrupted.name}: the workers were told to stop; the same command goes on from there")
            raise
        finally:
            for worker in self._running:
                worker.kill()
                worker.wait()

    def _start(self, task: Task, devices: tuple[str, ...]) -> None:
        environment = {**os.environ, VISIBLE: ",".join(devices)}
        if VISIBLE not in os.environ:  # nvidia-smi counts by bus
            environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        with (task.folder / LOG).open("ab") as log:
            streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
            worker = subprocess.Popen([*WORKER, str(task.folder)], env=environment, **streams)
        self._running[worker] = (task, devices)

    def _collect(self) -> bool:
        """Settle the tasks whose workers have ended, and take their GPUs back; whether there were any."""
        ended = [worker for worker in self._running if worker.poll() is not None]
        for worker in ended:
            task, devices = self._running.pop(worker)
            code = worker.returncode
            settle(task, None if code in TOLD else Verdict("over", f"exit code {code}"))
            self._places.append(devices)
        return bool(ended)

    def _tell(self) -> None:
        """Let the workers leave a checkpoint."""
        for worker in self._running:
            worker.terminate()
        until = monotonic() + PARTING_SECONDS
        while monotonic() < until and any(worker.poll() is None for worker in self._running):
            sleep(POLL_SECONDS)


def _visible() -> list[str]:
    """The GPUs that this process may see. Raises ConfigError where there is none."""
    said = os.environ.get(VISIBLE)
    if said is None:
        try:
            said = subprocess.run(LIST, capture_output=True, text=True, check=True).stdout.replace("\n", ",")
        except (OSError, subprocess.CalledProcessError):
            said = ""
    found = [device.strip() for device in said.split(",") if device.strip()]
    if not found:
        raise ConfigError(
            "hydra/launcher=gpus: this machine shows no GPU; name them in hydra.launcher.devices, or take"
            " hydra/launcher=local"
        )
    return found
