"""Kinds of data: tokens that a language model reads, or activations that are made without one; a file each.

Another package adds one by an entry point of the group `sae_sweep.data`. What a module must have is its protocol here.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

from sae_sweep.config.schema import DataConfig
from sae_sweep.errors import ConfigError
from sae_sweep.host.kinds import Kinds

if TYPE_CHECKING:  # planning asks kinds too, without numpy and torch
    from torch import Tensor

    from sae_sweep.data.origin import Origin
    from sae_sweep.data.packing import RowFormat, RowSource, Tokenizer
    from sae_sweep.data.stored.feed import Feed

KINDS = Kinds("sae_sweep.data.kinds", "sae_sweep.data")
Part: TypeAlias = Literal["training", "heldout"]


class DataKind(Protocol):
    """What every kind says of itself."""

    MODEL: bool
    """Whether a language model reads it: a TokenKind; else it is a ModellessKind."""
    TOKENIZES: bool
    """Whether documents of text are held in memory and tokenised."""
    READS: tuple[str, ...]
    """Which of the keys of data.* that may be null are read: path, name, heldout_path, heldout_split, toy."""
    HELDOUT: tuple[str, ...]
    """The keys of data.* from which the held-out tokens follow: a cell of the report is of one value of each."""

    def check(self, config: DataConfig) -> None:
        """Raises ConfigError for what can be told from the config and the presence of files. Imports no torch."""

    def files(self, origin: "Origin") -> list[Path] | None:
        """The local files of a path of data.*, where it reads paths; None for what is of the hub."""

    def note(self, config: DataConfig) -> str | None:
        """What a plan says of how it is read, where that goes not without saying. Imports no torch."""

    # A kind whose text is no path's may have `own_files() -> (whose, folder, names in it)`, by which it is known.


class TokenKind(DataKind, Protocol):
    """Rows of tokens."""

    def open_rows(
        self, config: DataConfig, tokenizer: "Tokenizer | None", form: "RowFormat"
    ) -> "tuple[RowSource, RowSource | None]":
        """The rows to train on, and the held-out set's own, or None where it is the first documents of the others.

        Raises ConfigError where they cannot be opened or do not fit the model.
        """


class ModellessKind(DataKind, Protocol):
    """Activations that no model is loaded for. `data` is the group's keys, as an old sweep's config.yaml has them."""

    STORED: bool
    """Whether they are read from files (`open_stored`), or made (`open_synthetic`)."""
    NOUN: str
    """What they are called: synthetic activations."""
    MEANING: str
    """What a reader of a report must know of them, in a sentence or two."""

    def dimensions(self, config: DataConfig) -> int:
        """How many numbers an activation has."""

    def title(self, data: Mapping[str, Any]) -> str:
        """What they are like, in some words."""

    def facts(self, data: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What the report says of them: names and values."""

    def open_synthetic(self, config: DataConfig) -> "Synthetic":
        """What makes them."""

    def open_stored(self, config: DataConfig, evaluation_tokens: float) -> "Feed":
        """Their rows. Raises ConfigError."""


class Synthetic(Protocol):
    """Synthetic activations, the same whenever they are drawn, as `data/toy.py` has them."""

    @property
    def truth_GD(self) -> "Tensor": ...
    def codes(self, part: Part, block: int, rows: int) -> "Iterator[Tensor]": ...
    def activations(self, part: Part, block: int, rows: int) -> "Iterator[tuple[Tensor, Tensor]]": ...


def data_kind(name: str) -> DataKind:
    """The kind of this name. Raises ConfigError where there is none."""
    if name not in KINDS:
        raise ConfigError(f"data.kind={name} is not one of {', '.join(KINDS)}")
    return cast(DataKind, KINDS[name])


def modelless_kind(name: str) -> ModellessKind | None:
    """The kind of this name where it needs no model; None where a language model reads it. Raises ConfigError."""
    kind = data_kind(name)
    return None if kind.MODEL else cast(ModellessKind, kind)
