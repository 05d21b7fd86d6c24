"""Text from files: which files, and the documents in them."""

import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from sae_sweep.data.origin import Origin
from sae_sweep.errors import ConfigError

PIECE_CHARACTERS = 16_384


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
        return [path]
    if not glob.has_magic(pattern):
        raise ConfigError(f"{key}={pattern} does not exist")
    files = [Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file()]
    if not files:
        raise ConfigError(f"{key}={pattern} matches no file")
    return files


def text_documents(files: Sequence[Path], origin: Origin) -> Iterator[str]:
    """The pieces of each file, or the lines of a `.jsonl` file; empty documents are left out."""
    for file in files:
        documents = _json_documents(file, origin) if file.suffix == ".jsonl" else _pieces(file, origin)
        yield from filter(None, documents)


def _pieces(file: Path, origin: Origin) -> Iterator[str]:
    """A file as documents of about PIECE_CHARACTERS, cut at line ends: a short file is one document.

    A long one need not be in memory at once, and the first of its pieces can be held out from the others.
    """
    lines: list[str] = []
    length = 0
    try:
        with file.open(encoding="utf-8") as text:
            for line in text:
                lines.append(line)
                length += len(line)
                if length >= PIECE_CHARACTERS:
                    yield "".join(lines)
                    lines, length = [], 0
    except UnicodeDecodeError as error:
        raise _not_utf8(file, origin, error) from error
    yield "".join(lines)


def _not_utf8(file: Path, origin: Origin, error: UnicodeDecodeError) -> ConfigError:
    return ConfigError(f"{origin.key}: {file} is not UTF-8 text ({error.reason} at byte {error.start})")


def _json_documents(file: Path, origin: Origin) -> Iterator[str]:
    # Lines are read as bytes: a text-mode reader would decode ahead and could not say which line is broken.
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _json_document(line, f"{origin.key}: {file} line {number}", origin)


def _json_document(line: bytes, where: str, origin: Origin) -> str:
    try:
        record = json.loads(line)
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both ValueErrors
        raise ConfigError(f"{where} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ConfigError(f"{where} must be an object with the field data.field={origin.field}")
    if origin.field not in record:
        raise ConfigError(f"{where} has no field data.field={origin.field}; it has {', '.join(sorted(record))}")
    document = record[origin.field]
    if not isinstance(document, str):
        raise ConfigError(f"{where}: data.field={origin.field} holds {type(document).__name__}, not text")
    return document
