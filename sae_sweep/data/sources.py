"""From a config to the sources of rows it names: the training source, and the held-out set's own if it has one."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.arrays import column_sheets, load_sheet
from sae_sweep.data.checks import heldout_origin, is_array, training_origin
from sae_sweep.data.columns import Column
from sae_sweep.data.demo import demo_documents
from sae_sweep.data.documents import Origin, text_documents, text_files
from sae_sweep.data.packing import PackedText, RowFormat, RowSource, Tokenizer, TokenRows, checked_ids
from sae_sweep.errors import ConfigError


def training_source(config: DataConfig, tokenizer: Tokenizer | None, vocab_size: int) -> RowSource:
    """The rows of data.path, or of the demo corpus. ConfigError when it cannot be opened or does not fit the model."""
    form = _row_format(config, tokenizer, vocab_size)
    if config.kind == "demo":
        return _packed(lambda: demo_documents("train"), tokenizer, form, "data.kind=demo", kept=True)
    return _source(config, training_origin(config), tokenizer, form)


def heldout_source(config: DataConfig, tokenizer: Tokenizer | None, vocab_size: int) -> RowSource | None:
    """The held-out set's own source; None where it is to be reserved from the training source."""
    form = _row_format(config, tokenizer, vocab_size)
    if config.kind == "demo":
        return _packed(lambda: demo_documents("heldout"), tokenizer, form, "data.kind=demo", kept=True)
    origin = heldout_origin(config)
    return None if origin is None else _source(config, origin, tokenizer, form)


def _row_format(config: DataConfig, tokenizer: Tokenizer | None, vocab_size: int) -> RowFormat:
    bos = tokenizer.bos_token_id if tokenizer is not None else None
    if config.bos == "always" and bos is None:
        raise ConfigError("data.bos=always, but the model has no tokenizer with a BOS token; take auto or never")
    return RowFormat(config.context, None if config.bos == "never" else bos, vocab_size)


def _source(config: DataConfig, origin: Origin, tokenizer: Tokenizer | None, form: RowFormat) -> RowSource:
    if config.kind == "text":
        files = text_files(origin)
        return _packed(lambda: text_documents(files, origin), tokenizer, form, origin.label, kept=True)
    # Ids are used as they are: BOS is asked of them only where the user insists on it.
    form_of_ids = form if config.bos == "always" else replace(form, bos_id=None)
    if config.kind == "tokens" and is_array(origin):
        sheet = checked_ids(load_sheet(origin, form.context), form.vocab_size, origin.label)
        return TokenRows(lambda: iter([sheet]), form_of_ids, origin.label, kept=True)
    column = Column(origin)
    if column.content == "ids":
        return TokenRows(lambda: column_sheets(column), form_of_ids, origin.label, kept=False)
    if config.kind == "tokens":
        raise ConfigError(f"data.field={origin.field} of {origin.label} holds text, not token ids; take data=hub")
    return _packed(column.documents, tokenizer, form, origin.label, kept=False)


def _packed(
    documents: Callable[[], Iterator[str]], tokenizer: Tokenizer | None, form: RowFormat, label: str, *, kept: bool
) -> PackedText:
    if tokenizer is None:
        raise ConfigError(f"{label} is text, and the model has no tokenizer for it; give token ids (data=tokens)")
    return PackedText(documents, tokenizer, form, label, kept)
