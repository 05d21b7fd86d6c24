"""Conversations as the tokenizer's template lays them out, and which of their tokens count."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, cast

import numpy as np

from sae_sweep.data.fields import Conversation, Record
from sae_sweep.data.packing import Ids, PackedText, RowFormat, Tokenizer
from sae_sweep.data.records import Bad, Ledger, LeftOut
from sae_sweep.errors import ConfigError, one_line

_BATCH = 256
_MARK = "\ue000{}\ue001"
"""In the place of a message's text, of characters that no text has, to see where the template puts it."""


class ChatText(PackedText):
    """Rows of conversations. Each begins with its template's own tokens, so nothing is put between them."""

    def __init__(
        self,
        conversations: Callable[[], Iterator[Record]],
        tokenizer: Tokenizer | None,
        form: RowFormat,
        label: str,
        kept: bool,
        ledger: Ledger,
        positions_of: str,
    ) -> None:
        """Raises ConfigError where the tokenizer has no template, or cannot say which characters a token is of."""
        super().__init__(lambda: iter(()), tokenizer, form, label, kept, ledger)
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(f"data.chat=true: the tokenizer of the model has no chat template, which {label} needs")
        if not getattr(tokenizer, "is_fast", False):
            raise ConfigError("data.chat=true needs a fast tokenizer, which says which characters a token is of")
        self._conversations, self._positions_of, self._chats = conversations, positions_of, ledger
        self._separator = self._separator[:0]
        self._layout = lru_cache(maxsize=1024)(self._made_layout)

    def _tokenised(self, skip: int) -> Iterator[list[Ids]]:
        laid_out = self._chats.sound(self._laid_out(each) for each in self._conversations())
        found = islice(laid_out, skip, None)
        while batch := list(islice(found, _BATCH)):
            encoded = self._encoded([text for text, _ in batch], return_offsets_mapping=True)
            yield [
                self._filled(self._marked(self._checked(ids), np.array(offsets).reshape(-1, 2), spans))
                for ids, offsets, (_, spans) in zip(encoded["input_ids"], encoded["offset_mapping"], batch, strict=True)
            ]

    def _marked(self, ids: Ids, offsets_L2: Any, spans: Sequence[tuple[int, int]] | None) -> Ids:
        """The ids as rows hold them: ~id for a token that has no character in one of the spans."""
        if spans is None:
            return ids
        begin_L, end_L = offsets_L2[:, 0], offsets_L2[:, 1]
        counted_L = np.zeros(len(ids), dtype=bool)
        for start, stop in spans:
            counted_L |= (begin_L < stop) & (end_L > start) & (end_L > begin_L)
        return np.where(counted_L, ids, ~ids)

    def _laid_out(self, conversation: Record) -> "tuple[str, list[tuple[int, int]] | None] | Bad | LeftOut | None":
        """The text of a conversation, and where in it the texts of the role are that counts; None for all of it."""
        if isinstance(conversation, str) and conversation:
            kind = "is text, not a conversation"
            return Bad(kind, f"{self.label} {kind}")
        if not isinstance(conversation, tuple):
            return conversation if isinstance(conversation, Bad | LeftOut) else None
        if not conversation:
            return None
        try:
            text = self._rendered(conversation)
            if self._positions_of == "all":
                return text, None
            layout = self._layout(tuple(role for role, _ in conversation))
        except ValueError as error:
            kind = f"does not fit the chat template ({error})"
            return Bad(kind, f"{self.label}: a conversation {kind}")
        spans, at = [], 0
        for before, (role, content) in zip(layout, conversation, strict=False):
            both = (each for each in (content, content.strip()) if text.startswith(before + each, at))
            at, shown = at + len(before), next(both, None)
            if shown is None:
                kind = "has a message that the chat template does not show as it is"
                return Bad(kind, f"{self.label}: a conversation {kind}")
            if role == self._positions_of:
                spans.append((at, at + len(shown)))
            at += len(shown)
        return text, spans

    def _made_layout(self, roles: tuple[str, ...]) -> list[str]:
        """What the template puts before each message of these roles, and behind the last."""
        marks = [_MARK.format(number) for number in range(len(roles))]
        text, pieces = self._rendered(tuple(zip(roles, marks, strict=True))), []
        for mark in marks:
            before, found, text = text.partition(mark)
            if not found:
                raise ValueError("it leaves a message out")
            pieces.append(before)
        return [*pieces, text]

    def _rendered(self, conversation: Conversation) -> str:
        """Raises ValueError for what the template does not take."""
        messages = [{"role": role, "content": content} for role, content in conversation]
        try:
            return str(cast(Any, self._tokenizer).apply_chat_template(messages, tokenize=False))
        except Exception as error:  # a template is a program, which raises what it likes for roles it does not take
            raise ValueError(one_line(error)) from error
