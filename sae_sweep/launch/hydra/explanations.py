"""Hydra's errors in one line that names the key, what was wrong and what would be right."""

import re
from difflib import get_close_matches

from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from sae_sweep.config.reading import unknown_key
from sae_sweep.errors import first_line, one_line

_NO_KEY = re.compile(r"Could not override '([^'@]+)'")
_NO_GROUP = re.compile(r"Override (\S+) looks like a config group")


def explained(error: Exception) -> str:
    """The error as one line."""
    if isinstance(error, RecursionError):
        return "the config cannot be composed: its files name each other in a circle, or nest too deeply"
    if not isinstance(error, HydraException):
        return f"the config cannot be composed ({type(error).__name__}: {first_line(error)})"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read; give key=value, and quote a value with special characters"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(error.missing_cfg_file, error.options or [])
    text = str(error)
    if (found := _NO_KEY.search(text)) and found[1].startswith("hydra."):
        group = ".".join(found[1].split(".")[:2])
        return f"{found[1]}: no such key of the {group} that is chosen; docs/cluster.md has those of every choice"
    if found:
        return str(unknown_key(max(str(getattr(error.__cause__, "full_key", "")), found[1], key=len), None))
    if found := _NO_GROUP.search(text):
        return f"{found[1]}: no such group"
    cause = str(error.__cause__ or "").split("full_key:")[0]
    return one_line(f"{text} {cause}")


def _missing(file: str, options: object) -> str:
    group, _, option = file.rpartition("/")
    known = [str(name) for name in options] if isinstance(options, list | tuple) else []
    if not group or not known:
        return f"{file}: no such config; `sae-sweep --help` lists the groups and their options"
    near = get_close_matches(option, known, n=1) or [name for name in known if name in option]
    guess = f"did you mean {near[0]}? " if near else ""
    return f"{group}={option}: no such option; {guess}there is {', '.join(known)}"
