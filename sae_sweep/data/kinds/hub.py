"""A text dataset of the Hugging Face hub, or in its formats, streamed: `data=hub data.path=ID`."""

from typing import TYPE_CHECKING

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.origin import HELDOUT_KEYS, Origin, files_at, opened

if TYPE_CHECKING:
    from sae_sweep.data.packing import RowFormat, RowSource, Tokenizer

MODEL = TOKENIZES = True
READS = ("path", "name", "heldout_path", "heldout_split", "filter", "packing", "chat", "weights", "attention")
HELDOUT = HELDOUT_KEYS
files = files_at


def check(config: DataConfig) -> None:
    opened(config, Origin.single_path)


def note(config: DataConfig) -> None:
    """It goes without saying."""


def open_rows(
    config: DataConfig, tokenizer: "Tokenizer | None", form: "RowFormat"
) -> "tuple[RowSource, RowSource | None]":
    from sae_sweep.data.columns import Column

    return opened(
        config, lambda origin: Column(origin, config.max_bad_records).rows(tokenizer, form, config.positions_of)
    )
