"""Token ids made beforehand: `data=tokens data.path=FILE`, or a saved dataset, or a hub id."""

from typing import TYPE_CHECKING

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.origin import HELDOUT_KEYS, Origin, files_at, opened, origins
from sae_sweep.errors import ConfigError

if TYPE_CHECKING:
    from sae_sweep.data.packing import RowFormat, RowSource, Tokenizer

MODEL, TOKENIZES = True, False
READS = ("path", "name", "heldout_path", "heldout_split", "weights", "attention")
HELDOUT = HELDOUT_KEYS
files = files_at


def check(config: DataConfig) -> None:
    train, heldout = origins(config)
    if config.heldout_split is not None and (heldout or train).is_array:
        raise ConfigError(f"data.heldout_split={config.heldout_split}: files have no splits; take data.heldout_path")
    opened(config, Origin.single_path)


def note(config: DataConfig) -> None:
    """It goes without saying."""


def open_rows(
    config: DataConfig, tokenizer: "Tokenizer | None", form: "RowFormat"
) -> "tuple[RowSource, RowSource | None]":
    from sae_sweep.data.arrays import array_rows
    from sae_sweep.data.columns import Column

    def open_one(origin: Origin) -> "RowSource":
        if origin.is_array:
            return array_rows(origin, form)
        column = Column(origin, config.max_bad_records)
        if column.content == "text":
            raise ConfigError(f"data.field={origin.field} of {origin.label} holds text, not token ids; take data=hub")
        return column.rows(tokenizer, form)

    return opened(config, open_one)
