"""Files that are whole or not there at all, and what killed processes were writing. No torch."""

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex
from socket import gethostname
from time import time
from typing import Any

from sae_sweep.host.pids import process_exists

OLD_SECONDS = 86_400.0
"""After so long nobody is still writing a file."""
_WRITER = re.compile(r"\.(?P<host>[0-9a-f]{6})-(?P<pid>\d+)-[0-9a-f]{8}\.tmp$")


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path in the same folder, which takes `path`'s place once the block ends without an error.

    A reader sees the old file or the new one, never a part; if `durable`, the new one is on disk when this returns.
    Raises OSError, of `path`; where that is a device, say, which no file should replace, too.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "is there already, and no file", str(path))
    temporary = path.with_name(f".{path.name}.{host_token()}-{os.getpid()}-{token_hex(4)}.tmp")
    try:
        yield temporary
        open_to_others(temporary)
        if durable:
            sync(temporary)
        temporary.replace(path)
    except OSError as error:
        if str(error.filename) == str(temporary):
            error.filename = str(path)  # the name that whoever reads this knows
        raise
    finally:
        with suppress(OSError):  # a folder that became read-only has an error of its own to tell
            temporary.unlink(missing_ok=True)
    if durable:
        sync(path.parent)


def open_to_others(file: Path) -> None:
    """Give a file that a library made for its owner alone (safetensors does) the mode that any new file has here."""
    if file.stat().st_mode & 0o077:
        return
    probe = file.with_name(f"{file.name}.mode.tmp")
    descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT, 0o666)
    file.chmod(os.fstat(descriptor).st_mode & 0o777)
    os.close(descriptor)
    probe.unlink()


def clear_leftovers(folder: Path, *, own: bool = False) -> None:
    """Remove what killed processes were writing here with `replacing`; all there is, where nobody else may write here
    now (`own`). A folder that is not there has none."""
    for path in folder.glob(".*.tmp"):
        writer = _WRITER.search(path.name)
        with suppress(OSError):  # gone by now, or not ours to remove
            if writer and (own or _gone(writer["host"], int(writer["pid"]), path)):
                path.unlink()


def _gone(host: str, pid: int, path: Path) -> bool:
    """Whether the process that wrote a temporary file has ended: of another host's nobody here knows."""
    return not process_exists(pid) if host == host_token() else time() - path.stat().st_mtime > OLD_SECONDS


def write_text_atomic(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a UTF-8 file as `replacing` does; a lone surrogate, which is no character, as `\\ud800`."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json_atomic(path: Path, entries: Any) -> None:
    """Write strict JSON (NaN is refused) as `replacing` does."""
    write_text_atomic(path, json.dumps(entries, indent=2, allow_nan=False) + "\n")


def sync(path: Path) -> None:
    """See that a file, or what a folder lists, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def host_token() -> str:
    """This machine, in letters that any file system takes."""
    return blake2b(gethostname().encode(), digest_size=3).hexdigest()
