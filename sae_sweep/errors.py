"""The errors that are told in one line."""


class ConfigError(Exception):
    """The user asked for something that cannot be.

    The message is one line that names the key, what was wrong with its value and what would be right.
    """


class StorageError(Exception):
    """The disk takes no more. The message is one line that names the file, and says what is kept."""
