"""What a process says and ends with, whatever was raised."""

import errno
import io
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

from sae_sweep.errors import ConfigError, ProcessLost, StorageError, SweepFailed
from sae_sweep.launch.exits import exit_code

RAISED = {
    "what cannot be": (ConfigError("seed=-1: no"), 2, "seed=-1: no"),
    "text of others": (ConfigError("a\x1b[31m\nb\udcff\x9b"), 2, r"a\x1b[31m\nb\udcff\x9b"),
    "a word without end": (ConfigError("x=" + "y" * 5000), 2, "x=" + "y" * 98 + "..." + "y" * 40),
    "a path": (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a/b"), 2, "a/b: No such file or directory"),
    "a full disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b"), 1, "a/b: No space left on device"),
    "a full disk of no name": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 1, "No space left on device"),
    "a folder that is gone": (
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)),
        2,
        "No such file or directory",
    ),
    "the disk": (StorageError("it is full"), 1, "it is full"),
    "no memory": (MemoryError(), 1, "the machine's memory is used up (no more is given); ask for less"),
    "no memory for torch": (
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 800 bytes."),
        1,
        "the machine's memory is used up (can't allocate memory); ask for less",
    ),
    "a rank": (ProcessLost("rank 1 is gone"), 75, "rank 1 is gone"),
}


@pytest.mark.parametrize("kind", RAISED)
def test_what_is_raised_is_one_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    error, code, line = RAISED[kind]

    def work() -> None:
        raise error

    assert exit_code(work) == code
    assert capsys.readouterr() == ("", f"sae-sweep: error: {line}\n")


def test_what_is_told_already_is_not_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise SweepFailed

    assert exit_code(work) == 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_stream(closed: str, tmp_path: Path) -> None:
    command = f"exec {sys.executable} -m sae_sweep.cli seed=x {closed}>&-"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False)
    said = "" if closed == "2" else "sae-sweep: error: seed=x is not a whole number\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", said)


def test_a_librarys_log_that_cannot_be_written_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """As wandb's is not, on a full disk."""

    class Full(logging.StreamHandler[TextIO]):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log, handler = logging.getLogger("of a library"), Full(io.StringIO())
    log.addHandler(handler)
    try:
        assert exit_code(lambda: log.warning("restore done")) == 0
    finally:
        log.removeHandler(handler)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1"},
        {"WORLD_SIZE": "2"},
        {"WORLD_SIZE": "two"},
        {"RANK": "-1", "WORLD_SIZE": "2"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": ""},
        {"WORLD_SIZE": "0"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "3"},
    ],
)
def test_what_torchrun_never_says(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert exit_code(lambda: None) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert any(f"{name}={value}" in said for name, value in environment.items())


def test_a_terminal_without_the_characters(tmp_path: Path) -> None:
    """What an encoding lacks is written as Python does, in place of an error."""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "sae_sweep.cli", "dry_run=true", "name='é·'"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert r"outputs/\xe9\xb7: 1 member in 1 group" in run.stdout


@pytest.mark.parametrize("variable", ["PYTHONOPTIMIZE", pytest.param("NUMBA_DISABLE_JIT", marks=pytest.mark.evidence)])
def test_variables_that_take_away_what_is_needed(variable: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sae_sweep.cli", "sae=topk", "sae.k=4", "tracking=none", "training.tokens=1e4"]
    run = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, variable: "1"}, cwd=tmp_path, check=False
    )
    assert run.returncode == 2
    assert run.stderr.endswith("; unset it\n")
    assert f"{variable}=1" in run.stderr
    assert list(tmp_path.iterdir()) == []
