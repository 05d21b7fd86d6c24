"""Formats of text files: by suffix, in any case and compressed or not, and by what is in them."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from sae_sweep.data.fields import Record, Wanted
from sae_sweep.data.records import Bad, sound_text
from sae_sweep.data.tables import arrow_records, parquet_records
from sae_sweep.errors import ConfigError

PIECE_CHARACTERS = 16_384
_HEAD_BYTES = 65_536
_MAGICS = {
    b"PAR1": "Parquet; end its name in .parquet",
    b"ARROW1": "Arrow; end its name in .arrow",
    b"\x1f\x8b": "compressed by gzip; end its name in .gz",
    b"BZh": "compressed by bzip2; end its name in .bz2",
    b"\xfd7zXZ": "compressed by xz; end its name in .xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstandard; end its name in .zst",
    b"\x93NUMPY": "numpy's, which data=tokens reads",
    b"PK\x03\x04": "a zip archive; unpack it",
}
_OPENERS: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
    ".zst": lambda file: import_module("zstandard").open(file, "rb"),
}
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError)

Records: TypeAlias = Iterator[Record]
Reader: TypeAlias = Callable[[BinaryIO, str, Wanted], Records]
"""(the file's bytes, what messages call it, what is read of a record) -> its records."""


def records_of(file: Path, key: str, wanted: Wanted) -> Records:
    """The records of a file, each a document, null or bad. Raises ConfigError for a file that cannot be read."""
    where = f"{key}: {file}"
    try:
        with _opened(file, where) as stream:
            yield from _READERS.get(suffix_of(file), _pieces)(stream, where, wanted)
    except UNREADABLE as error:
        raise ConfigError(f"{where} cannot be read ({error})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where} is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except csv.Error as error:
        raise ConfigError(f"{where} is not CSV ({error})") from error


def says_format(file: Path) -> bool:
    """Whether the name of a file says what is in it, plain text among that."""
    return suffix_of(file) in SUFFIXES


def check_format(file: Path, key: str, field: str) -> None:
    """Raises ConfigError where the beginning of a file is not of the format that its suffix says."""
    status = file.stat()
    _check_format(file, key, field, status.st_mtime_ns, status.st_size)


@cache
def _check_format(file: Path, key: str, field: str, *version: int) -> None:
    """`version` of the file, so that each is looked at once for all members."""
    where = f"{key}: {file}"
    try:
        with _opened(file, where) as stream:
            head = stream.read(_HEAD_BYTES)
    except UNREADABLE as error:
        raise ConfigError(f"{where} cannot be read ({error})") from error
    suffix = suffix_of(file)
    if suffix in _BINARY:
        return
    found = next((name for magic, name in _MAGICS.items() if head.startswith(magic)), None)
    if found is not None:
        raise ConfigError(f"{where} is not of the format that its name says: it is {found}")
    if suffix in _READERS:
        return
    lines = head.decode("utf-8", errors="replace").splitlines()
    lines = lines[:-1] if len(head) == _HEAD_BYTES else lines
    if _is_json_lines(lines):
        raise ConfigError(f"{where} holds JSON lines, and its name says plain text; end it in .jsonl")
    if suffix != ".txt" and _is_csv(lines):
        raise ConfigError(f"{where} holds CSV, and its name does not say so; end it in .csv, or in .txt to read it so")


def suffix_of(file: Path) -> str:
    """That of the format, in lower case and without that of a compression."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in _OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _opened(file: Path, where: str) -> BinaryIO:
    packing = file.suffix.lower()
    if packing == ".zst" and find_spec("zstandard") is None:
        raise ConfigError(f"{where} needs the package zstandard to be read: pip install zstandard")
    return cast(BinaryIO, _OPENERS[packing](file) if packing in _OPENERS else file.open("rb"))


def _is_json_lines(lines: list[str]) -> bool:
    some = [line for line in lines if line.strip()][:2]
    try:
        return bool(some) and all(isinstance(json.loads(line), dict) for line in some)
    except ValueError:
        return False


def _is_csv(lines: list[str]) -> bool:
    """Whether lines have a header of names and as many cells each, which prose and code do not."""
    rows = list(csv.reader(lines[:20]))
    names = rows[0] if len(rows) > 2 else []
    named = len(names) > 1 and len(set(names)) == len(names) and all(name.strip().isidentifier() for name in names)
    return named and all(len(row) == len(names) for row in rows)


def _pieces(stream: BinaryIO, where: str, wanted: Wanted) -> Records:
    """A file as documents of about PIECE_CHARACTERS, cut at line ends: a short file is one document.

    A long one need not be in memory at once, and the first of its pieces can be held out from the others.
    """
    lines: list[str] = []
    length = 0
    for line in io.TextIOWrapper(stream, encoding="utf-8-sig"):
        lines.append(line)
        length += len(line)
        if length >= PIECE_CHARACTERS:
            yield "".join(lines)
            lines, length = [], 0
    if lines:
        yield "".join(lines)


def _json_lines(stream: BinaryIO, where: str, wanted: Wanted) -> Records:
    # Lines are read as bytes: a text-mode reader would decode ahead and could not say which line is broken.
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield _json_line(line, f"{where} line {number}", wanted)


def _json_line(line: bytes, where: str, wanted: Wanted) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are both ValueErrors
        return Bad("is not JSON", f"{where} is not JSON: {error}")
    return wanted.document(record, where)


def _json(stream: BinaryIO, where: str, wanted: Wanted) -> Records:
    """A list of records or texts, one record, or JSON lines after all."""
    content = stream.read()
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return _json_lines(io.BytesIO(content), where, wanted)
    listed = whole if isinstance(whole, list) else [whole]
    return (
        sound_text(record, f"{where} record {number}", "it")
        if isinstance(record, str) and not wanted.chat
        else wanted.document(record, f"{where} record {number}")
        for number, record in enumerate(listed, start=1)
    )


def _table(stream: BinaryIO, where: str, wanted: Wanted, delimiter: str = ",") -> Records:
    csv.field_size_limit(2**31 - 1)
    rows = csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), delimiter=delimiter)
    names = rows.fieldnames or []
    if not wanted.chat and wanted.field not in names:
        raise ConfigError(f"{where} has no column data.field={wanted.field}; it has {', '.join(names) or 'none'}")
    for row in rows:
        if None in row.values():
            yield Bad("has too few cells", f"{where} line {rows.line_num} has too few cells")
        else:
            yield wanted.document(row, f"{where} line {rows.line_num}")


_BINARY: dict[str, Reader] = {".parquet": parquet_records, ".arrow": arrow_records}
_READERS: dict[str, Reader] = {
    **_BINARY,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _table,
    ".tsv": lambda stream, where, wanted: _table(stream, where, wanted, "\t"),
}
SUFFIXES = (".txt", *_READERS)
"""Of files that hold documents for certain; others are text where they are named."""
