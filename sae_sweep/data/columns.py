"""One column of a dataset of the `datasets` library: on the hub, in a local folder, or saved to disk.

The library takes over a second to import, so it is imported only where a dataset is opened.
"""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sae_sweep.data.chats import ChatText
from sae_sweep.data.companions import encoded, told_companions
from sae_sweep.data.fields import MISSING, Record, texts, value_at
from sae_sweep.data.hub_commit import ask_commit
from sae_sweep.data.origin import Origin
from sae_sweep.data.packing import Ids, PackedText, RowFormat, RowSource, Tokenizer, TokenRows
from sae_sweep.data.records import Bad, Ledger
from sae_sweep.errors import ConfigError, first_line
from sae_sweep.host.network import look_at_hub

_BATCH_ROWS = 256
_SAVED_MARKS = ("state.json", "dataset_dict.json")  # what `save_to_disk` leaves in the folder

_BUILDERS = {".parquet": "parquet", ".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv"}
_PACKED = (".gz", ".bz2", ".xz", ".zst")


class Column:
    """The values of `data.field`, in the dataset's own order, readable again from the start."""

    def __init__(self, origin: Origin, max_bad_records: float) -> None:
        """Opens the dataset and looks at its first rows. ConfigError when that cannot be done."""
        self.origin = origin
        self._ledger = Ledger(origin.label, max_bad_records)
        dataset, first = _open(origin)
        if not first:
            raise ConfigError(f"{origin.label} ({origin.split_key}={origin.split}) has no rows")
        self.content = "chat" if origin.wanted.chat else self._content_of(self._first_value(first))
        ids = self.content == "ids"
        self._beside = told_companions(list(first[0]), origin.field, origin.label) if ids else []
        read = [origin.field, *self._beside] if ids else origin.wanted.columns
        absent = [name for name in origin.wanted.filter or () if value_at(first[0], name) is MISSING]
        if absent:
            raise ConfigError(f"data.filter: {absent[0]} is no column of {origin.label}; it has {', '.join(first[0])}")
        self._columns = [name for name in read if name in first[0]]
        self._dataset = dataset.select_columns(self._columns)

    def _first_value(self, first: list[dict[str, Any]]) -> Any:
        """The first value of the column that is not empty."""
        values = [value_at(row, self.origin.field) for row in first]
        if MISSING in values:
            raise ConfigError(
                f"data.field={self.origin.field} is no column of {self.origin.label}; it has {', '.join(first[0])}"
            )
        return next(filter(None, values), values[0])

    def _content_of(self, value: Any) -> Literal["text", "ids", "chat"]:
        if isinstance(value, str):
            return "text"
        if isinstance(value, list) and value and type(value[0]) is int:
            return "ids"
        kind = f"list of {type(value[0]).__name__}" if isinstance(value, list) and value else type(value).__name__
        raise ConfigError(
            f"data.field={self.origin.field} of {self.origin.label} holds {kind}: neither text nor lists of token ids"
        )

    def rows(self, tokenizer: Tokenizer | None, form: RowFormat, positions_of: str = "all") -> RowSource:
        """The rows of its documents, conversations or ids. ConfigError for documents without a tokenizer."""
        if self.content == "chat":
            return ChatText(self._documents, tokenizer, form, self.origin.label, False, self._ledger, positions_of)
        if self.content == "text":
            return PackedText(self.documents, tokenizer, form, self.origin.label, kept=False, ledger=self._ledger)
        rows = TokenRows(lambda: self._sheets(form.vocab_size), form, self.origin.label, kept=False)
        rows.ledger = self._ledger
        return rows

    def documents(self) -> Iterator[str]:
        """The documents of a text column; empty ones are left out."""
        return self._ledger.sound(texts(self._documents()))

    def _documents(self) -> Iterator[Record]:
        for number, row in self._records():
            record = dict(zip(self._columns, row, strict=True))
            yield self.origin.wanted.document(record, f"{self.origin.label} row {number}")

    def _records(self) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """The number of each row, from 1, and its values: of the column, and of those beside it."""
        number = 0
        try:
            for batch in self._dataset.iter(batch_size=_BATCH_ROWS):
                for row in zip(*(batch[name] for name in self._columns), strict=True):
                    number += 1
                    yield number, row
        except ConfigError:
            raise
        except Exception as error:  # datasets hands on what pyarrow, fsspec and the hub raise, which share no type
            reason = first_line(error)
            raise ConfigError(
                f"{self.origin.label} cannot be read after row {number} ({reason}); data=text reads files of text and"
                " skips bad records"
            ) from error

    def _sheets(self, vocab_size: int) -> Iterator[Ids]:
        """The rows of a column of lists: one sheet per batch where all are of one length, else one per row."""
        rows = self._ledger.sound(self._ids(number, row, vocab_size) for number, row in self._records())
        while batch := list(islice(rows, _BATCH_ROWS)):
            same = len({len(ids) for ids in batch}) == 1
            for part in [batch] if same else [[ids] for ids in batch]:
                yield np.stack(part)

    def _ids(self, number: int, row: tuple[Any, ...], vocab_size: int) -> Ids | Bad | None:
        """A row of ids as sheets hold it. ConfigError for ids beyond the vocabulary and companions that do not fit."""
        if row[0] is None or row[0] == []:
            return None
        try:
            values = [np.array([value]) for value in row]
        except ValueError:  # lists of different lengths in it
            values = []
        if not values or values[0].ndim != 2 or not np.issubdtype(values[0].dtype, np.integer):
            kind = f"data.field={self.origin.field} of {self.origin.label} has a row that is no list of ids"
            return Bad(kind, f"{kind}: row {number}")
        ids, *beside = values
        label = f"{self.origin.label} row {number}" if beside else self.origin.label
        found = encoded(ids, dict(zip(self._beside, beside, strict=True)), vocab_size, label)
        return found[0] if len(found) else None


