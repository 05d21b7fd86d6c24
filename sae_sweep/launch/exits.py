"""What a process of ours ends with.

0 done, 1 a member failed or the disk takes no more, 2 what was asked for cannot be, or another process is at it,
75 another rank is gone, 128 + n stopped by signal n (130 SIGINT, 143 SIGTERM, 140 SIGUSR2): the same command goes on.
"""

import os
import sys
from collections.abc import Callable

from sae_sweep.errors import ConfigError, ProcessLost, StorageError, SweepFailed
from sae_sweep.host import allocator
from sae_sweep.host.rank_processes import role, started
from sae_sweep.host.signals import Interrupted


def exit_code(work: Callable[[], object]) -> int:
    """Do the work of a process, say in one line why it cannot be done, let other ranks go, and return its exit code."""
    allocator.tune()
    code = _code(work)
    if code < 128 and role().rank == 0 and (role().size > 1 or started()):
        from sae_sweep.training.devices.joining import dismiss  # brings in torch

        dismiss()  # who is interrupted may be in the middle of a talk, and does not
    return code


def _code(work: Callable[[], object]) -> int:
    try:
        work()
    except ConfigError as error:
        return _refused(str(error), 2)
    except SweepFailed:
        return 1
    except StorageError as error:
        return _refused(str(error), 1)
    except ProcessLost as error:
        return _refused(str(error), error.exit_code)
    except Interrupted as interrupted:
        return interrupted.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `sae-sweep ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _refused(reason: str, code: int) -> int:
    print(f"sae-sweep: error: {reason}", file=sys.stderr)
    return code
