"""Text from files: which files, and the documents in them."""

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from sae_sweep.data.formats import records_of
from sae_sweep.data.origin import Origin, check_regular
from sae_sweep.data.records import Ledger
from sae_sweep.errors import ConfigError


def text_files(origin: Origin) -> list[Path]:
    """The files that a path, a glob or a list of them names: sorted, each once. ConfigError where there is none."""
    patterns = [origin.path] if isinstance(origin.path, str) else origin.path
    if not isinstance(patterns, Sequence) or not patterns or not all(isinstance(p, str) and p for p in patterns):
        raise ConfigError(f"{origin.label} must be a file, a glob or a list of them")
    return sorted({file for pattern in patterns for file in _matching_files(origin.key, pattern)})


def _matching_files(key: str, pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        raise ConfigError(f"{key}={pattern} is a folder; name its files, for example {path / '*.txt'}")
    if path.exists():
        check_regular(path, f"{key}={pattern}")
        return [path]
    if not glob.has_magic(pattern):
        raise ConfigError(f"{key}={pattern} does not exist")
    files = [Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file()]
    if not files:
        raise ConfigError(f"{key}={pattern} matches no file")
    return files


def text_documents(files: Sequence[Path], origin: Origin, ledger: Ledger) -> Iterator[str]:
    """The documents of the files in their order. Raises ConfigError where one cannot be read, or too many are bad."""
    return ledger.sound(record for file in files for record in records_of(file, origin.key, origin.field))
