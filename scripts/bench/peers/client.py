"""Our end of the line protocol (`protocol.py`), and the environments the peers live in."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.measure import ROOT

PEERS = ROOT / "scripts" / "bench" / "peers"
TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Environment:
    """Where a peer is installed."""

    name: str
    folder: Path
    worker: Path
    requirement: str
    unwanted: str | None = None
    """What comes with it and must go again."""

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self) -> str | None:
        """Make it anew, torch first and pinned; why it could not be, or None."""
        pip = [str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        make = [sys.executable, "-m", "venv", "--clear", str(self.folder)]
        commands = [make, [*pip, TORCH], [*pip, TORCH, self.requirement]]
        if self.unwanted:
            commands.append([str(self.python), "-m", "pip", "uninstall", "--quiet", "--yes", self.unwanted])
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                said = (done.stderr or done.stdout).strip().splitlines()
                return said[-1] if said else f"{' '.join(command)} failed"
        (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")
        return None


SAELENS = Environment("sae-lens", ROOT / ".venv-interop", PEERS / "saelens_worker.py", "sae-lens==6.54.12")
SPARSIFY = Environment("sparsify", ROOT / ".venv-sparsify", PEERS / "sparsify_worker.py", "eai-sparsify==1.3.3")
# torchvision is built for another torch than the pinned one; transformers imports it where it is, and fails.
DICTIONARY = Environment(
    name="dictionary_learning",
    folder=ROOT / ".venv-dictionary",
    worker=PEERS / "dictionary_worker.py",
    requirement="dictionary-learning==0.1.0",
    unwanted="torchvision",
)


def install_missing(peers: Iterable[Environment]) -> dict[str, str]:
    """Make the environments that are not there; by name, why some could not be."""
    tried = {peer.name: peer.install() for peer in peers if not peer.python.exists()}
    return {name: f"it cannot be installed: {why}" for name, why in tried.items() if why}


def environment_variables() -> dict[str, str]:
    """For a script of ours in an environment without us: it finds `scripts`, and asks no hub for anything."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}


class Unavailable(Exception):  # noqa: N818 - told in the table, not a defect
    """A peer that cannot be measured, and why."""


class Worker:
    """A peer's process. It waits on its stdin between requests, so it takes no time from the others."""

    def __init__(self, environment: Environment) -> None:
        if not environment.python.exists():
            raise Unavailable(f"{environment.folder.name} is missing; --install-peers makes it")
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        read, write = os.pipe()  # stdout is left to what libraries print
        self._process = subprocess.Popen(
            [str(environment.python), str(environment.worker), str(write)],
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            pass_fds=[write],
            text=True,
            env=environment_variables(),
        )
        os.close(write)
        self._answers = os.fdopen(read)
        self.facts = self._read()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request. Raises Unavailable where the peer says it cannot."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if "cannot" in answer:
            raise Unavailable(answer["cannot"])
        return answer

    def _read(self) -> dict[str, Any]:
        line = self._answers.readline()
        if not line:
            self._said.seek(0)
            said = self._said.read().strip().splitlines()
            raise Unavailable(f"its process ended: {said[-1] if said else 'no message'}")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process; it is idle then, so nothing is lost."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        self._said.close()
