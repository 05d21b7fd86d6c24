"""The errors a user can cause."""


class ConfigError(Exception):
    """The user asked for something that cannot be.

    The message is one line that names the key, what was wrong with its value and what would be right.
    """
