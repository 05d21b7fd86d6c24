import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sae_sweep.errors import ConfigError
from sae_sweep.folder.lock import held, read_holder
from sae_sweep.host.pids import process_exists, process_start

HOLD = (
    "import sys, time; from pathlib import Path; from sae_sweep.folder.lock import held\n"
    "with held(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "sweep"


def take(root: Path) -> None:
    with held(root):
        pass


def leave(root: Path, **other: Any) -> None:
    """A lock file that a process left when it died."""
    entries = {"host": socket.gethostname(), "pid": os.getpid(), "started": None, "since": "then", "job": None}
    (root / ".state").mkdir(parents=True)
    (root / ".state" / "lock").write_text(json.dumps(entries | other))


def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)


def test_nothing_is_left_of_a_folder_that_nothing_came_into(root: Path, tmp_path: Path) -> None:
    with held(root):
        holder = read_holder(root)
        assert holder is not None
        assert (holder.host, holder.pid, holder.alive) == (socket.gethostname(), os.getpid(), True)
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "sweep.json").touch()
    take(root)
    assert [path.name for path in root.iterdir()] == ["sweep.json"]


def test_the_second_is_told_who_has_it(root: Path) -> None:
    with held(root), pytest.raises(ConfigError) as caught:
        take(root)
    assert str(root) in str(caught.value)
    assert f"host {socket.gethostname()}, pid {os.getpid()}, since 2" in str(caught.value)
    assert "\n" not in str(caught.value)
    take(root)


def test_who_was_let_in_by_a_person_keeps_the_lock(root: Path) -> None:
    """The first, thought gone, ends after all: the file is of the second by then, and a third must not come in."""
    with held(root):
        (root / ".state" / "lock").unlink()
        with held(root):
            second = (root / ".state" / "lock").read_text()
            (root / ".state" / "lock").unlink()
            (root / ".state" / "lock").write_text(second)
        assert (root / ".state" / "lock").read_text() == second


def test_the_lock_of_a_killed_process_is_free(root: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"pid {other.pid}, "):
            take(root)
        other.send_signal(signal.SIGKILL)
        other.wait()
        left = read_holder(root)
        assert left is not None
        assert (left.pid, left.alive) == (other.pid, False)
        take(root)


def test_a_reused_pid_is_not_its_holder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(root, started="another boot/1")
    left = read_holder(root)
    assert left is not None
    assert not left.alive
    without_flock(monkeypatch)
    take(root)


def test_without_flock_a_living_process_keeps_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_flock(monkeypatch)
    leave(root, started=process_start(os.getpid()))
    with pytest.raises(ConfigError, match="another process trains here"):
        take(root)


def test_without_flock_an_empty_file_is_of_who_writes_it_now(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_flock(monkeypatch)
    leave(root)
    (root / ".state" / "lock").write_text("")
    with pytest.raises(ConfigError, match="about to train"):
        take(root)


def test_another_host_is_believed_and_it_is_said_how_to_clear_it(root: Path) -> None:
    leave(root, host="elsewhere", pid=7)
    with pytest.raises(ConfigError) as caught:
        take(root)
    assert "host elsewhere, pid 7, since then" in str(caught.value)
    assert f"remove {root / '.state' / 'lock'}" in str(caught.value)


def test_a_requeued_slurm_job_takes_its_lock_from_another_host(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    leave(root, host="elsewhere", job="42")
    with pytest.raises(ConfigError):
        take(root)
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    take(root)


@pytest.mark.parametrize("contents", ["", "{", '{"host": 1}', "[]"])
def test_contents_that_cannot_be_read_are_of_a_dead_process(root: Path, contents: str) -> None:
    leave(root)
    (root / ".state" / "lock").write_text(contents)
    assert read_holder(root) is None
    take(root)


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="output_dir"):
        take(tmp_path / "file" / "sweep")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_processes() -> None:
    assert process_exists(os.getpid())
    assert process_exists(1)
    assert process_start(os.getpid()) != process_start(1)
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert not process_exists(ended.pid)
    assert process_start(ended.pid) is None
