"""A disk that takes no more, or may not be written to, told in one line."""

import errno
import json
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sae_sweep.errors import StorageError

OF_STORAGE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE")
    if hasattr(errno, name)
}
_IN_RUST = re.compile(r"os error (\d+)")
"""How safetensors says which error it met."""


def number_of(error: BaseException) -> int | None:
    """The error's number, where it is one of reading or writing."""
    if isinstance(error, OSError):
        return error.errno
    found = _IN_RUST.search(str(error)) if type(error).__name__ == "SafetensorError" else None
    return int(found[1]) if found else None


def out_of_space(error: BaseException) -> bool:
    """Whether the disk takes no more, or fails: not a matter of what was asked for."""
    return number_of(error) in OF_STORAGE - {errno.EACCES, errno.EPERM}


def of_storage(error: BaseException) -> bool:
    """Whether an error is the disk's, which no code here can mend."""
    return number_of(error) in OF_STORAGE


def is_whole_safetensors(file: Path) -> bool:
    """Whether a safetensors file has a header, and as many bytes after it as that says. Numbers are not looked at."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            size = file.stat().st_size
            header = json.loads(opened.read(length)) if length <= size else {}
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
            return bool(ends) and 8 + length + max(ends) == size
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, struct.error):
        return False


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raises StorageError in place of what the disk's errors raise."""
    try:
        yield
    except Exception as error:
        number = number_of(error)
        if number not in OF_STORAGE or number is None:
            raise
        where = f"{file}: " if (file := getattr(error, "filename", None)) else ""
        raise StorageError(
            f"{where}{os.strerror(number)}; what was written before is kept, and the same command goes on from the"
            " last checkpoint once the disk can be written to"
        ) from error
