"""What this machine has of cores and memory, as far as that can be told without torch."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_GPU_QUERY = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
PATIENCE = 5.0
"""Seconds, for a GPU to say its size."""


def cores() -> int:
    """How many this process may use; macOS does not say which."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_bytes() -> int | None:
    """Of the machine, or of the container where that has less; None where nobody says."""
    found = list[int]()
    with suppress(OSError, ValueError):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for file in _LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it says `max`
            found.append(int(file.read_text(encoding="ascii")))
    return min((size for size in found if size > 0), default=None)


def gpu_bytes() -> int | None:
    """Of the smallest GPU of this machine; None where there is none that says so."""
    try:
        said = subprocess.run(_GPU_QUERY, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
        return min(int(line) for line in said.splitlines()) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
