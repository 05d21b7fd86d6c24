"""Text files on this machine: `data=text data.path=FILE_OR_GLOB`."""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sae_sweep.config.schema import DataConfig
from sae_sweep.config.values import counted
from sae_sweep.data.documents import text_files, text_records
from sae_sweep.data.fields import texts
from sae_sweep.data.formats import check_format, says_format
from sae_sweep.data.origin import HELDOUT_KEYS, Origin, opened, origins, sources_of
from sae_sweep.data.records import Ledger
from sae_sweep.errors import ConfigError

if TYPE_CHECKING:
    from sae_sweep.data.packing import PackedText, RowFormat, Tokenizer

log = logging.getLogger(__name__)

MODEL = TOKENIZES = True
READS = ("path", "heldout_path", "filter", "packing", "chat", "weights", "attention")
HELDOUT = HELDOUT_KEYS
files = text_files


def check(config: DataConfig) -> None:
    train, heldout = opened(config, _checked_files)
    if heldout and train & heldout:
        label = f"data.heldout_path={config.heldout_path}"
        raise ConfigError(f"{label} names files of data.path too, such as {min(train & heldout)}")


def note(config: DataConfig) -> str | None:
    found = [origin for source, _ in sources_of(config) for origin in origins(source) if origin is not None]
    files = [file for origin in found for file in text_files(origin)]
    unnamed = [file for file in files if not says_format(file)]
    if not unnamed:
        return None
    ends = ", ".join(sorted({file.suffix or "no suffix" for file in unnamed}))
    some = f"{counted(len(unnamed), 'file')} of {len(files)}"
    return f"data: {some} read as plain text, which their names do not say: {ends}"


def _checked_files(origin: Origin) -> set[Path]:
    files = text_files(origin)
    for file in files:
        check_format(file, origin.key, origin.field)
    return {file.resolve() for file in files}


def open_rows(
    config: DataConfig, tokenizer: "Tokenizer | None", form: "RowFormat"
) -> "tuple[PackedText, PackedText | None]":
    from sae_sweep.data.chats import ChatText
    from sae_sweep.data.packing import PackedText

    if (told := note(config)) is not None:
        log.warning("%s", told)

    def open_one(origin: Origin) -> PackedText:
        ledger = Ledger(origin.label, config.max_bad_records)
        records = partial(text_records, text_files(origin), origin)
        if config.chat:
            return ChatText(records, tokenizer, form, origin.label, True, ledger, config.positions_of)
        return PackedText(
            lambda: ledger.sound(texts(records())), tokenizer, form, origin.label, kept=True, ledger=ledger
        )

    return opened(config, open_one)
