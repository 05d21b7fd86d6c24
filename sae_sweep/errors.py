"""The errors that are told in one line."""

import os


class ConfigError(Exception):
    """The user asked for something that cannot be.

    The message is one line that names the key, what was wrong with its value and what would be right.
    """


class StorageError(Exception):
    """The disk takes no more. The message is one line that names the file, and says what is kept."""


class RankLost(Exception):  # noqa: N818 - what happened
    """Another process that trained the same group is gone; the message says which, where that is known."""

    exit_code = os.EX_TEMPFAIL
    """The same command goes on: whoever started it may start it again."""
