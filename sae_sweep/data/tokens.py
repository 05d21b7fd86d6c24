"""The tokens of a sweep: which rows are held out, and which are trained on."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

from sae_sweep.config.schema import DataConfig
from sae_sweep.config.values import shown
from sae_sweep.data.checks import check_data
from sae_sweep.data.kinds import TokenKind, data_kind
from sae_sweep.data.mixture import MixedReader, Shares, asked_of, interleaved
from sae_sweep.data.origin import origins, sources_of
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
    sources: tuple["Opened", ...]
    """What the stream reads."""
    shares: Shares | None = None
    """Of several sources, which row is of which."""

    def account(self, rows: int) -> str:
        """What became of the sources' tokens when so many rows have been trained on, in a line for people."""
        told = f"data: {self.heldout.size:,} tokens held out, "
        if self.shares is None:
            return told + self.sources[0].account(rows)
        read = self.shares.read(rows, self.training.window_rows)
        each = (f"{one.rows.label}: {one.account(int(n))}" for one, n in zip(self.sources, read, strict=True))
        return f"{told}{rows * self.heldout.shape[1]:,} read to train on; of {'; of '.join(each)}"


@dataclass(frozen=True)
class Opened:
    """One source of tokens, with its held-out rows and what reads the others."""

    rows: RowSource
    heldout: Ids
    reader: RowReader
    spare: int
    """Rows of held-out documents that are neither held out nor trained on."""

    def account(self, rows: int) -> str:
        """What became of its tokens when so many of its rows have been trained on."""
        context, epoch = self.heldout.shape[1], self.reader.length
        told = f"{rows * context:,} read to train on"
        if epoch is not None:
            told += f" ({rows / epoch:.3g} times over {epoch * context:,})"
        dropped = self.spare * context + self.rows.dropped
        skipped = self.rows.ledger.said() if self.rows.ledger is not None else ""
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
    form = _row_format(config, tokenizer, vocab_size)
    parts, shares = zip(*sources_of(config), strict=True)
    rows = [asked] if len(parts) == 1 else asked_of(shares, asked)
    opened = tuple(_open(part, n, tokenizer, form) for part, n in zip(parts, rows, strict=True))
    for one, wanted in zip(opened, rows, strict=True):
        if len(one.heldout) < wanted:
            log.warning(
                "%s: evaluation.tokens=%g asks for %d held-out rows of %d tokens; %d are held out",
                *(one.rows.label, evaluation_tokens, wanted, config.context, len(one.heldout)),
            )
    if len(opened) > 1:
        drawn = Shares(shares, config.seed)
        mixed = MixedReader([one.reader for one in opened], drawn, config.context)
        stream = TokenStream(mixed, config.seed, config.window_rows, config.block_rows)
        return Tokens(interleaved([one.heldout for one in opened]), stream, opened, drawn)
    (one,) = opened
    found = len(one.reader.read(0, config.block_rows))
    if found < config.block_rows:
        log.warning("%s has %d rows to train on; a block of %d repeats them", one.rows.label, found, config.block_rows)
    stream = TokenStream(one.reader, config.seed, config.window_rows, config.block_rows)
    return Tokens(one.heldout, stream, opened)


def _open(config: DataConfig, asked: int, tokenizer: Tokenizer | None, form: RowFormat) -> Opened:
    """One source of tokens, with so many rows held out, or as many as it has. Raises ConfigError."""
    kind = cast(TokenKind, data_kind(config.kind))
    training, own = kind.open_rows(config, tokenizer, form)
    if own is not None:
        one = Opened(training, _head(own, asked, config)[0][:asked], _reader(training, config), 0)
    else:
        heldout, reader, spare = _reserved(training, asked, config)
        one = Opened(training, heldout, reader, spare)
    if len(one.reader.read(0, 1)) == 0:
        raise ConfigError(
            f"{training.label} has no row of {config.context} tokens to train on beside the {len(one.heldout)} held"
            " out; give more text"
        )
    return one


@dataclass(frozen=True)
class Judged:
    """Rows [rows, context] int32 to judge on, of which training read none, each once."""

    rows: Ids
    account: str
    """Where they are from, and what became of what was read with them, in a line for people."""


