"""Text from files: which files, and the documents in them."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from sae_sweep.data.fields import Record
from sae_sweep.data.formats import SUFFIXES, records_of, suffix_of
from sae_sweep.data.origin import Origin, check_glob, check_regular, once, walked
from sae_sweep.errors import ConfigError


def text_files(origin: Origin) -> list[Path]:
    """The files that a path, a glob or a list of them names: sorted, each once. ConfigError where there is none."""
    patterns = [origin.path] if isinstance(origin.path, str) else origin.path
    if not isinstance(patterns, Sequence) or not patterns or not all(isinstance(p, str) and p for p in patterns):
        raise ConfigError(f"{origin.label} must be a file, a glob or a list of them")
    return once(sorted({file for pattern in patterns for file in _matching_files(origin.key, pattern)}))


def _matching_files(key: str, pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        files = [file for file in walked(path, f"{key}={pattern}") if suffix_of(file) in SUFFIXES]
        if not files:
            kinds = ", ".join(SUFFIXES)
            raise ConfigError(f"{key}={pattern} is a folder without a file of text ({kinds}); name files in it")
        return files
    if path.exists():
        check_regular(path, f"{key}={pattern}")
        return [path]
    if not glob.has_magic(pattern):
        raise ConfigError(f"{key}={pattern} does not exist")
    check_glob(str(path), f"{key}={pattern}")
    files = [Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file()]
    if not files:
        raise ConfigError(f"{key}={pattern} matches no file")
    return files


def text_records(files: Sequence[Path], origin: Origin) -> Iterator[Record]:
    """The records of the files in their order. Raises ConfigError where one cannot be read."""
    return (record for file in files for record in records_of(file, origin.key, origin.wanted))
