"""SLURM's commands, stood in for."""

import os
from pathlib import Path

import pytest

SLURM = ("hydra/launcher=slurm", "hydra.launcher.wait=false", "data.seed=0,1", "sae=topk")


class Cluster:
    """Stands in for SLURM: scripts that answer what they are told to, and keep what they are asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.answer("sbatch", "Submitted batch job 17", f'cat "$1" > {folder}/script; exit $(cat {folder}/refuses)')
        (folder / "refuses").write_text("0")
        self.queue()
        self.answer("sacct", "")
        self.answer("scancel", "", f'echo "$@" > {folder}/cancelled')
        self.answer("scontrol", "", f'echo "$@" >> {folder}/told')
        self.answer("srun", "")

    def answer(self, command: str, text: str, more: str = "") -> None:
        file = self.folder / command
        file.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n{more}\n")
        file.chmod(0o755)

    def queue(self, *lines: str) -> None:
        self.answer("squeue", "\n".join(lines))

    @property
    def script(self) -> list[str]:
        return (self.folder / "script").read_text().splitlines()


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster(tmp_path_factory.mktemp("slurm") / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made
