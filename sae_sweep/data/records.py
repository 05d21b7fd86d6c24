"""The records of a source: which hold a document, which are empty, and which are bad and skipped, up to a share."""

import logging
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any, TypeVar

from sae_sweep.errors import ConfigError

_SETTLED = 10_000
"""Records after which the share of bad ones is known well enough to stop before the end."""

Document = TypeVar("Document", bound=Sized)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bad:
    """A record that holds no document."""

    kind: str
    """What is wrong with it, whichever record it is."""
    text: str
    """The same with its file and line: "data.path: a.jsonl line 7 is not JSON"."""


@dataclass(frozen=True)
class LeftOut:
    """A record that `data.filter` leaves out."""


class Ledger:
    """Counts what the records of a source were, in the pass over it that is going on."""

    def __init__(self, label: str, share: float) -> None:
        """`share` of the records may be bad: `data.max_bad_records`."""
        self.read = self.empty = self.bad = self.left_out = 0
        self._label, self._share = label, share
        self._told: set[str] = set()

    def sound(self, records: Iterator[Document | Bad | LeftOut | None]) -> Iterator[Document]:
        """The documents among the records. Raises ConfigError where too many of them are bad: among the first ten
        thousand more than their share of those, and at any later point or at the end of the share of all read."""
        self.read = self.empty = self.bad = self.left_out = 0
        first: Bad | None = None
        for record in records:
            self.read += 1
            if isinstance(record, Bad):
                self.bad += 1
                first = first or record
                if self.bad > self._share * max(self.read, _SETTLED):
                    raise self._too_many(first)
                self._tell(record)
            elif isinstance(record, LeftOut):
                self.left_out += 1
            elif record is None or len(record) == 0:
                self.empty += 1
            else:
                yield record
        if first is not None and self.bad > self._share * self.read:
            raise self._too_many(first)
        if self.left_out and self.left_out == self.read:
            raise ConfigError(f"{self._label}: data.filter leaves out each of its {self.read} records")

    def _tell(self, record: Bad) -> None:
        if record.kind not in self._told:
            self._told.add(record.kind)
            log.warning("%s; the record is skipped, and others like it are only counted", record.text)

    def _too_many(self, first: Bad) -> ConfigError:
        return ConfigError(
            f"{self._label}: {self.bad} of {self.read} records read are bad, more than data.max_bad_records="
            f"{self._share:g} of them; the first: {first.text}"
        )

    def said(self) -> str:
        """What was left out, in words; empty where nothing was."""
        counts = ((self.left_out, "filtered"), (self.empty, "empty"), (self.bad, "bad"))
        return " and ".join(f"{number:,} {kind}" for number, kind in counts if number)


def sound_text(value: Any, where: str, name: str) -> str | Bad | None:
    """A document of text as it was read, None for null, or what is wrong with it. `name` says which value it is."""
    if value is None:
        return None
    if not isinstance(value, str):
        kind = f"{name} holds {type(value).__name__}, not text"
        return Bad(kind, f"{where}: {kind}")
    try:
        value.encode()
    except UnicodeEncodeError:
        kind = f"{name} holds a lone surrogate, which is no character"
        return Bad(kind, f"{where}: {kind}")
    return value
