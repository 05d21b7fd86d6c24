"""metrics.jsonl: one line of a member's curves for each logged step. It is the truth, whatever else is tracked."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sae_sweep.errors import ConfigError
from sae_sweep.folder.files import replacing
from sae_sweep.host.json_files import parsed_object


def append(file: Path, line: Mapping[str, Any]) -> None:
    """Append one line. Raises OSError where the disk takes no more; the file is then as it was."""
    text = (json.dumps(line, allow_nan=False) + "\n").encode()
    # Opened for each line, not kept: a resumed run may have put a shortened file in its place.
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    before = os.fstat(descriptor).st_size
    try:
        while text:  # a disk with room for a part takes that part
            text = text[os.write(descriptor, text) :]
    except OSError as error:
        os.ftruncate(descriptor, before)
        raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        os.close(descriptor)


def read(file: Path) -> list[dict[str, Any]]:
    """All lines; none where there is no file. Raises ConfigError for one that is not what was written."""
    lines = file.read_bytes().splitlines() if file.exists() else []
    return [_line(file, number, text) for number, text in enumerate(lines, 1)]


def _line(file: Path, number: int, text: bytes) -> dict[str, Any]:
    try:
        line = parsed_object(text.decode())
    except ValueError as error:
        raise ConfigError(f"{file}: line {number} is damaged ({error}); restore it") from error
    if not isinstance(line.get("step"), int):
        raise ConfigError(f"{file}: line {number} is damaged (it has no step); restore it")
    return line


def read_whole(file: Path) -> list[dict[str, Any]]:
    """The lines that are whole, of a file that nobody syncs: a power cut leaves the last one in part."""
    found = []
    for text in file.read_text(errors="replace").splitlines() if file.exists() else ():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and isinstance(line.get("step"), int) and isinstance(line.get("time"), float):
            found.append(line)
    return found


def cut_back(file: Path, size: int) -> bool:
    """Make metrics.jsonl what it was when it had `size` bytes; False where it has lost some since.

    It appears whole: a reader, or who comes after a kill, finds the one or the other.
    """
    there = file.stat().st_size if file.exists() else 0
    if size == 0:
        file.unlink(missing_ok=True)
    elif there > size:
        with file.open("rb") as opened:
            kept = opened.read(size)
        with replacing(file) as temporary:
            temporary.write_bytes(kept)
    return there >= size