def _open(origin: Origin) -> tuple[Any, list[dict[str, Any]]]:
    """A Dataset or IterableDataset of plain Python values, and its first rows."""
    import datasets

    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # what it raises says the same, and we do
    path = origin.single_path()
    local = Path(path).expanduser()
    try:
        if local.suffix == ".arrow":
            opened = datasets.Dataset.from_file(str(local))
        elif any((local / mark).exists() for mark in _SAVED_MARKS):
            opened = _split_of(datasets.load_from_disk(str(local)), origin)
        else:
            opened = _load(datasets, local, path, origin)
        dataset = opened.with_format(None)  # a saved dataset may remember to hand out tensors
        return dataset, _first_rows(dataset, origin.field)  # much of what can be wrong shows only when it is read
    except ConfigError:
        raise
    except Exception as error:  # pyarrow's, fsspec's, the hub's and the builders' own errors share no type
        reason = first_line(error)
        raise ConfigError(
            f"{origin.label} ({origin.split_key}={origin.split}) could not be opened: {reason}"
        ) from error


def _load(datasets: Any, local: Path, path: str, origin: Origin) -> Any:
    """What the library opens: a file of a format it reads, a folder of them, or a dataset of the hub."""
    whole = "[" not in origin.split  # a slice, `train[:10%]`, needs to know how long the whole is
    if local.is_file():
        suffixes = [suffix for suffix in map(str.lower, local.suffixes) if suffix not in _PACKED]
        if not suffixes or suffixes[-1] not in _BUILDERS:
            raise ConfigError(f"{origin.label} is a file that data.kind=text may read; take data=text")
        files = {"train": str(local)}
        return datasets.load_dataset(_BUILDERS[suffixes[-1]], data_files=files, split=origin.split, streaming=whole)
    if not whole and not local.exists():
        raise ConfigError(
            f"{origin.split_key}={origin.split}: a slice of a hub dataset cannot be streamed; take the whole split, or"
            " save the slice (load_dataset, save_to_disk) and give data.path that folder"
        )
    if local.exists():
        return datasets.load_dataset(str(local), origin.name, split=origin.split, streaming=whole)
    look_at_hub()
    commit = ask_commit(path)
    return datasets.load_dataset(path, origin.name, split=origin.split, streaming=whole, revision=commit)


def _first_rows(dataset: Any, field: str) -> list[dict[str, Any]]:
    """The rows up to the first that is not empty, or some hundreds."""
    rows: list[dict[str, Any]] = []
    for row in islice(iter(dataset), _BATCH_ROWS):
        rows.append(row)
        if value_at(row, field):
            break
    return rows


def _split_of(saved: Any, origin: Origin) -> Any:
    """The asked split of a folder that was saved with several."""
    if not isinstance(saved, dict):
        return saved
    if origin.split not in saved:
        raise ConfigError(f"{origin.split_key}={origin.split} is no split of {origin.label}; it has {', '.join(saved)}")
    return saved[origin.split]
