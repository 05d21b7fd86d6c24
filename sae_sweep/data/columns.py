"""One column of a dataset of the `datasets` library: on the hub, in a local folder, or saved to disk.

The library takes over a second to import, so it is imported only where a dataset is opened.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sae_sweep.data.origin import Origin
from sae_sweep.data.packing import PackedText, RowFormat, RowSource, Tokenizer, TokenRows
from sae_sweep.errors import ConfigError

_BATCH_ROWS = 256
_SAVED_MARKS = ("state.json", "dataset_dict.json")  # what `save_to_disk` leaves in the folder


class Column:
    """The values of `data.field`, in the dataset's own order, readable again from the start."""

    def __init__(self, origin: Origin) -> None:
        """Opens the dataset and looks at its first row. ConfigError when that cannot be done."""
        self.origin = origin
        dataset, first = _open(origin)
        if first is None:
            raise ConfigError(f"{origin.label} ({origin.split_key}={origin.split}) has no rows")
        if origin.field not in first:
            raise ConfigError(f"data.field={origin.field} is no column of {origin.label}; it has {', '.join(first)}")
        self.content = self._content_of(first[origin.field])
        self._dataset = dataset.select_columns([origin.field])

    def _content_of(self, value: Any) -> Literal["text", "ids"]:
        if isinstance(value, str):
            return "text"
        if isinstance(value, list) and value and type(value[0]) is int:
            return "ids"
        kind = f"list of {type(value[0]).__name__}" if isinstance(value, list) and value else type(value).__name__
        raise ConfigError(
            f"data.field={self.origin.field} of {self.origin.label} holds {kind}: neither text nor lists of token ids"
        )

    def rows(self, tokenizer: Tokenizer | None, form: RowFormat) -> RowSource:
        """The rows of its documents or of its ids. ConfigError for documents without a tokenizer."""
        if self.content == "ids":
            return TokenRows(self.sheets, form, self.origin.label, kept=False)
        return PackedText(self.documents, tokenizer, form, self.origin.label, kept=False)

    def batches(self) -> Iterator[list[Any]]:
        """The values, some hundreds at a time, from the first."""
        for batch in self._dataset.iter(batch_size=_BATCH_ROWS):
            yield batch[self.origin.field]

    def documents(self) -> Iterator[str]:
        """The documents of a text column; empty ones are left out."""
        for batch in self.batches():
            for document in filter(None, batch):
                if not isinstance(document, str):
                    kind = type(document).__name__
                    raise ConfigError(f"data.field={self.origin.field} of {self.origin.label} holds {kind}, not text")
                yield document

    def sheets(self) -> Iterator[npt.NDArray[Any]]:
        """The rows of a column of lists: one sheet per batch where all are of one length, else one per row."""
        for batch in self.batches():
            same = len({len(ids) if isinstance(ids, list) else -1 for ids in batch}) == 1
            for rows in [batch] if same else [[ids] for ids in batch]:
                sheet = np.array(rows)
                if sheet.ndim != 2:
                    raise ConfigError(
                        f"data.field={self.origin.field} of {self.origin.label} has a row that is no list of ids"
                    )
                yield sheet


def _open(origin: Origin) -> tuple[Any, dict[str, Any] | None]:
    """A Dataset or IterableDataset of plain Python values, and its first row."""
    import datasets

    path = origin.single_path()
    local = Path(path).expanduser()
    try:
        if local.suffix == ".arrow":
            opened = datasets.Dataset.from_file(str(local))
        elif any((local / mark).exists() for mark in _SAVED_MARKS):
            opened = _split_of(datasets.load_from_disk(str(local)), origin)
        else:
            source = str(local) if local.exists() else path
            opened = datasets.load_dataset(source, origin.name, split=origin.split, streaming=True)
        dataset = opened.with_format(None)  # a saved dataset may remember to hand out tensors
        return dataset, next(iter(dataset), None)  # much of what can be wrong shows only when a stream is read
    except ConfigError:
        raise
    except Exception as error:  # the library, its backends and the hub raise types of their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"{origin.label} ({origin.split_key}={origin.split}) could not be opened: {reason}"
        ) from error


def _split_of(saved: Any, origin: Origin) -> Any:
    """The asked split of a folder that was saved with several."""
    if not isinstance(saved, dict):
        return saved
    if origin.split not in saved:
        raise ConfigError(f"{origin.split_key}={origin.split} is no split of {origin.label}; it has {', '.join(saved)}")
    return saved[origin.split]
