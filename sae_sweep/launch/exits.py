"""What a process of ours ends with, and the one line that says why: nothing that is raised passes this boundary.

0 done, 1 a member failed or the machine has no more to give, 2 what was asked for cannot be, or another process is at
it, 70 a defect of ours, 75 another rank is gone, 128 + n stopped by signal n (130 SIGINT, 143 SIGTERM, 140 SIGUSR2):
the same command goes on.
"""

import logging
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable

from sae_sweep.errors import ConfigError, ProcessLost, StorageError, SweepFailed
from sae_sweep.folder.storage import out_of_space
from sae_sweep.host import allocator
from sae_sweep.host.rank_processes import role, started
from sae_sweep.host.signals import Interrupted
from sae_sweep.host.terminal import take_any_text, tell

_LONG = re.compile(r"(\S{100})\S{200,}(\S{40})")
"""A word that nobody reads to its end."""
_NO_HOME = "Could not determine home directory"
"""What pathlib says of `~nobody`."""


def exit_code(work: Callable[[], object]) -> int:
    """Do the work of a process, say in one line why it cannot be done, let other ranks go, and return its exit code."""
    take_any_text()
    logging.raiseExceptions = False  # a library's log on a full disk is no matter for a traceback
    allocator.tune()
    try:
        own = role()
    except ConfigError as error:
        return _told(error)
    code = _code(work)
    if code < 128 and own.rank == 0 and (own.size > 1 or started()):
        from sae_sweep.training.devices.joining import dismiss  # brings in torch

        dismiss()  # who is interrupted may be in the middle of a talk, and does not
    return code


def _code(work: Callable[[], object]) -> int:
    try:
        work()
    except BrokenPipeError:  # `sae-sweep ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as error:  # Hydra's, when it has printed what an option asks for
        return 2 if error.code else 0
    except (Exception, KeyboardInterrupt) as error:
        return _told(error)
    return 0


def _told(error: BaseException) -> int:
    """Say in one line what was raised, and return the exit code that it means."""
    match error:
        case Interrupted():
            return error.exit_code
        case KeyboardInterrupt():
            return 130
        case SweepFailed():
            return 1
        case ConfigError():
            return _refused(str(error), 2)
        case StorageError():
            return _refused(str(error), 1)
        case ProcessLost():
            return _refused(str(error), error.exit_code)
        case MemoryError():
            return _refused(f"the machine's memory is used up ({str(error) or 'no more is given'}); ask for less", 1)
        case RuntimeError() if (found := allocator.refused(str(error))) is not None:
            return _refused(f"the machine's memory is used up ({found}); ask for less", 1)
        case RuntimeError() if _NO_HOME in str(error):
            return _refused("this machine knows no such user, or no home of yours: give paths without ~", 2)
        case OSError(strerror=str() as reason):
            where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
            return _refused(where + reason, 1 if out_of_space(error) else 2)
    with tempfile.NamedTemporaryFile("w", prefix="sae-sweep-", suffix=".txt", delete=False, encoding="utf-8") as kept:
        kept.write("".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode())
    what = f"{type(error).__name__}: {error}"[:200]
    return _refused(f"a defect of sae-sweep ({what}); please report it with {kept.name}", os.EX_SOFTWARE)


def _refused(reason: str, code: int) -> int:
    tell("sae-sweep: error: " + _LONG.sub(r"\1...\2", reason), sys.stderr)
    return code
