"""The errors that are told in one line."""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST_CHARACTERS = 500
"""Of an error whose words are not ours."""


class ConfigError(Exception):
    """The user asked for something that cannot be.

    The message is one line that names the key, what was wrong with its value and what would be right.
    """


class StorageError(Exception):
    """The disk takes no more. The message is one line that names the file, and says what is kept."""


class SweepFailed(Exception):  # noqa: N818 - an outcome that the exit code tells, and no error of the program
    """Some members failed; the others finished, and the failures have been printed."""


class ProcessLost(Exception):  # noqa: N818 - an outcome too: this process has no error, another one is gone
    """Another process that trained the same group is gone; the message says which, where that is known."""

    exit_code = os.EX_TEMPFAIL
    """The same command goes on: whoever started it may start it again."""


def one_line(error: object) -> str:
    """What an error of others says, in one line; its type where it says nothing."""
    return " ".join(str(error).split())[:MOST_CHARACTERS] or type(error).__name__


def first_line(error: Exception) -> str:
    """The same in short: of one of YAML's parsers what is wrong and where, of others the first line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if problem:
        return f"{problem}, line {mark.line + 1}" if mark else str(problem)
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


@contextmanager
def reading_yaml(said: Callable[[str], str]) -> Iterator[None]:
    """Raises ConfigError for whatever reading YAML in it raises; `said` makes the message of what is wrong."""
    try:
        yield
    except Exception as error:  # what PyYAML, its constructors and OmegaConf raise of hostile text shares no type
        raise ConfigError(said(first_line(error))) from error


def travelling(error: Exception, where: str) -> Exception:
    """The error in a form that another process can be told; `where` it was raised is said of one that cannot be."""
    return error if _travels(error) else RuntimeError(f"{where}: {type(error).__name__}: {error}")


def _travels(error: Exception) -> bool:
    """Whether it is itself at the other end."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)
    except Exception:  # its own code runs there, and may raise anything
        return False
