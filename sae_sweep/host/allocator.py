"""How this process takes cores and memory from the system; to be said before torch is imported."""

import ctypes
import os
import sys

SPIN = "2000"
"""How often torch's CPU threads look for more work before they sleep, unless the environment says. By itself they
look for milliseconds, and on cores that anything else uses too a step then takes twenty times as long."""
KEPT_BLOCK = 2**25
"""Bytes. Freed blocks below this size are kept for the next tensor; left to itself the C library hands those of a MB
back to the system, and each page of the next one is faulted in again: judging takes three times as long. Larger ones
gain nothing by it, and a heap that they are in comes to twice what is in use."""
KEPT_TOGETHER = 2**28
"""Bytes at the end of the heap from which freed memory is handed back after all."""
REFUSED = ("can't allocate memory", "bad_alloc", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Words of torch's errors where the system, or a device, gives no more."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""glibc's names for the two, in malloc.h."""


def tune() -> None:
    """Settle both for the rest of this process and, as to cores, for those that it starts."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)  # read once, when torch is first imported
    _of_libc("mallopt", _MMAP_THRESHOLD, KEPT_BLOCK)
    _of_libc("mallopt", _TRIM_THRESHOLD, KEPT_TOGETHER)


def hand_back() -> None:
    """Give the system what freed blocks hold, where the C library can."""
    _of_libc("malloc_trim", 0)


def refused(said: str) -> str | None:
    """Which of REFUSED an error says; None where it says something else."""
    return next((words for words in REFUSED if words in said), None)


def _of_libc(function: str, *arguments: int) -> None:
    """Call a function of the C library that not every one has."""
    found = getattr(ctypes.CDLL(None), function, None) if sys.platform == "linux" else None
    if found is not None:
        found(*arguments)
