"""One process trains in a sweep folder at a time, and one in each of its tasks.

The lock is `flock` on `.state/lock` (of a task: `.state/tasks/<task>/lock`), whose contents say who has it. The kernel
lets go of it when its holder dies, by whatever death, so on one machine it is never stale, and NFS carries it between
machines. Where a file system keeps flock to each machine (Lustre as often mounted, sshfs), another machine's holder
shows by what the file says: who ends properly removes the file, so a name of another host in it is believed until a
person says otherwise, or until the same job is there again, which never runs twice at once. Where there is no flock at
all, making the file (O_EXCL) is the lock, and a holder of this machine is looked for by its pid and the moment it was
started.
"""

import fcntl
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from sae_sweep.errors import ConfigError
from sae_sweep.folder.names import LOCK
from sae_sweep.folder.sweep import state_place
from sae_sweep.host.json_files import parsed_object
from sae_sweep.host.pids import process_exists, process_start

JOB_VARIABLES = ("SAE_SWEEP_JOB", "SLURM_JOB_ID")
"""Environment variables that name the job a process is of, the same each time the job is run again."""


@dataclass(frozen=True)
class Holder:
    """Who trains in a folder."""

    host: str
    pid: int
    started: str | None
    """When the process began, in the kernel's words; None where it does not tell."""
    since: str
    """When it took the lock, local time."""
    job: str | None
    """The job it is of, on a cluster."""

    @property
    def here(self) -> bool:
        """Whether the process is on this machine."""
        return self.host == socket.gethostname()

    @property
    def alive(self) -> bool:
        """Of this host: whether it still runs. A process that was given the pid since has another start."""
        return process_exists(self.pid) and self.started in (None, process_start(self.pid))

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}, since {self.since}"


def read_holder(root: Path, task: str | None = None) -> Holder | None:
    """Who has the lock of a sweep folder, or of a task, or died with it; None where nobody does."""
    try:
        return _parsed((state_place(root, task) / LOCK).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


def living_holder(root: Path, task: str | None = None) -> Holder | None:
    """Who has the lock and is not known to be dead: of another host's process nobody here knows."""
    holder = read_holder(root, task)
    return None if holder is not None and holder.here and not holder.alive else holder


@contextmanager
def held(root: Path, task: str | None = None) -> Iterator[None]:
    """The lock of a sweep folder, or of one of its tasks. The folder is made where there is none, and removed again
    where nothing came into it.

    Raises ConfigError where another process has it, naming that, or where it cannot be had.
    """
    place = state_place(root, task)
    made = _make(place)
    try:
        descriptor = _acquire(place / LOCK, root)
    except OSError as error:
        _unmake(made)
        raise ConfigError(
            f"output_dir: {root} cannot be written to ({error.strerror}); make room, or give another output_dir="
        ) from error
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            if _is_file(descriptor, place / LOCK):  # and not of who was let in here since, by a person
                (place / LOCK).unlink()  # while it is held: who waits for it finds another file
        os.close(descriptor)
        with suppress(OSError):
            place.rmdir()
        _unmake(made)


def _acquire(file: Path, root: Path) -> int:
    """The descriptor that keeps the lock."""
    while True:
        try:
            descriptor, new = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
        except FileExistsError:
            descriptor, new = os.open(file, os.O_RDWR), False
        except FileNotFoundError:  # who had it has just removed the folder
            file.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            locked = _flock(descriptor)
            if not _is_file(descriptor, file):  # removed by who had it, between opening and locking
                os.close(descriptor)
                continue
            holder = _parsed(os.pread(descriptor, 4096, 0).decode(errors="replace"))
            if locked is False or not (new or _may_take(holder, locked is True)):
                raise _refusal(root, file, holder)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, (json.dumps(asdict(_own())) + "\n").encode(), 0)
        except FileNotFoundError:
            os.close(descriptor)
            continue
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _flock(descriptor: int) -> bool | None:
    """Whether the lock was had; None where the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_file(descriptor: int, file: Path) -> bool:
    opened, there = os.fstat(descriptor), file.stat()
    return (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino)


def _may_take(holder: Holder | None, locked: bool) -> bool:
    """Whether a lock file that was left there may be taken over."""
    if holder is None:
        return locked  # nothing in it: without flock its holder may be about to write its name
    if holder.here:
        return locked or not holder.alive
    return holder.job is not None and holder.job == _job()


def _own() -> Holder:
    since = datetime.now().isoformat(sep=" ", timespec="seconds")
    return Holder(socket.gethostname(), os.getpid(), process_start(os.getpid()), since, _job())


def _job() -> str | None:
    return next((os.environ[name] for name in JOB_VARIABLES if os.environ.get(name)), None)


def _refusal(root: Path, file: Path, holder: Holder | None) -> ConfigError:
    by = f"another process trains here ({holder})" if holder else "another process is about to train here"
    if holder is not None and not holder.here:
        return ConfigError(f"{root}: {by}; if that one is gone, remove {file}, else give another name=")
    return ConfigError(f"{root}: {by}; wait for it, or give another name=")


def _parsed(text: str) -> Holder | None:
    try:
        holder = Holder(**parsed_object(text))
    except (ValueError, TypeError):
        return None
    return holder if isinstance(holder.pid, int) and holder.pid > 0 else None


def _make(folder: Path) -> list[Path]:
    """The folders that had to be made, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _unmake(missing)
        raise ConfigError(
            f"output_dir: {folder.parent} cannot be made or written to ({error.strerror}); give a folder that can be"
        ) from error
    return missing


def _unmake(folders: Sequence[Path]) -> None:
    """Remove those that are empty."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
