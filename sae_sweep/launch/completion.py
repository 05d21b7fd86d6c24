"""What a shell may complete beside Hydra's overrides: commands, their folders, options and keys, and paths. No torch.

`eval "$(sae-sweep -sc install=bash)"` has the shell ask `sae-sweep -sc query=bash` at each tab, with the line so far in
COMP_LINE; fish asks the same way, and zsh as bash.
"""

import os
import re
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path

from sae_sweep.config.files import config_folder
from sae_sweep.config.reading import GROUPS, PATHS, known_keys
from sae_sweep.folder import names

_OPTION = re.compile(r"--\w+(?= [A-Z])|--\w+")
_TAKES = re.compile(r"(--\w+) ([A-Z]+)")


def asked() -> str:
    """The line up to the cursor."""
    line, point = os.environ.get("COMP_LINE", ""), os.environ.get("COMP_POINT", "")
    return line[: int(point)] if point.isdecimal() else line


def completions(line: str, usages: Mapping[str, str]) -> tuple[list[str], bool]:
    """What the last word of a line may become, and whether Hydra has more to say. `usages` are the words after each
    command, as `--help` has them."""
    given = line.split()[1:]
    word = given.pop() if given and not line[-1:].isspace() else ""
    command = given[0] if given else None
    if command is not None and command in usages:
        return _of_command(word, given[1:], usages[command]), False
    key, equals, path = word.partition("=")
    if equals and key.lstrip("+") in PATHS:
        return [f"{key}={found}" for found in _files(path)], False
    own = [name for name in usages if name.startswith(word)] if command is None else []
    return own, True


def _of_command(word: str, given: list[str], usage: str) -> list[str]:
    key, equals, path = word.partition("=")
    if equals and key in PATHS:
        return [f"{key}={found}" for found in _files(path)]
    if word.startswith("-"):
        return [option for option in dict.fromkeys(_OPTION.findall(usage)) if option.startswith(word)]
    takes = dict(_TAKES.findall(usage))
    wanted = takes.get(given[-1]) if given and given[-1] in takes else usage.split(" ")[0] if not given else None
    return _OF.get(wanted or "", lambda _: [])(word)


def _folders(word: str) -> list[str]:
    """Folders that begin so: sweeps and members as they are, others with a slash. Of nothing, the sweeps first."""
    found = [path for path in _files(word) if path.endswith("/")]
    sweeps = [] if word else [str(file.parent) for file in sorted(Path("outputs").glob(f"*/{names.SWEEP}"))]
    ours = (names.SWEEP, names.CARD)
    return sweeps + [path.rstrip("/") if any(Path(path, mark).is_file() for mark in ours) else path for path in found]


def _files(word: str) -> list[str]:
    """Files and folders that begin so, these with a slash; hidden ones where that is asked for. A shell cuts words at
    spaces, so names with some are left to it."""
    parent, _, begin = word.rpartition("/")
    head = f"{parent}/" if "/" in word else ""
    try:
        entries = sorted(os.scandir(Path(head or ".").expanduser()), key=lambda entry: entry.name)
    except (OSError, RuntimeError):  # the last of a home of nobody
        return []
    found = [e for e in entries if e.name.startswith(begin) and (begin or not e.name.startswith("."))]
    return [f"{head}{e.name}" + "/" * e.is_dir() for e in found if e.name.isprintable() and " " not in e.name]


def _keys(word: str) -> list[str]:
    return [key for key in chain(GROUPS, known_keys()) if key.startswith(word)]


def _analyses(word: str) -> list[str]:
    files = sorted((config_folder() / "analysis").glob("*.yaml"))
    return [file.stem for file in files if file.stem.startswith(word)]


_OF: Mapping[str, Callable[[str], list[str]]] = {
    "DIR": _folders,
    "MEMBER": _folders,
    "KEY": _keys,
    "NAME": _analyses,
}
"""By the word that stands in a usage for what is given."""
