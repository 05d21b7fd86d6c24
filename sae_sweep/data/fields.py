"""Which records of a source are read, and which part of one is its document: a field, or a conversation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from sae_sweep.data.records import Bad, LeftOut, sound_text

Conversation: TypeAlias = tuple[tuple[str, str], ...]
"""The role (system, user, assistant or another of the template's) and the text of each message."""
Record: TypeAlias = "str | Conversation | Bad | LeftOut | None"
"""What a record of a source was found to be."""
MESSAGES = ("messages", "conversations", "conversation")
ASKED = ("prompt", "instruction", "question")
ANSWERED = ("answer", "response", "completion", "output", "chosen")
"""Names of the fields of a conversation of one question, where there is no list of messages."""
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
"""What some datasets call them."""


@dataclass(frozen=True)
class Wanted:
    """What is read of a record."""

    field: str = "text"
    """`data.field`; with dots, a field of a field."""
    chat: bool = False
    """`data.chat`: the record is a conversation."""
    filter: Mapping[str, Any] | None = None
    """`data.filter`: the values that its fields must have."""

    @property
    def columns(self) -> list[str]:
        """The record's own fields that this may read."""
        chats = [*MESSAGES, *ASKED, *ANSWERED, "input"] if self.chat else []
        return list(dict.fromkeys(name.partition(".")[0] for name in (self.field, *chats, *(self.filter or {}))))

    def document(self, record: Any, where: str) -> Record:
        """The text or the conversation of a record; `where` says which one it is."""
        if record is None:
            return None
        if not isinstance(record, Mapping):
            return Bad("is no object", f"{where} must be an object with the field data.field={self.field}")
        if not all(_agrees(value_at(record, name), asked) for name, asked in (self.filter or {}).items()):
            return LeftOut()
        if self.chat:
            return _conversation(record, self.field, where)
        value = value_at(record, self.field)
        if value is MISSING:
            has = ", ".join(sorted(map(str, record)))
            return Bad("has no field", f"{where} has no field data.field={self.field}; it has {has}")
        return sound_text(value, where, f"data.field={self.field}")


def texts(records: Iterator[Record]) -> "Iterator[str | Bad | LeftOut | None]":
    """Records that were not asked for as conversations, and so are none."""
    return cast("Iterator[str | Bad | LeftOut | None]", records)


class _Missing:
    """What a record has under a name that it lacks; null is a value."""


MISSING = _Missing()


def value_at(record: Any, name: str) -> Any:
    """The value under a name, or under the parts of one with dots; MISSING where there is none."""
    if isinstance(record, Mapping) and name in record:
        return record[name]
    first, dot, rest = name.partition(".")
    return value_at(record[first], rest) if dot and isinstance(record, Mapping) and first in record else MISSING


def _agrees(value: Any, asked: Any) -> bool:
    """Whether a value is what was asked for, or one of them; CSV has words only, so they are compared as such too."""
    options = asked if isinstance(asked, Sequence) and not isinstance(asked, str) else [asked]
    return any(value == option or str(value) == str(option) for option in options)


def _conversation(record: Mapping[str, Any], name: str, where: str) -> Conversation | Bad | None:
    """The messages of a record: a list under `data.field` or a usual name, or a question and its answer."""
    found = next((value for each in (name, *MESSAGES) if isinstance(value := value_at(record, each), list)), None)
    if found is None:
        asked, answered = (
            next((record[each] for each in names if each in record), None) for names in (ASKED, ANSWERED)
        )
        if asked is None or answered is None:
            kind = f"has neither a list of messages (data.field={name}) nor a prompt and its answer"
            return Bad(kind, f"{where} {kind}; it has {', '.join(sorted(map(str, record)))}")
        more = record.get("input")  # of an instruction, as in Alpaca
        found = [("user", f"{asked}\n\n{more}" if more else asked), ("assistant", answered)]
    messages: list[tuple[str, str]] = []
    for message in found:
        one = _message(message)
        text = one if one is None else sound_text(one[1], where, f"a message of data.field={name}")
        if one is None or not isinstance(text, str):
            kind = f"has a message without a role or a text (data.field={name})"
            return text if isinstance(text, Bad) else Bad(kind, f"{where} {kind}")
        messages.append((one[0], text))
    return tuple(messages)


def _message(message: Any) -> tuple[str, Any] | None:
    """The role and text of a message, as datasets write them; None for what is none."""
    if isinstance(message, tuple):
        return message
    if not isinstance(message, Mapping):
        return None
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if isinstance(content, list):  # parts, of which only those of text can be read
        texts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        content = "".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else None
    if not isinstance(role, str) or content is None:
        return None
    return _ROLES.get(role, role), content
