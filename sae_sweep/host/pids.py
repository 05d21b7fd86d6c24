"""Which processes of this machine there are. No torch."""

import os
from pathlib import Path


def process_exists(pid: int) -> bool:
    """Whether a process of this machine has the pid."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def process_start(pid: int) -> str | None:
    """When a process of this machine began, in a form that no other process with its pid shares."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return None
