"""Which of several processes this one is, in torchrun's words, and those that a command starts itself. No torch.

`torchrun -m sae_sweep.cli ...` starts all ranks, on one host or many. With `launcher.devices=2` alone the command is
rank 0 and starts the others on this host, with the same variables: what a rank does is the same either way.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from time import monotonic, sleep

from sae_sweep.errors import ConfigError, ProcessLost

PATIENCE = 5.0
"""Seconds that a rank has to end by itself."""
STARTED_BY = "SAE_SWEEP_STARTED_BY"
"""In a started rank's environment: its starter's pid."""
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class Role:
    """Which rank a process is."""

    rank: int = 0
    size: int = 1
    local_size: int = 1
    """Ranks on this host."""

    @property
    def hosts(self) -> int:
        """How many machines the ranks are on."""
        return max(1, self.size // self.local_size)


def role() -> Role:
    """As the environment says: rank 0 of one where it says nothing. Raises ConfigError for what torchrun never says."""
    size = _stated("WORLD_SIZE", 1)
    own = Role(_stated("RANK", 0), size, _stated("LOCAL_WORLD_SIZE", size))
    if not 0 <= own.rank < size or not 1 <= own.local_size <= size or (size > 1 and "RANK" not in os.environ):
        said = ", ".join(f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ)
        raise ConfigError(f"{said} in the environment name no rank of several; start with torchrun, or unset them")
    return own


def _stated(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not (value.isascii() and value.isdecimal() and len(value) < 7):
        raise ConfigError(f"{name}={value} in the environment is no number of ranks; unset it, or start with torchrun")
    return int(value)


_started: list["Started"] = []


def started() -> bool:
    """Whether this process has started other ranks."""
    return bool(_started)


class Started:
    """The other ranks of this command, children of this process."""

    def __init__(self, size: int) -> None:
        """Start ranks 1 to size - 1 on this host."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        shared = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self.port}
        self._children: list[subprocess.Popen[bytes]] = []
        for rank in range(1, size):
            own = {**shared, "RANK": rank, "LOCAL_RANK": rank, STARTED_BY: os.getpid()}
            environment = {**os.environ, **{name: str(value) for name, value in own.items()}}
            command = [sys.executable, "-m", "sae_sweep.cli"]
            self._children.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))
        _started.append(self)
        atexit.register(self.end)

    def lost(self) -> str | None:
        """Which rank has ended, and how; None where all are there."""
        for rank, child in enumerate(self._children, 1):
            code = child.poll()
            if code is not None:
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                return f"rank {rank} {how}"
        return None

    def end(self) -> None:
        """Return when they are gone; who does not go is ended."""
        until = monotonic() + PATIENCE
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, until - monotonic()))
            child.kill()
            child.wait()

    def watch(self) -> None:
        """End this process where one of them dies and nobody notices: a GPU may wait for ever for it."""
        Thread(target=self._watch, daemon=True, name="ranks").start()

    def _watch(self) -> None:
        while (lost := self.lost()) is None:
            sleep(0.5)
        if lost.endswith("exit code 0"):
            return
        sleep(12 * PATIENCE)
        print(f"sae-sweep: error: {lost}; the same command goes on from the last checkpoint", file=sys.stderr)
        os._exit(ProcessLost.exit_code)


def end_with_starter() -> None:
    """Let a started rank end when its starter is gone: the pipe between them closes."""
    if STARTED_BY in os.environ:
        Thread(target=_wait_for_end, daemon=True, name="starter").start()


def _wait_for_end() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written
    sleep(PATIENCE)  # rank 0 may be on its way out in order
    os._exit(1)
