"""The tokens of a sweep: which rows are held out, and which are trained on."""

import logging
import math
from dataclasses import dataclass
from typing import cast

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.checks import check_data
from sae_sweep.data.kinds import TokenKind, data_kind
from sae_sweep.data.packing import Ids, RowFormat, RowSource, Tokenizer
from sae_sweep.data.rows import RowReader, TokenStream
from sae_sweep.errors import ConfigError

SMALL_SHARE = 5
"""A source too small for the held-out tokens asked for gives about a fifth of itself."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokens:
    """Held-out rows [rows, context] int32, and the stream of training rows, which has none of their documents."""

    heldout: Ids
    training: TokenStream


def open_tokens(config: DataConfig, evaluation_tokens: float, tokenizer: Tokenizer | None, vocab_size: int) -> Tokens:
    """The tokens that a config asks for: evaluation.tokens held out, rounded up to whole rows, the rest to train on.

    Held-out rows come from a source of their own (heldout_path, heldout_split, demo), or are the first documents of
    the training source. Where there are fewer than asked for, that is logged. Raises ConfigError when the config
    cannot be, or nothing is left to train on.
    """
    check_data(config)
    if not 1 <= evaluation_tokens < math.inf:
        raise ConfigError(f"evaluation.tokens={evaluation_tokens:g} must be at least 1")
    asked = math.ceil(evaluation_tokens / config.context)
    kind = cast(TokenKind, data_kind(config.kind))
    training, own = kind.open_rows(config, tokenizer, _row_format(config, tokenizer, vocab_size))
    if own is not None:
        heldout, _ = _head(own, asked, config)
        reader = _reader(training, 0, config)
    else:
        heldout, documents = _head(training, asked, config)
        reader = _reader(training, documents, config)
        if len(reader.read(0, 1)) == 0:
            heldout, documents = _head(training, max(1, len(heldout) // SMALL_SHARE), config)
            reader = _reader(training, documents, config)
    found = len(reader.read(0, config.block_rows))
    if found == 0:
        raise ConfigError(
            f"{training.label} has no row of {config.context} tokens to train on beside the {len(heldout)} held out;"
            " give more text"
        )
    if len(heldout) < asked:
        log.warning(
            "%s: evaluation.tokens=%g asks for %d held-out rows of %d tokens; %d are held out",
            *((own or training).label, evaluation_tokens, asked, config.context, len(heldout)),
        )
    if found < config.block_rows:
        log.warning("%s has %d rows to train on; a block of %d repeats them", training.label, found, config.block_rows)
    return Tokens(heldout[:asked], TokenStream(reader, config.seed, config.window_rows, config.block_rows))


def _row_format(config: DataConfig, tokenizer: Tokenizer | None, vocab_size: int) -> RowFormat:
    bos, always = tokenizer.bos_token_id if tokenizer is not None else None, config.bos == "always"
    if always and bos is None:
        raise ConfigError("data.bos=always, but the model has no tokenizer with a BOS token; take auto or never")
    return RowFormat(config.context, None if config.bos == "never" else bos, vocab_size, always)


def _head(source: RowSource, rows: int, config: DataConfig) -> tuple[Ids, int]:
    """The rows of the fewest first documents that give so many rows, and the number of those documents."""
    found, documents = source.head(rows)
    if len(found) == 0:
        raise ConfigError(f"{source.label} has not one row of data.context={config.context} tokens")
    return found, documents


def _reader(source: RowSource, documents: int, config: DataConfig) -> RowReader:
    """The rows after so many documents."""
    return RowReader(lambda: source.rows_after(documents), config.context, source.kept)
