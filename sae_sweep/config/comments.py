"""What the files of `configs/` say of a key: its comment there, which is where its meaning is written."""

import re
from collections.abc import Iterator
from pathlib import Path

from sae_sweep.config.files import config_folder
from sae_sweep.config.reading import GROUPS, nearest
from sae_sweep.errors import ConfigError

_LINE = re.compile(r"( *)([\w.]+):(?: +(.*?))?(?: +# (.*))?")


def explanation(key: str) -> str:
    """What a key means and what it is in which file; of a group, its options and what each is. Raises ConfigError for
    a key that no file has."""
    folder = config_folder()
    if key in GROUPS or key in ("hydra/launcher", "hydra/sweeper"):
        heads = {
            file.stem: file.read_text(encoding="utf-8").splitlines() for file in sorted((folder / key).glob("*.yaml"))
        }
        return "\n".join(f"{key}={name}  {_head(lines)}".rstrip() for name, lines in heads.items())
    found: dict[str, dict[str, list[str]]] = {}
    for file, name, value, comment in _lines(folder):
        places = found.setdefault(name, {}).setdefault(comment, [])
        places.append(f"{value} in {file.relative_to(folder)}")
    if key not in found:
        near = nearest(key, found)
        raise ConfigError(f"explain: {key} is no key of configs/" + (f"; did you mean {near}?" if near else ""))
    return "\n".join(
        f"{key}  {comment}".rstrip() + "".join(f"\n    {place}" for place in places)
        for comment, places in found[key].items()
    )


def _head(lines: list[str]) -> str:
    """The comment that a file begins with, without what Hydra reads of it."""
    said = (line for line in lines if not line.startswith("# @package"))
    return next(said, "").removeprefix("# ") if lines else ""


def _lines(folder: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Each key of each file but experiments: the file, the dotted key, its value, its comment."""
    for file in sorted(folder.rglob("*.yaml")):
        group = file.parent.relative_to(folder).as_posix().replace("/", ".")
        if group == "experiment":
            continue
        prefix = "sae" if file.name == "every_sae.yaml" else "" if group == "." else group
        prefix += f".{file.stem}" if group == "analysis" else ""
        parents: list[tuple[int, str]] = []
        for match in map(_LINE.fullmatch, file.read_text(encoding="utf-8").splitlines()):
            if match is None:
                continue
            indent, name = len(match[1]), match[2]
            parents = [*(parent for parent in parents if parent[0] < indent), (indent, name)]
            if match[3]:
                yield file, ".".join(filter(None, (prefix, *(part for _, part in parents)))), match[3], match[4] or ""
