"""Where tokens come from: the paths and splits that a config names. No torch, no numpy."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from glob import has_magic
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.fields import Wanted
from sae_sweep.errors import ConfigError

HELDOUT_KEYS = (
    *("kind", "path", "name", "split", "field", "heldout_path", "heldout_split", "context", "bos"),
    *("filter", "packing", "chat", "positions_of", "weights", "attention"),
)
"""What the held-out tokens of any source follow from, beside their number."""

MOST_FILES = 100_000
"""In a folder that is named for its files: it takes a second to look through."""
_LOCAL = (".arrow", ".parquet", ".npy", ".npz", ".bin")

Opened = TypeVar("Opened")


@dataclass(frozen=True)
class Origin:
    """Where tokens come from, and the keys that said so."""

    key: str
    """`data.path` or `data.heldout_path`: what messages name."""
    path: Any
    name: str | None
    split_key: str
    """`data.split` or `data.heldout_split`."""
    split: str
    wanted: Wanted

    @property
    def field(self) -> str:
        """`data.field`."""
        return self.wanted.field

    @property
    def label(self) -> str:
        """What messages call it: the key and the path."""
        return f"{self.key}={self.path}"

    @property
    def is_array(self) -> bool:
        """Whether it is one .npz, .npy or .bin file of token ids."""
        return isinstance(self.path, str) and Path(self.path).suffix in (".npz", ".npy", ".bin")

    def single_path(self) -> str:
        """The path of a source that has only one. ConfigError for a list, an empty one, and a file that is missing."""
        if not isinstance(self.path, str) or not self.path:
            raise ConfigError(f"{self.label} must be one path: only data.kind=text takes several, or data.weights")
        local = Path(self.path).expanduser()
        looks_local = self.path.startswith(("/", "./", "../", "~")) or local.suffix in _LOCAL
        if looks_local and not local.exists():
            raise ConfigError(f"{self.label} does not exist")
        if local.is_dir():
            _look_through(local, self.label)
        elif local.exists():
            check_regular(local, self.label)
        return self.path


def once(files: Iterable[Path]) -> list[Path]:
    """The files without those that are there already by another name: what is held out of one would be trained on."""
    found: dict[Path, Path] = {}
    for file in files:
        found.setdefault(file.resolve(), file)
    return list(found.values())


def check_regular(file: Path, label: str) -> None:
    """Raises ConfigError for a pipe or device, which cannot be read twice, and of which there may be no end."""
    if not file.is_file():
        raise ConfigError(f"{label} is a pipe or a device, which cannot be read again; save what comes of it to a file")


def origins(config: DataConfig) -> tuple[Origin, Origin | None]:
    """Of the training rows, and of the held-out ones where they have one of their own. Raises ConfigError."""
    if not config.path:
        raise ConfigError(f"data.path is needed with data.kind={config.kind}")
    train = Origin("data.path", config.path, config.name, "data.split", config.split, _wanted(config))
    split_key, split = "data.heldout_split", config.heldout_split
    if split is None and config.heldout_path is None:
        return train, None
    if split is None:
        split_key, split = "data.split", config.split
    heldout = replace(train, split_key=split_key, split=split)
    if config.heldout_path is not None:  # another dataset, so data.name, a configuration of the first, is not its
        heldout = replace(heldout, key="data.heldout_path", path=config.heldout_path, name=None)
    if _place(train.path) == _place(heldout.path) and _share_rows(train.split, heldout.split):
        raise ConfigError(
            f"{heldout.label} ({heldout.split_key}={heldout.split}) is the training data, which cannot be held out"
        )
    return train, heldout


def _place(path: Any) -> Any:
    """What a path names, whichever way it is written."""
    place = Path(path).expanduser() if isinstance(path, str) else None
    return place.resolve() if place is not None and place.exists() else path


def _share_rows(split: str, other: str) -> bool:
    """Whether two splits have rows in common for certain: slices of one, as in `train[:10%]`, may be apart."""
    return any(
        one == another or (one.partition("[")[0] == another.partition("[")[0] and not ("[" in one and "[" in another))
        for one in split.split("+")
        for another in other.split("+")
    )


def sources_of(config: DataConfig) -> list[tuple[DataConfig, float]]:
    """The sources of a config, each a config of its own, with its share of the tokens: several with `data.weights`."""
    if config.weights is None:
        return [(config, 1.0)]
    held = config.heldout_path if isinstance(config.heldout_path, list) else [None] * len(config.weights)
    parts = zip(config.path, held, config.weights, strict=True)
    total = sum(config.weights)
    return [(replace(config, path=path, heldout_path=own, weights=None), w / total) for path, own, w in parts]


def keeps_apart(config: DataConfig) -> bool:
    """Whether keys name a source of its own for all held-out tokens, so that none of those to train on are taken."""
    named = config.heldout_split is not None
    return named or all(one.heldout_path is not None for one, _ in sources_of(config))


def _wanted(config: DataConfig) -> Wanted:
    return Wanted(config.field, config.chat, config.filter)


def opened(config: DataConfig, open_one: Callable[[Origin], Opened]) -> tuple[Opened, Opened | None]:
    """Both origins of a config, opened."""
    train, heldout = origins(config)
    return open_one(train), None if heldout is None else open_one(heldout)


def files_at(origin: Origin) -> list[Path] | None:
    """The file of a path, or all in its folder; None where it is not there, so that it is of the hub."""
    place = Path(str(origin.path)).expanduser()
    if not place.exists():
        return None
    return sorted(walked(place, origin.label)) if place.is_dir() else [file for file in [place] if file.is_file()]


def walked(folder: Path, label: str) -> Iterator[Path]:
    """The files in a folder and those in it. Raises ConfigError where there are too many to be a data set that somebody
    named: a home, or the whole disk."""
    seen = 0
    for place, folders, files in os.walk(folder):
        seen += len(folders) + len(files)
        if seen > MOST_FILES:
            raise ConfigError(
                f"{label}: there are more than {MOST_FILES:,} files in {folder}; name those to read, by a glob like"
                f" {folder / 'texts' / '*.txt'}"
            )
        yield from (file for name in files if (file := Path(place, name)).is_file())


@cache
def _look_through(folder: Path, label: str) -> None:
    """Raises ConfigError for a folder of too many files. A process looks once."""
    deque(walked(folder, label), maxlen=0)


def check_glob(pattern: str, label: str) -> None:
    """Raises ConfigError for a glob that would look through too many folders."""
    parts = Path(pattern).parts
    if "**" in parts:
        _look_through(Path(*takewhile(lambda part: not has_magic(part), parts)), label)
