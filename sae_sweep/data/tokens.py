"""The tokens of a sweep: which rows are held out, and which are trained on."""

import logging
import math
from dataclasses import dataclass
from itertools import chain
from typing import cast

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.checks import check_data
from sae_sweep.data.kinds import TokenKind, data_kind
from sae_sweep.data.origin import origins
from sae_sweep.data.packing import Ids, RowFormat, RowSource, Tokenizer
from sae_sweep.data.rows import RowReader, TokenStream
from sae_sweep.errors import ConfigError

SMALL_SHARE = 5
"""A source too small for the held-out tokens asked for gives about a fifth of itself."""
LOST_SHARE = 10
"""A held-out document is cut where the rows behind the cut are more than one in so many of those left to train on."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokens:
    """Held-out rows [rows, context] int32, and the stream of training rows, which has none of their documents, or none
    of their positions where a document had to be cut. A position that does not count holds ~id."""

    heldout: Ids
    training: TokenStream
    source: RowSource
    """What the stream reads."""
    spare: int
    """Rows of held-out documents that are neither held out nor trained on."""

    def account(self, rows: int) -> str:
        """What became of the source's tokens when so many rows have been trained on, in a line for people."""
        context, epoch = self.heldout.shape[1], self.training.rows_per_epoch
        told = f"data: {self.heldout.size:,} tokens held out, {rows * context:,} read to train on"
        if epoch is not None:
            told += f" ({rows / epoch:.3g} times over {epoch * context:,})"
        dropped = self.spare * context + self.source.dropped
        skipped = self.source.ledger.said() if self.source.ledger is not None else ""
        return f"{told}, {dropped:,} dropped" + (f"; {skipped} records skipped" if skipped else "")


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
        heldout, reader = _head(own, asked, config)[0][:asked], _reader(training, config)
        spare = 0
    else:
        heldout, reader, spare = _reserved(training, asked, config)
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
    stream = TokenStream(reader, config.seed, config.window_rows, config.block_rows)
    return Tokens(heldout, stream, training, spare)


def judged_rows(
    trained: Tokens, config: DataConfig, tokens: float, tokenizer: Tokenizer | None, vocab_size: int, same: bool
) -> Ids:
    """Rows to judge on, of which training read none: those of a source of its own for held-out tokens, else those that
    were held out (`same` data as trained on), else the first of the source.

    Raises ConfigError where more are asked for than were held out of what was trained on.
    """
    check_data(config)
    if not 1 <= tokens < math.inf:
        raise ConfigError(f"evaluation.tokens={tokens:g} must be at least 1")
    asked = math.ceil(tokens / config.context)
    kind = cast(TokenKind, data_kind(config.kind))
    training, own = kind.open_rows(config, tokenizer, _row_format(config, tokenizer, vocab_size))
    if own is None and same:
        if asked > len(trained.heldout):
            raise ConfigError(
                f"evaluation.tokens={tokens:g}: {training.label} has no more than {trained.heldout.size:,} tokens that"
                " training did not read; give data.heldout_path= (of a hub dataset data.heldout_split=), or other data"
            )
        return trained.heldout[:asked]
    found = _head(own or training, asked, config)[0][:asked]
    if len(found) < asked:
        log.warning("%s: %d rows are asked for, and there are %d", (own or training).label, asked, len(found))
    return found


def read_in_training(config: DataConfig, trained: DataConfig) -> bool:
    """Whether the training source of one config is, or has a file of, that of another."""
    if config.kind != trained.kind:
        return config.path is not None and config.path == trained.path
    kind, same = data_kind(config.kind), (config.path, config.name, config.split)
    if "path" not in kind.READS or same == (trained.path, trained.name, trained.split):
        return True
    found = [kind.files(origins(one)[0]) or [] if one.path else [] for one in (config, trained)]
    return not {file.resolve() for file in found[0]}.isdisjoint(file.resolve() for file in found[1])


def _reserved(training: RowSource, asked: int, config: DataConfig) -> tuple[Ids, RowReader, int]:
    """The first documents' rows, a reader of the others', and how many rows of the former are not held out.

    Documents are whole, unless much would be lost with them: then the last is cut behind the rows that are held out.
    """
    heldout, documents = _head(training, asked, config)
    reader, wanted = _reader(training, config, documents), asked
    if len(reader.read(0, 1)) == 0:
        wanted = max(1, len(heldout) // SMALL_SHARE)
        heldout, documents = _head(training, wanted, config)
        reader = _reader(training, config, documents)
    spare = len(heldout) - wanted
    if spare > 0 and len(reader.read(0, LOST_SHARE * spare)) < LOST_SHARE * spare:
        return heldout[:wanted], _reader(training, config, documents, heldout[wanted:]), 0
    return heldout[:asked], reader, max(0, len(heldout) - asked)


def _row_format(config: DataConfig, tokenizer: Tokenizer | None, vocab_size: int) -> RowFormat:
    bos, always = tokenizer.bos_token_id if tokenizer is not None else None, config.bos == "always"
    if always and bos is None:
        raise ConfigError("data.bos=always, but the model has no tokenizer with a BOS token; take auto or never")
    return RowFormat(
        config.context, None if config.bos == "never" else bos, vocab_size, always, config.packing == "document"
    )


def _head(source: RowSource, rows: int, config: DataConfig) -> tuple[Ids, int]:
    """The rows of the fewest first documents that give so many rows, and the number of those documents."""
    found, documents = source.head(rows)
    if len(found) == 0:
        raise ConfigError(f"{source.label} has not one row of data.context={config.context} tokens")
    return found, documents


def _reader(source: RowSource, config: DataConfig, documents: int = 0, before: Ids | None = None) -> RowReader:
    """The rows after so many documents, and some that come before them."""
    first = [] if before is None else [before]
    return RowReader(lambda: chain(first, source.rows_after(documents)), config.context, source.kept)