def judged_rows(
    trained: Tokens, before: DataConfig, config: DataConfig, tokens: float, tokenizer: Tokenizer | None, vocab_size: int
) -> Judged:
    """Rows to judge on, of which training on `before` read none: those of a source of its own for held-out tokens,
    else those that were held out where the data are the same, else the first of the source.

    Raises ConfigError where more are asked for than were held out of what was trained on, or other rows of it.
    """
    if not data_kind(config.kind).MODEL:
        raise ConfigError(f"data.kind={config.kind}: no language model reads it, which these SAEs are judged in")
    check_data(config)
    if not 1 <= tokens < math.inf:
        raise ConfigError(f"evaluation.tokens={tokens:g} must be at least 1")
    asked, held = math.ceil(tokens / config.context), trained.heldout
    told = f"of the {held.size:,} held out from training"
    if config == before and asked == len(held):
        return Judged(held, _account(held, told))
    form, kind = _row_format(config, tokenizer, vocab_size), cast(TokenKind, data_kind(config.kind))
    parts, shares = zip(*sources_of(config), strict=True)
    opened = [kind.open_rows(part, tokenizer, form) for part in parts]
    training, own = opened[0]
    if own is None and read_in_training(config, before):
        check_alike(config, before)
        if asked > len(held):
            raise ConfigError(
                f"evaluation.tokens={tokens:g}: {training.label} has no more than {held.size:,} tokens that"
                " training did not read; give data.heldout_path= (of a hub dataset data.heldout_split=), or other data"
            )
        return Judged(held[:asked], _account(held[:asked], told))
    wanted = [asked] if len(parts) == 1 else asked_of(shares, asked)
    return _first_rows([own or training for training, own in opened], wanted, config)


def _first_rows(sources: Sequence[RowSource], wanted: Sequence[int], config: DataConfig) -> Judged:
    """So many rows of each source, its first."""
    read = [_head(source, rows, config)[0] for source, rows in zip(sources, wanted, strict=True)]
    each = [found[:rows] for found, rows in zip(read, wanted, strict=True)]
    found, asked, labels = interleaved(each), sum(wanted), ", ".join(source.label for source in sources)
    if len(found) < asked:
        log.warning("%s: %d rows are asked for, and there are %d", labels, asked, len(found))
    dropped = sum(rows.size for rows in read) - found.size
    told = _account(found, f"of {labels}, which training did not read, {dropped:,} dropped")
    skipped = [said for source in sources if source.ledger is not None and (said := source.ledger.said())]
    return Judged(found, told + (f"; {' and '.join(skipped)} records skipped" if skipped else ""))


def check_alike(config: DataConfig, before: DataConfig) -> None:
    """Raises ConfigError where rows of the same data would be made in another way than those that were held out."""
    for key in data_kind(config.kind).HELDOUT:
        asked, held = getattr(config, key), getattr(before, key)
        if key not in ("kind", "path") and asked != held:
            raise ConfigError(
                f"data.{key}={shown(asked)}: what was held out of this source has {shown(held)}; leave it, or give data"
                " that training did not read (data.heldout_path=)"
            )


def _account(rows: Ids, told: str) -> str:
    return f"data: {rows.size:,} tokens read to judge on, each once, {told}"


def read_in_training(config: DataConfig, trained: DataConfig) -> bool:
    """Whether the training source of one config is, or has a file of, that of another."""
    if config.kind != trained.kind:
        return config.path is not None and config.path == trained.path
    if "path" not in data_kind(config.kind).READS:
        return True
    return any(_share_a_file(one, other) for one, _ in sources_of(config) for other, _ in sources_of(trained))


def _share_a_file(config: DataConfig, trained: DataConfig) -> bool:
    kind = data_kind(config.kind)
    if (config.path, config.name, config.split) == (trained.path, trained.name, trained.split):
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
    alone, apart = config.packing == "document", config.attention == "document"
    return RowFormat(config.context, None if config.bos == "never" else bos, vocab_size, always, alone, apart)


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
