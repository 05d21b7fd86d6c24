"""Text files on this machine: `data=text data.path=FILE_OR_GLOB`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.documents import text_documents, text_files
from sae_sweep.data.formats import check_format
from sae_sweep.data.origin import HELDOUT_KEYS, Origin, opened
from sae_sweep.data.records import Ledger
from sae_sweep.errors import ConfigError

if TYPE_CHECKING:
    from sae_sweep.data.packing import PackedText, RowFormat, Tokenizer

MODEL = TOKENIZES = True
READS = ("path", "heldout_path")
HELDOUT = HELDOUT_KEYS
files = text_files


def check(config: DataConfig) -> None:
    train, heldout = opened(config, _checked_files)
    if heldout and train & heldout:
        label = f"data.heldout_path={config.heldout_path}"
        raise ConfigError(f"{label} names files of data.path too, such as {min(train & heldout)}")


def _checked_files(origin: Origin) -> set[Path]:
    files = text_files(origin)
    for file in files:
        check_format(file, origin.key, origin.field)
    return {file.resolve() for file in files}


def open_rows(
    config: DataConfig, tokenizer: "Tokenizer | None", form: "RowFormat"
) -> "tuple[PackedText, PackedText | None]":
    from sae_sweep.data.packing import PackedText

    def open_one(origin: Origin) -> PackedText:
        ledger = Ledger(origin.label, config.max_bad_records)
        documents = partial(text_documents, text_files(origin), origin, ledger)
        return PackedText(documents, tokenizer, form, origin.label, kept=True, ledger=ledger)

    return opened(config, open_one)
