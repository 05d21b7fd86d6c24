"""From documents or token ids to packed rows: [rows, context] int32, every position filled, no padding."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sae_sweep.data.records import Ledger
from sae_sweep.errors import ConfigError, one_line

Ids = npt.NDArray[np.int32]
Documents = Callable[[], Iterator[str]]

_BATCH_DOCUMENTS = 512
_BATCH_CHARACTERS = 500_000


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def eos_token_id(self) -> int | None: ...
    @property
    def all_special_ids(self) -> list[int]: ...
    def __call__(self, text: list[str], **options: bool) -> Any: ...


@dataclass(frozen=True)
class RowFormat:
    """What a row must look like."""

    context: int
    bos_id: int | None
    """The id each row of text begins with; None where rows begin with any token."""
    vocab_size: int
    ids_begin_so: bool = False
    """Whether rows of ids, which are used as they are, must begin with it too."""
    alone: bool = False
    """Whether a document of text begins a row of its own (`data.packing=document`)."""
    apart: bool = False
    """Whether a document is read without those before it in its row, and so begins as a row does."""


class RowSource(Protocol):
    """Rows that can be read again from the start, and the documents they come from."""

    label: str
    """The key and value that named the source, for messages."""
    kept: bool
    """Whether rows once read stay in memory, because reading them again would cost more."""
    dropped: int
    """Tokens that no row has, of the latest pass that came to the end."""
    ledger: Ledger | None
    """What its records were, where it has records."""

    def head(self, rows: int) -> tuple[Ids, int]:
        """All rows of the fewest first documents that give at least `rows` rows, and the number of those documents.

        Fewer rows only where the source has no more.
        """
        ...

    def rows_after(self, documents: int) -> Iterator[Ids]:
        """The rows of all but the first `documents` documents, some at a time: arrays [n, context]."""
        ...


def check_integers(ids: npt.NDArray[Any], label: str) -> None:
    """ConfigError for what cannot be token ids."""
    if not np.issubdtype(ids.dtype, np.integer):
        raise ConfigError(f"{label} holds {ids.dtype} values; token ids are integers")


def checked_ids(ids: npt.NDArray[Any], vocab_size: int, label: str) -> Ids:
    """The ids as int32. ConfigError when they are no integers or outside the vocabulary."""
    check_integers(ids, label)
    if ids.size:
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocab_size:
            bad = low if low < 0 else high
            raise ConfigError(
                f"{label} holds token id {bad}; the model's vocabulary of {vocab_size} ends at {vocab_size - 1}"
            )
    return ids.astype(np.int32, copy=False)


class PackedText:
    """Documents tokenised without special tokens, laid end to end with a separator between them, and cut into rows."""

    def __init__(
        self,
        documents: Documents,
        tokenizer: Tokenizer | None,
        form: RowFormat,
        label: str,
        kept: bool,
        ledger: Ledger | None = None,
    ) -> None:
        """ConfigError where there is no tokenizer."""
        if tokenizer is None:
            raise ConfigError(f"{label} is text, and the model has no tokenizer for it; give token ids (data=tokens)")
        self.label = label
        self.kept = kept
        self.dropped = 0
        self.ledger = ledger
        self._documents = documents
        self._tokenizer = tokenizer
        self._form = form
        separator = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.bos_token_id
        between = separator is not None and not form.alone
        begun = [form.bos_id] if form.apart and form.bos_id not in (None, separator) else []
        self._separator = np.array([separator, *begun] if between else [], dtype=np.int32)
        self._filler = np.int32(~(separator or 0))
        self._body = form.context - (form.bos_id is not None)

    def head(self, rows: int) -> tuple[Ids, int]:
        parts: list[Ids] = []
        length = taken = 0
        for batch in self._tokenised(0):
            for ids in batch:
                if length // self._body >= rows:
                    return self._cut(parts)[0], taken
                if len(ids):
                    piece = np.concatenate([self._separator, ids]) if parts else ids
                    parts.append(piece)
                    length += len(piece)
                taken += 1
        return self._cut(parts)[0], taken

    def rows_after(self, documents: int) -> Iterator[Ids]:
        rest: list[Ids] = []
        begun = False
        for batch in self._tokenised(documents):
            for ids in batch:
                if len(ids):
                    rest += [self._separator, ids] if begun else [ids]
                    begun = True
            rows, left = self._cut(rest)
            rest = [left]
            if len(rows):
                yield rows
        self.dropped = sum(map(len, rest))

    def _cut(self, parts: Sequence[Ids]) -> tuple[Ids, Ids]:
        """As many whole rows as the parts give, and the tokens left over."""
        tokens = np.concatenate([np.empty(0, dtype=np.int32), *parts])
        used = len(tokens) // self._body * self._body
        rows = tokens[:used].reshape(-1, self._body)
        if self._form.bos_id is not None:
            rows = np.insert(rows, 0, self._form.bos_id, axis=1)
        return rows, tokens[used:]

    def _tokenised(self, skip: int) -> Iterator[list[Ids]]:
        """The ids of each document after the first `skip`, in batches: a fast tokenizer works on many at once."""
        for batch in _batches(islice(self._documents(), skip, None)):
            encoded = self._encoded(batch)
            checked = [self._filled(self._checked(ids)) for ids in encoded["input_ids"]]
            del batch, encoded  # a hundred times as large, and a generator that waits would keep them
            yield checked

    def _encoded(self, batch: list[str], **more: bool) -> Any:
        """What the tokenizer makes of documents. Raises ConfigError for one that cannot read them."""
        # verbose: else it warns of documents longer than the model's context, which are cut here
        options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False, **more}
        try:
            return self._tokenizer(batch, add_special_tokens=False, **options)
        except Exception as error:  # tokenizers is Rust, whose errors arrive as bare Exception
            what = one_line(error)
            raise ConfigError(
                f"{self.label}: the model's tokenizer cannot read it ({type(error).__name__}: {what})"
            ) from error

    def _filled(self, ids: Ids) -> Ids:
        """The ids of a document, where it is to be alone in its rows with what fills the last, which does not count.

        Attention looks back only, so that nothing need be masked.
        """
        if not self._form.alone:
            return ids
        if self._form.bos_id is not None and len(ids) and ids[0] in (self._form.bos_id, ~self._form.bos_id):
            ids = ids[1:]  # a template's own: rows begin with one already
        return np.concatenate([ids, np.full(-len(ids) % self._body, self._filler)])

    def _checked(self, ids: Sequence[int]) -> Ids:
        return checked_ids(
            np.array(ids, dtype=np.int64), self._form.vocab_size, f"the tokenizer's text of {self.label}"
        )


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document)
        if len(batch) >= _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class TokenRows:
    """Rows cut from rows of token ids, which are used as they are; a position that does not count holds ~id.

    A sheet is an array [n, length] of source rows of one length. A source row counts as a document. What is over a
    multiple of context is trained on in one more row, whose other positions, at its beginning, do not count.
    """

    def __init__(self, sheets: Callable[[], Iterator[Ids]], form: RowFormat, label: str, kept: bool) -> None:
        self.label = label
        self.kept = kept
        self.dropped = 0
        self.ledger: Ledger | None = None
        self._sheets = sheets
        self._form = form

    @classmethod
    def of_sheet(cls, sheet: npt.NDArray[Any], form: RowFormat, label: str) -> "TokenRows":
        """Of one sheet in memory, whose ids all count."""
        ids = checked_ids(sheet, form.vocab_size, label)
        return cls(lambda: iter([ids]), form, label, kept=True)

    def head(self, rows: int) -> tuple[Ids, int]:
        parts = [np.empty((0, self._form.context), dtype=np.int32)]
        missing, taken = rows, 0
        for sheet in self._sheets():
            if missing <= 0:
                break
            cut, source = self._cut(sheet, rest=False)
            documents = len(sheet) if len(cut) < missing else int(source[missing - 1]) + 1
            parts.append(cut[: int(np.searchsorted(source, documents))])
            missing -= len(parts[-1])
            taken += documents
        return np.concatenate(parts), taken

    def rows_after(self, documents: int) -> Iterator[Ids]:
        skip = documents
        for sheet in self._sheets():
            if len(sheet) > skip:
                yield self._cut(sheet[skip:], rest=not self._form.ids_begin_so)[0]
            skip = max(0, skip - len(sheet))

    def _cut(self, sheet: Ids, *, rest: bool) -> tuple[Ids, npt.NDArray[np.int64]]:
        """The rows of a sheet, with `rest` those too that end a source row, and the number of each one's source row."""
        length, context = sheet.shape[1], self._form.context
        if length < context:
            raise ConfigError(
                f"{self.label} has a row of {length} tokens, fewer than data.context={context}; lower data.context"
            )
        whole, over = divmod(length, context)
        rows, pieces = sheet[:, : whole * context].reshape(-1, context), whole
        if over and rest:
            last = sheet[:, -context:].copy()
            last[:, :-over] = np.where(last[:, :-over] < 0, last[:, :-over], ~last[:, :-over])
            rows = np.concatenate([rows.reshape(-1, whole, context), last[:, None]], axis=1).reshape(-1, context)
            pieces += 1
        source = np.arange(len(sheet)).repeat(pieces)
        if rows.min(initial=0) < 0:
            counted = (rows >= 0).any(1)
            rows, source = rows[counted], source[counted]
        if self._form.ids_begin_so and not (np.maximum(rows[:, 0], ~rows[:, 0]) == self._form.bos_id).all():
            raise ConfigError(
                f"data.bos=always, but {self.label} has rows that do not begin with BOS (id {self._form.bos_id}); "
                "token ids are used as they are, so take data.bos=auto"
            )
        return rows, source
