"""Whole files, and what killed processes leave of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from sae_sweep.folder.files import OLD_SECONDS, clear_leftovers, replacing, write_json_atomic, write_text_atomic

WRITER = """
import os, sys
from pathlib import Path
from sae_sweep.folder.files import replacing

with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    os.read(0, 1)
"""


def write_half(file: Path) -> None:
    with replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text_atomic(file, "old")
    with pytest.raises(RuntimeError):
        write_half(file)
    with pytest.raises(FileNotFoundError), replacing(file):
        pass
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
    write_text_atomic(file, "new é")
    assert file.read_text(encoding="utf-8") == "new é"
    assert list(tmp_path.iterdir()) == [file]


def test_json_is_strict(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json_atomic(tmp_path / "a.json", {"l0": float("nan")})
    assert list(tmp_path.iterdir()) == []


def writing(file: Path) -> "subprocess.Popen[str]":
    """A process in the middle of writing a file."""
    command = [sys.executable, "-c", WRITER, str(file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    living, killed = writing(file), writing(file)
    assert len(list(tmp_path.iterdir())) == 2
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    clear_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    living.communicate("\n")
    assert living.returncode == 0
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "half")]


def test_what_another_host_may_be_writing_stays_for_a_day(tmp_path: Path) -> None:
    new, old = (tmp_path / f".a.{host}-1-0123abcd.tmp" for host in ("ffffff", "eeeeee"))
    foreign = tmp_path / ".notes.tmp"
    for file in (new, old, foreign):
        file.write_text("")
    os.utime(old, times=(time() - OLD_SECONDS - 60,) * 2)
    clear_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([new, foreign])
    clear_leftovers(tmp_path, own=True)
    assert list(tmp_path.iterdir()) == [foreign]
    clear_leftovers(tmp_path / "not there")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_what_a_library_makes_for_its_owner_alone_gets_the_mode_that_the_umask_gives(
    mask: int, mode: int, tmp_path: Path
) -> None:
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "weights") as temporary:
            save_file({"a": np.zeros(3)}, temporary)
    finally:
        os.umask(before)
    assert (tmp_path / "weights").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_what_is_no_character_is_written_as_python_writes_it(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "a.html", "a \ud800 b ä")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == "a \\ud800 b ä"
