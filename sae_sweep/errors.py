"""The errors that are told in one line."""

import os
import pickle


class ConfigError(Exception):
    """The user asked for something that cannot be.

    The message is one line that names the key, what was wrong with its value and what would be right.
    """


class StorageError(Exception):
    """The disk takes no more. The message is one line that names the file, and says what is kept."""


class SweepFailed(Exception):  # noqa: N818 - what happened, not a defect
    """Some members failed; the others finished, and the failures have been printed."""


class ProcessLost(Exception):  # noqa: N818 - what happened
    """Another process that trained the same group is gone; the message says which, where that is known."""

    exit_code = os.EX_TEMPFAIL
    """The same command goes on: whoever started it may start it again."""


def travelling(error: Exception, where: str) -> Exception:
    """The error in a form that another process can be told; `where` it was raised is said of one that cannot be."""
    return error if _travels(error) else RuntimeError(f"{where}: {type(error).__name__}: {error}")


def _travels(error: Exception) -> bool:
    """Whether it is itself at the other end."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # its own code runs there, and may raise anything
        return False
